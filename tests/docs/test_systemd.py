"""The unit file of the page, as systemd reads it."""

import subprocess
import sys
from pathlib import Path

import pytest

from docs.blocks import blocks_of

UNIT = next(block.code for block in blocks_of("docs/guides/systemd.md") if block.language == "ini")
PROGRAM = "/opt/turnwire/.venv/bin/turnwire"


@pytest.mark.tool("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "turnwire.service"
    assert PROGRAM in UNIT
    unit.write_text(UNIT.replace(PROGRAM, str(Path(sys.executable).with_name("turnwire"))))

    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_has_no_directive_that_takes_the_sandbox_away() -> None:
    directives = {line.partition("=")[0] for line in UNIT.splitlines()}

    assert not directives & {"RestrictNamespaces", "ProtectKernelTunables", "ProtectKernelLogs", "ProcSubset"}
