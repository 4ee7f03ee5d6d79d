"""The programs of docs/guides/client.md run, each by itself, against a real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.harness import Server

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "client.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)

SHOWN = {
    "I look.": "I look.\n[list_files]\n[done]\nIt is empty.",
    "Good morning.": "Good morning.\n",
    "asyncio.gather": "['0', '1', '2']\n1 \n2 \n3 \n",
    "def rate": "1.12",
    "def on_approval": "Only below drafts/.",
    "bills.csv": "19000 of",
    "sess_000000000000": "There is no session sess_000000000000. 404 req_",
}
"""What a program prints, by a piece of its text."""


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_program_of_the_guide_runs(demo: Server, tmp_path: Path, number: int) -> None:
    env = {"PATH": os.environ["PATH"], "POKEE_API": demo.url, "POKEE_KEY": demo.key}
    command = [sys.executable, "-W", "error", "-c", PROGRAMS[number]]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stderr) == (0, "")
    (shown,) = [text for piece, text in SHOWN.items() if piece in PROGRAMS[number]]
    assert shown in done.stdout


def test_every_program_of_the_guide_is_known() -> None:
    assert len(PROGRAMS) == len(SHOWN)
