"""Time, so that tests can turn it."""

import time
from typing import Protocol


class Clock(Protocol):
    """What time it is."""

    def now(self) -> float:
        """Epoch seconds: for records, expiry and leases."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()
