"""The unit file of the page, as systemd reads it."""

import subprocess
import sys
from pathlib import Path

import pytest

from docs import container
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


STUBS = "".join(f'{name}() {{ echo {name} "$@"; }}\n' for name in ("git", "make", "systemctl", "journalctl"))
"""For what would fetch, build, or talk to a systemd that runs."""

CHECKS = """
run() { setpriv --reuid turnwire --regid turnwire --clear-groups "$@"; }
run cat /etc/turnwire.toml
run cat /etc/turnwire.env 2> /dev/null || echo "the keys are for root"
"""


@pytest.mark.slow
@pytest.mark.tool("overlay")
def test_the_commands_of_the_page_set_the_service_up_in_a_copy_of_the_machine(tmp_path: Path) -> None:
    commands = blocks_of("docs/guides/systemd.md")[0].code.replace("<this repository>", "https://example.com/turnwire")
    copy, enter, script = tmp_path / "copy", tmp_path / "enter.sh", tmp_path / "commands.sh"
    copy.mkdir()
    enter.write_text(container.ENTER)
    script.write_text(f"set -e\ncd {tmp_path}\n{STUBS}{commands}{CHECKS}")
    (tmp_path / "turnwire.service").write_text(UNIT)

    done = subprocess.run(
        ["unshare", "--mount", "bash", enter, copy, "bash", script], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert "systemctl enable --now turnwire" in said
    assert 'model = "anthropic:claude-sonnet-5-5"' in said
    assert said[-1] == "the keys are for root"
