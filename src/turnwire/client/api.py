"""One request and its answer: errors typed, broken connections tried again, refusals waited for as told."""

import random
import re
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar
from urllib.parse import urljoin

import msgspec

from turnwire.client.address import shown_url
from turnwire.client.errors import Unreachable, error_of
from turnwire.client.records import read_record
from turnwire.client.steps import Broken, Flow, Reply, Request, Send, Wait, Why
from turnwire.protocol.codec import encode_json
from turnwire.protocol.errors import RemoteProtocolError, TurnwireError

T = TypeVar("T")

FIRST_DELAY_S = 0.25
DELAY_MAX_S = 8.0
"""The first try after a break is made at once, then these double: a server that restarts is there within seconds, and
one that stays away is not hammered."""

BUSY_DELAY_MAX_S = 2.0
"""A turn's end is noticed within this time."""

STRANGER_TRIES = 3
"""How often a server is tried that breaks off and never gave an answer: most likely it is of another kind."""

PAGE_ITEMS = 1000
"""Items of a page where all are wanted: the most that servers give."""

REFUSED = (429, 503)
GATEWAY = (502, 504)
"""What stands between us and the server could not reach it: the request may have come there, as with a broken one."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How long the client bears what."""

    retry_timeout_s: float = 120.0
    busy_timeout_s: float = 600.0
    heartbeat_timeout_s: float = 35.0
    connect_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            least = 0.0 if name in ("retry_timeout_s", "busy_timeout_s") else 0.01
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
                raise ValueError(f"{name}: must be seconds, {least:g} or more, not {value!r}.")


class Patience:
    """How long one trouble is borne: from its first wait until `got_on()`."""

    def __init__(self, timeout_s: float, clock: Callable[[], float], *, delay_max_s: float = DELAY_MAX_S) -> None:
        self._timeout_s, self._clock, self._delay_max_s = timeout_s, clock, delay_max_s
        self._since: float | None = None
        self.tries = 0

    def got_on(self) -> None:
        self._since, self.tries = None, 0

    def wait(self, why: Why, error: Exception, told_s: float | None = None) -> Flow[None]:
        """Wait before the next try. Raises `error` when the time is up, or would be before the time that was told."""
        now = self._clock()
        if self._since is None:
            self._since = now
        left = self._since + self._timeout_s - now
        if left <= 0 or (told_s or 0) > left:
            raise error
        delay = max(self._delay_s(), told_s or 0)
        self.tries += 1
        if delay:
            yield Wait(min(delay, left), why, error, self.tries - 1)

    def _delay_s(self) -> float:
        if self.tries == 0:
            return 0.0
        doubled = min(self._delay_max_s, FIRST_DELAY_S * 2.0 ** min(self.tries - 1, 30))
        return doubled * random.uniform(0.75, 1.0)  # so that many clients don't come back in one instant


class Api:
    """The requests of one client. `reached` becomes true with the first answer: from then on an outage is waited for,
    before that a server that is not there is an error at once, since most likely its address is wrong."""

    def __init__(self, url: str, options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self.url, self.options, self.clock = url, options, clock
        self.reached = False

    def outage(self) -> Patience:
        return Patience(self.options.retry_timeout_s, self.clock)

    def unreachable(self, why: Broken | TurnwireError) -> Unreachable:
        url = shown_url(self.url)
        if not self.reached:
            exc = Unreachable(f"No server answers at {url} ({why}): is it running there? `turnwire serve` starts one.")
        else:
            exc = Unreachable(f"The connection to {url} failed, and it did not come back in time: {why}.")
        exc.__cause__ = why
        return exc

    def after_break(self, patience: Patience, broken: Broken) -> Flow[None]:
        """Wait for the next try, or raise Unreachable."""
        error = self.unreachable(broken)
        if not self.reached and (not broken.sent or patience.tries >= STRANGER_TRIES):
            raise error
        yield from patience.wait("disconnected", error)

    def call(self, request: Request, *, stream: bool = False, retries: bool = True) -> Flow[Reply]:
        """Send a request that may be sent twice, until it is answered by 2xx. Raises the error that the answer is."""
        patience, broke = self.outage(), False
        while True:
            try:
                reply: Reply = yield Send(request, stream)
            except Broken as exc:
                if not retries:
                    raise self.unreachable(exc) from exc
                broke = broke or exc.sent
                yield from self.after_break(patience, exc)
                continue
            self.reached = True
            if reply.status < 300:
                return reply
            error = error_of(reply.status, reply.headers, reply.body)
            if error.status == 404 and broke and request.method == "DELETE":
                return reply  # the first try did it
            if not retries or reply.status not in REFUSED + GATEWAY:
                raise error
            broke = broke or reply.status in GATEWAY
            yield from patience.wait("refused", error, error.retry_after_s)

    def get(self, path: str, shape: type[T]) -> Flow[T]:
        reply = yield from self.call(Request("GET", path))
        return read_record(reply.body, shape)

    def send_json(self, method: str, path: str, body: object, shape: type[T]) -> Flow[T]:
        reply = yield from self.call(json_request(method, path, body))
        return read_record(reply.body, shape)

    def delete(self, path: str) -> Flow[None]:
        yield from self.call(Request("DELETE", path))

    def pages(
        self, path: str, read: Callable[[bytes], list[T]], params: dict[str, str] | None = None
    ) -> Generator[Any, Any, None]:
        """Yields the items of all pages, in order."""
        request: Request | None = Request("GET", path, params=params or {})
        seen: set[str] = set()
        while request is not None:
            items, request = yield from self._page(request, read, seen)
            yield from items

    def all_pages(self, path: str, read: Callable[[bytes], list[T]]) -> Flow[list[T]]:
        """The items of all pages at once."""
        found: list[T] = []
        request: Request | None = Request("GET", path, params={"limit": str(PAGE_ITEMS)})
        seen: set[str] = set()
        while request is not None:
            items, request = yield from self._page(request, read, seen)
            found += items
        return found

    def _page(
        self, request: Request, read: Callable[[bytes], list[T]], seen: set[str]
    ) -> Flow[tuple[list[T], Request | None]]:
        """A page, and the request for the next one. `seen`: where the pages before this one led to."""
        reply = yield from self.call(request)
        items = read(reply.body)
        target = next_page(reply.headers.get("link"))
        if target is None:
            return items, None
        try:
            following = urljoin(f"{self.url}/", target)
        except ValueError as exc:
            raise RemoteProtocolError("The server's list leads to what is no address for its next page.") from exc
        if following in seen:
            raise RemoteProtocolError("The server's list leads in a circle: it would never end.")
        seen.add(following)
        if not following.startswith(f"{self.url}/"):  # the key is for this server alone
            raise RemoteProtocolError("The server's list leads to another server for its next page.")
        return items, Request("GET", following.removeprefix(self.url))


def json_request(method: str, path: str, body: object, **headers: str) -> Request:
    return Request(method, path, {"Content-Type": "application/json", **headers}, body=_json(body))


def _json(body: object) -> bytes:
    try:
        return encode_json(body)
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(f"This can't be sent as JSON: {exc}.") from exc


_LINK = re.compile(r"<([^>]*)>([^<]*)")
_NEXT = re.compile(r';\s*rel\s*=\s*"?next\b', re.IGNORECASE)


def next_page(link: str | None) -> str | None:
    """The target of `rel="next"` of a Link header (RFC 8288)."""
    return next((target for target, parameters in _LINK.findall(link or "") if _NEXT.search(parameters)), None)
