"""How work in a thread learns that it should end."""

import threading
import time


class Stop:
    """True once the time is up, or nobody waits for the result any more. Work looks at it between its steps."""

    def __init__(self, time_s: float) -> None:
        self._time_s = time_s
        self._deadline = float("inf")
        self._abandoned = threading.Event()

    def begin(self) -> None:
        """The time runs from now: work that waited for a thread has all of it."""
        self._deadline = time.monotonic() + self._time_s

    def abandon(self) -> None:
        self._abandoned.set()

    def __bool__(self) -> bool:
        return self._abandoned.is_set() or time.monotonic() > self._deadline
