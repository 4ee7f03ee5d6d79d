"""Servers and fake providers for the tests beside this file."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from e2e.harness import Api, Server
from fakes.base import Fake

F = TypeVar("F", bound=Fake)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the demo model, one to a module: tests make sessions of their own in it."""
    with Server(tmp_path_factory.mktemp("demo")) as server:
        yield server


@pytest.fixture
def api(demo: Server) -> Api:
    return demo.api()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers of a test's own: `serve(model=…, env=…, STEP_RETRIES=0)`."""
    with ExitStack() as stack:
        made = 0

        def start(**options: Any) -> Server:
            nonlocal made
            made += 1
            folder = tmp_path / f"server{made}"
            folder.mkdir()
            return stack.enter_context(Server(folder, **options))

        yield start


class Loop:
    """An event loop in a thread, for the fake providers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = ExitStack()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def start(self, fake: F) -> F:
        """The fake, serving until the loop is closed."""
        self.run(fake.__aenter__())
        self._stack.callback(lambda: self.run(fake.__aexit__()))
        return fake

    def close(self) -> None:
        self._stack.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()
