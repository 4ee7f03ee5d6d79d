"""The errors, as one tree. Server, client and docs read names, statuses and texts from here.

Exception
 ├─ TurnwireError               an answer that is not 2xx: {"error": name, "message": text}
 │   ├─ InvalidRequest          400 invalid_request
 │   ├─ Unauthorized            401 unauthorized
 │   ├─ InsufficientCredits     402 insufficient_credits
 │   ├─ Forbidden               403 forbidden
 │   ├─ NotFound                404 not_found
 │   ├─ MethodNotAllowed        405 method_not_allowed
 │   ├─ Conflict                409 conflict
 │   │   └─ SessionBusy         409 session_busy
 │   ├─ PreconditionFailed      412 precondition_failed
 │   ├─ PayloadTooLarge         413 payload_too_large
 │   ├─ UnsupportedMediaType    415 unsupported_media_type
 │   ├─ RangeNotSatisfiable     416 range_not_satisfiable
 │   ├─ IdempotencyMismatch     422 idempotency_mismatch
 │   ├─ RateLimited             429 rate_limited
 │   ├─ InternalError           500 internal_error
 │   ├─ Unavailable             503 unavailable
 │   └─ InsufficientStorage     507 insufficient_storage
 └─ ProtocolError               the grammar of a turn is broken
     ├─ LocalProtocolError      by us: a bug
     └─ RemoteProtocolError     by the other side
"""


class TurnwireError(Exception):
    """Something went wrong."""

    name = "internal_error"
    status = 500

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_s: int | None = None,
        response_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message or type(self).__doc__)
        self.retry_after_s = retry_after_s
        self.response_id = response_id
        self.request_id = request_id

    @property
    def message(self) -> str:
        return str(self.args[0])


class InvalidRequest(TurnwireError):
    """The request is not of the form that this endpoint takes."""

    name = "invalid_request"
    status = 400


class Unauthorized(TurnwireError):
    """No valid key was given: send the header 'Authorization: Bearer <key>'; 'turnwire keys show' prints it."""

    name = "unauthorized"
    status = 401


class InsufficientCredits(TurnwireError):
    """The tenant's credits are used up."""

    name = "insufficient_credits"
    status = 402


class Forbidden(TurnwireError):
    """The path is outside of what this session may see, or the server's operator does not allow it."""

    name = "forbidden"
    status = 403


class NotFound(TurnwireError):
    """There is nothing at this address."""

    name = "not_found"
    status = 404


class MethodNotAllowed(TurnwireError):
    """This address doesn't take this method; the header Allow names those that it takes."""

    name = "method_not_allowed"
    status = 405


class Conflict(TurnwireError):
    """The request does not fit the state that the resource is in."""

    name = "conflict"
    status = 409


class SessionBusy(Conflict):
    """A turn is running in this session: wait for its end, or follow it (X-Response-Id names it)."""

    name = "session_busy"


class PreconditionFailed(TurnwireError):
    """The resource is not in the state that the request's condition names."""

    name = "precondition_failed"
    status = 412


class PayloadTooLarge(TurnwireError):
    """The body is larger than this endpoint takes."""

    name = "payload_too_large"
    status = 413


class UnsupportedMediaType(TurnwireError):
    """The body must be JSON: send 'Content-Type: application/json' and no Content-Encoding."""

    name = "unsupported_media_type"
    status = 415


class RangeNotSatisfiable(TurnwireError):
    """The range lies outside of the file."""

    name = "range_not_satisfiable"
    status = 416


class IdempotencyMismatch(TurnwireError):
    """This Idempotency-Key was used with another message or session: use a new key for what is new."""

    name = "idempotency_mismatch"
    status = 422


class RateLimited(TurnwireError):
    """A limit of this tenant is reached: try again after the seconds in Retry-After."""

    name = "rate_limited"
    status = 429


class InternalError(TurnwireError):
    """Something went wrong in the server; its log has the details under the request's id."""

    name = "internal_error"
    status = 500


class Unavailable(TurnwireError):
    """The server can't take this now: try again after the seconds in Retry-After."""

    name = "unavailable"
    status = 503


class InsufficientStorage(TurnwireError):
    """There is no room for this: the disk is full, or a quota is reached."""

    name = "insufficient_storage"
    status = 507


ERRORS: dict[str, type[TurnwireError]] = {
    cls.name: cls
    for cls in (
        InvalidRequest,
        Unauthorized,
        InsufficientCredits,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Conflict,
        SessionBusy,
        PreconditionFailed,
        PayloadTooLarge,
        UnsupportedMediaType,
        RangeNotSatisfiable,
        IdempotencyMismatch,
        RateLimited,
        InternalError,
        Unavailable,
        InsufficientStorage,
    )
}
"""Every error by its short name."""


class ProtocolError(Exception):
    """The grammar of a turn is broken."""


class LocalProtocolError(ProtocolError):
    """We were about to record an event that can't stand there: a bug."""


class RemoteProtocolError(ProtocolError):
    """The other side sent an event that can't stand there."""
