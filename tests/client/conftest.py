"""A real server, and clients of it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from e2e.harness import Server
from turnwire import AsyncClient, Client


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the demo model, one to a module."""
    with Server(tmp_path_factory.mktemp("demo")) as server:
        yield server


@pytest.fixture
def tw(demo: Server) -> Iterator[Client]:
    with Client(demo.url, demo.key) as client:
        yield client


@pytest.fixture
async def atw(demo: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(demo.url, demo.key) as client:
        yield client
