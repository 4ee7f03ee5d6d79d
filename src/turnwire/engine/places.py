"""How many turns run at once: in all, and of one tenant."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from turnwire.engine.limits import RETRY_AFTER_LIMIT_S
from turnwire.protocol.errors import RateLimited, Unavailable


class Places:
    """Counts running turns and those that are about to begin, of this process."""

    def __init__(self, *, turns_max: int, turns_per_tenant_max: int) -> None:
        self._max = turns_max
        self._tenant_max = turns_per_tenant_max
        self._taken: Counter[str] = Counter()
        self._total = 0

    def refusal(self, tenant: str) -> RateLimited | Unavailable | None:
        """Why this tenant can't begin a turn now; None when it can."""
        if self._taken[tenant] >= self._tenant_max:
            return RateLimited(
                f"This tenant has as many turns running as it may ({self._tenant_max}): wait for one to end.",
                retry_after_s=RETRY_AFTER_LIMIT_S,
            )
        if self._total >= self._max:
            return Unavailable(
                f"The server runs as many turns as it takes ({self._max}): try again soon.",
                retry_after_s=RETRY_AFTER_LIMIT_S,
            )
        return None

    @contextmanager
    def reserved(self, tenant: str) -> Generator[None]:
        """A place for a turn that is about to begin: given back when it does not.

        `RateLimited` at the tenant's limit, `Unavailable` at the server's.
        """
        refusal = self.refusal(tenant)
        if refusal is not None:
            raise refusal
        self.take(tenant)
        try:
            yield
        finally:
            self.give_back(tenant)

    def take(self, tenant: str) -> None:
        """A place for a turn that runs, limit or not: it has begun already."""
        self._taken[tenant] += 1
        self._total += 1

    def give_back(self, tenant: str) -> None:
        self._total -= 1
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]
