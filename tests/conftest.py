"""What every test shares."""

from pathlib import Path

import pytest

pytest_plugins = ["plugins.tools", "plugins.postgres"]

STARTS_SERVERS = (
    "chat/test_script.py",
    "chat/test_shell.py",
    "chat/test_terminal.py",
    "cli/",
    "client/test_answers.py",
    "client/test_cuts.py",
    "client/test_files.py",
    "client/test_founding.py",
    "client/test_functions.py",
    "client/test_life.py",
    "client/test_outages.py",
    "client/test_surface.py",
    "client/test_turns.py",
    "conformance/",
    "console/",
    "crash/",
    "e2e/",
    "files/",
    "models/test_local.py",
    "sandboxes/",
    "tools/test_mcp.py",
    "tools/test_shell.py",
)
"""Whose tests start servers or run commands: they are left out of `make quick`."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(STARTS_SERVERS):
            item.add_marker("slow")
