"""A clock that stands still until it is turned."""


class TurnableClock:
    """`turnwire.seams.clock.Clock` for tests: leases run out and keys expire when the test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def turn(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._now += seconds
