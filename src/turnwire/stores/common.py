"""What the stores share: limits that callers rely on, and rules that need no database."""

from typing import Any

from turnwire.protocol.errors import Conflict, InvalidRequest
from turnwire.seams.store import CallAnswer

IDEMPOTENCY_VALID_S = 24 * 3600
"""How long an idempotency key is remembered (CONTRACT: 24 h)."""

GONE_KEPT_S = 24 * 3600
"""How long the place of a purged session in its tenant's list is kept, for a caller that pages through it."""

UNKNOWN_CURSOR = "The cursor names nothing that this list ever held: start again without it."


def merge_metadata(metadata: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`metadata` with `changes` laid over it, key by key; None removes a key."""
    merged = metadata | changes
    return {key: value for key, value in merged.items() if value is not None or key not in changes}


def require_condition(idle: bool, older_than_s: float | None) -> None:
    """A bulk delete without a condition would take everything: never what was meant."""
    if not idle and older_than_s is None:
        raise InvalidRequest("Say which sessions to delete: status=idle, older_than, or both.")


def check_answer(answer: CallAnswer, *, kind: str, closed: bool, before: bytes | None) -> bool:
    """Whether an answer is to be kept; False: it is there already. `Conflict` when it can't be taken,
    `InvalidRequest` when it is one to a call of the other kind."""
    if answer.kind != kind:
        wanted = "content" if kind == "tool" else "approve"
        raise InvalidRequest(f"The call {answer.call_id} is to be answered with {wanted!r}.")
    if before is not None:
        if before != answer.answer:
            raise Conflict(f"The call {answer.call_id} was answered otherwise before.")
        return False
    if closed:
        raise Conflict(f"The call {answer.call_id} waits no more: it was given up, or its turn has ended.")
    return True
