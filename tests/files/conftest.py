"""One server for all tests of files, and a clean workspace for each."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from files.served import Files, Served


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("files"), {})
    yield server
    server.close()
    log = server.log.read_text()
    assert "request_failed" not in log and "Traceback" not in log, log[-5000:]


@pytest.fixture
def server(shared_server: Served) -> Iterator[Served]:
    shutil.rmtree(shared_server.shared, ignore_errors=True)
    yield shared_server
    assert shared_server.leftovers() == []


@pytest.fixture
def files(server: Served) -> Files:
    return server.session()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts a server with these settings, by name."""
    started: list[Served] = []

    def start(*arguments: str, **settings: object) -> Served:
        env = {f"TURNWIRE_{name.upper()}": str(value) for name, value in settings.items()}
        started.append(Served(tmp_path, env, arguments))
        return started[-1]

    yield start
    for server in started:
        server.close(kill=True)
