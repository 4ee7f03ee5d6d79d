"""Every code block of README.md and docs/ runs, or says why it doesn't."""

import json
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

from docs.blocks import PARSED, READ_ONLY, RUNS, Block, blocks_of, page_names
from docs.shell import Shell
from turnwire.models.scripted import read_scenario
from turnwire.settings import load_settings

PAGES = page_names()
RUN_PAGES = [page for page in PAGES if any(block.runs for block in blocks_of(page))]

CLIENT = re.compile(
    r"POKEE_(API|KEY)|TURNWIRE_(URL|KEY)|turnwire (chat|sessions|files)|from turnwire import|python examples/"
)
"""What works with a server only."""

NOT_RUN = {
    "README.md": 1,
    "docs/guides/backup.md": 2,
    "docs/guides/chat.md": 1,
    "docs/guides/containers.md": 1,
    "docs/guides/examples.md": 1,
    "docs/guides/javascript.md": 2,
    "docs/guides/postgresql.md": 2,
    "docs/guides/sandbox.md": 1,
    "docs/guides/systemd.md": 2,
    "docs/guides/upgrade.md": 1,
    "docs/quick-start.md": 2,
}
"""How many blocks of a page don't run. A new one is a decision: it has a reason, and is counted here."""


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_language_that_is_known(page: str) -> None:
    unknown = [f"{block.where}: {block.language!r}" for block in blocks_of(page) if not _is_known(block)]

    assert unknown == []


def _is_known(block: Block) -> bool:
    return block.language in (*RUNS, *PARSED, *READ_ONLY)


def test_blocks_that_do_not_run_say_why_and_are_counted() -> None:
    marked = [block for page in PAGES for block in blocks_of(page) if block.no_run is not None]

    assert all(len(block.no_run or "") > 8 and block.language in RUNS for block in marked), marked
    assert Counter(block.page for block in marked) == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_data_blocks_are_what_they_say(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Paths in settings may be relative.
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(page):
        match block.language:
            case "json":
                json.loads(block.code)
            case "yaml":
                yaml.safe_load(block.code)
            case "toml":
                tomllib.loads(block.code)
            case _:
                continue
        if "settings" in block.attributes:
            file = tmp_path / "turnwire.toml"
            file.write_text(block.code)
            load_settings(file)
        if "scenario" in block.attributes:
            file = tmp_path / "scenario.yaml"
            file.write_text(block.code)
            read_scenario(file)


@pytest.mark.slow
@pytest.mark.tool("curl", "node", "npm-clients", "bwrap", "sqlite3", "zip")
@pytest.mark.parametrize("page", RUN_PAGES)
def test_the_blocks_of_the_page_run(page: str, tmp_path: Path) -> None:
    blocks = blocks_of(page)
    asks_for_server = any(CLIENT.search(block.code) for block in blocks)
    with Shell(tmp_path) as shell:
        printed = ""
        for block in blocks:
            if name := block.attributes.get("file"):
                file = shell.folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.code)
            elif "output" in block.attributes:
                assert_shown(block, printed)
            elif block.runs and "server" in block.attributes:
                printed = shell.start_server(block.code, block.where)
            elif block.runs:
                if asks_for_server and not shell.has_server:
                    # What such a page asks for at its head: a running server with the demo model.
                    shell.start_server("turnwire serve --model demo")
                run = shell.run if block.language == "bash" else shell.run_python
                printed = run(block.code, block.where)


def assert_shown(block: Block, printed: str) -> None:
    """Each line that the page shows was printed, in this order; `…` stands for anything within a line, and a line of
    nothing else for any lines."""
    at = 0
    for line in block.code.splitlines():
        if line.strip() in ("", "…"):
            continue
        pattern = ".*".join(re.escape(part) for part in re.split("…", line.strip()))
        match = re.compile(rf"^\s*{pattern}\s*$", re.MULTILINE).search(printed, at)
        assert match, f"{block.where} shows {line!r}, which was not printed there:\n{printed[-3000:]}"
        at = match.end()
