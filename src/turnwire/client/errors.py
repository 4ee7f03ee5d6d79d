"""What the client raises, beside the answers of the server: those are the classes of `turnwire.protocol.errors`.

TurnwireError                an answer that is not 2xx: InvalidRequest, Unauthorized, NotFound, SessionBusy, …
 └─ ClientError              no such answer; `status` is 0
     ├─ Unreachable          the server could not be reached, or broke off, for longer than `retry_timeout_s`
     ├─ TurnLost             the turn has ended, and how can no longer be read
     └─ TurnFailed           the turn ended in message.error
         └─ TurnCancelled    the turn ended in message.cancelled

So `except TurnwireError` is everything but a broken wire (`RemoteProtocolError`) and mistakes in calling the client
(ValueError, TypeError).
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast

from turnwire.protocol.codec import decode_json
from turnwire.protocol.errors import ERRORS, TurnwireError

if TYPE_CHECKING:
    from turnwire.client.records import Result


class ClientError(TurnwireError):
    """The client could not do what was asked."""

    name = "client_error"
    status = 0


class Unreachable(ClientError):
    """The server could not be reached."""

    name = "unreachable"


class TurnLost(ClientError):
    """The turn has ended, and how can no longer be read."""

    name = "turn_lost"

    def __init__(self, message: str, partial: "Result") -> None:
        super().__init__(message, response_id=partial.response_id)
        self.partial = partial
        """What was read of it."""


class TurnFailed(ClientError):
    """The turn failed."""

    name = "turn_failed"

    def __init__(self, message: str, partial: "Result") -> None:
        super().__init__(message, response_id=partial.response_id)
        self.partial = partial
        """What the turn had said and done until then."""


class TurnCancelled(TurnFailed):
    """The turn was cancelled."""

    name = "turn_cancelled"


_BY_STATUS: dict[int, type[TurnwireError]] = {cls.status: cls for cls in reversed(ERRORS.values())}

MESSAGE_CHARACTERS_MAX = 300
"""Of a body that is no answer of this API, such as a proxy's page of HTML, shown in an error."""


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> TurnwireError:
    """The error that an answer is. Its class is known by the name in the body, else by the status."""
    name, message = _named(body)
    cls = ERRORS.get(name or "") or _BY_STATUS.get(status) or TurnwireError
    exc = cls(
        message or f"The server answered {status}{_excerpt(body)}.",
        retry_after_s=_retry_after_s(headers.get("retry-after")),
        response_id=headers.get("x-response-id"),
        request_id=headers.get("x-request-id"),
    )
    exc.status = status
    return exc


def _named(body: bytes) -> tuple[str | None, str | None]:
    try:
        value = decode_json(body)
    except ValueError:
        return None, None
    if not isinstance(value, dict):
        return None, None
    members = cast("dict[str, object]", value)
    name, message = members.get("error"), members.get("message")
    if isinstance(name, str) and not isinstance(message, str):  # a server that has the text alone
        message = name
    return name if isinstance(name, str) else None, message if isinstance(message, str) else None


def _excerpt(body: bytes) -> str:
    text = " ".join(body[: 4 * MESSAGE_CHARACTERS_MAX].decode(errors="replace").split())
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return f": {text[:MESSAGE_CHARACTERS_MAX]}" if text else ""


_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
"""Whole ones by RFC 9110; some send fractions."""


def _retry_after_s(text: str | None) -> int | None:
    """Seconds, of either form that RFC 9110 has for Retry-After."""
    if text is None:
        return None
    if seconds := _SECONDS.fullmatch(text.strip()):
        return math.ceil(float(seconds[0]))
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)  # asctime's form says no zone, and means this one
    return max(0, round((at - datetime.now(UTC)).total_seconds()))
