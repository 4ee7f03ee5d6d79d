"""An event loop in which waiting takes no time: hours pass in milliseconds, and always in the same order.

When nothing is left to do but to wait for a timer, the loop's time jumps there. Work for threads is done at once, in
the loop's own thread. Nothing but timers can be waited for: a program that waits for a socket's other end that is not
in the same loop waits for ever.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0. RuntimeError where a real loop would wait for ever."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass while nothing else happens."""
        self._now += seconds

    def run_in_executor(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future

    def run_for(self, seconds: float) -> None:
        """Let everything run for so long."""
        self.run_until_complete(asyncio.sleep(seconds))


class _Selector(selectors.DefaultSelector):
    """Looks at the sockets, and lets the loop's time jump instead of waiting."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("every task waits, and no timer is set: nothing will ever happen here")
            self._loop.jump(max(timeout, 0.0))
        return events


class LoopClock:
    """`turnwire.seams.clock.Clock` by a loop's time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, epoch: float = 1_700_000_000.0) -> None:
        self._loop = loop
        self._epoch = epoch

    def now(self) -> float:
        return self._epoch + self._loop.time()


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
