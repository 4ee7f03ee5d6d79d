"""What a flow asks of its driver. The client's logic is written once, as generators, and never does I/O:

    reply = yield Send(request)      the driver sends it, and hands back a Reply, or throws Broken
    chunk = yield Read()             bytes of the open answer, b"" at its end, or Broken
    yield Wait(2.0, …)               the driver sleeps

What else a flow yields are its results, such as a turn's events. `blocking.py` drives flows with threads and sockets,
`concurrent.py` with asyncio. The shape is that of httpx's `Auth`: one flow, two drivers.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")
Flow = Generator[Any, Any, T]
"""A flow whose outcome is a T."""

Why = Literal["busy", "refused", "disconnected"]


class Broken(Exception):
    """The connection failed. `sent`: the request may have reached the server."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Source(msgspec.Struct, frozen=True):
    """A request's body that is read in pieces. `open` is called for each try; `size` in bytes, where known."""

    open: Callable[[], BinaryIO]
    size: int | None
    progress: Callable[[int, int | None], object] | None = None


class Request(msgspec.Struct, frozen=True):
    method: str
    path: str
    headers: dict[str, str] = {}
    params: dict[str, str] = {}
    body: bytes | Source | None = None


class Reply(msgspec.Struct, frozen=True):
    """An answer: `body` is whole, but for a stream that is open, of which it is empty."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Step(msgspec.Struct, frozen=True):
    """Something to be done by the driver."""


class Send(Step, frozen=True):
    """→ Reply. `stream`: a 2xx answer stays open, to be read by Read; one is open at a time."""

    request: Request
    stream: bool = False


class Read(Step, frozen=True):
    """→ bytes of the open answer; b"" at its end. Broken when none come for `timeout_s`: that of the first counts."""

    timeout_s: float = 60.0


class Hangup(Step, frozen=True):
    """Close the open answer, if there is one."""


class Wait(Step, frozen=True):
    """Sleep. `Client(on_wait=…)` is told of it before."""

    seconds: float
    why: Why
    error: Exception | None = None
    tries: int = 0


class Run(Step, frozen=True):
    """→ list of outcomes: call these functions of the caller, at once where the driver can."""

    calls: list[Callable[[], Any]]


class Returned(msgspec.Struct, frozen=True):
    value: Any


class Raised(msgspec.Struct, frozen=True):
    error: BaseException


Outcome = Returned | Raised


class Course(Generic[T]):
    """A flow under way: which step it waits for, so that a driver may be interrupted anywhere, and go on later.

    An interrupt that comes while the flow itself runs ends it, as Ctrl-C may: `again` makes the flow that goes on.
    """

    def __init__(self, flow: Flow[T], again: Callable[[], Flow[T]] | None = None) -> None:
        self._flow = flow
        self._again = again
        self._is_taken = False
        self._step: Step | None = None
        self._value: Any = None
        self._error: Broken | None = None

    def next(self) -> Any:
        """The flow's next step, or a result of it. StopIteration, with the outcome, at its end."""
        if self._is_taken:
            raise RuntimeError("This is being read already, by another thread or task: one at a time can.")
        if self._step is not None:
            self._interrupted(self._step)
        value, error = self._value, self._error
        self._value = self._error = self._step = None
        self._is_taken = True
        try:
            out = self._flow.send(value) if error is None else self._flow.throw(error)
        except BaseException as exc:
            if self._again is not None and not isinstance(exc, Exception):
                self._flow = self._again()
            raise
        finally:
            self._is_taken = False
        if isinstance(out, Step):
            self._step = out
        return out

    @contextmanager
    def taken(self) -> Generator[None]:
        """While a driver does the step: nobody else may go on then."""
        self._is_taken = True
        try:
            yield
        finally:
            self._is_taken = False

    def done(self, value: Any = None) -> None:
        """The step is done; `value` is what it gave."""
        self._step, self._value = None, value

    def broke(self, error: Broken) -> None:
        self._step, self._error = None, error

    def _interrupted(self, step: Step) -> None:
        """The driver was stopped in a step, by Ctrl-C or a cancelled task, and now goes on."""
        match step:
            case Send() | Read():
                self.broke(Broken("it was interrupted", sent=True))
            case Run(calls):
                self.done([Raised(InterruptedError("the call was interrupted")) for _ in calls])
            case _:
                self.done()
