"""What the stores share: limits that callers rely on, and rules that need no database."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from turnwire.protocol.errors import Conflict, InvalidRequest
from turnwire.seams.store import Append, Appended, CallAnswer, NewTurn, Turn

IDEMPOTENCY_VALID_S = 24 * 3600
"""How long an idempotency key is remembered (CONTRACT: 24 h)."""

GONE_KEPT_S = 24 * 3600
"""How long the place of a purged session in its tenant's list is kept, for a caller that pages through it."""

RETRY_AFTER_S = 5
"""What callers are told to wait when nothing can be stored."""

UNKNOWN_CURSOR = "The cursor names nothing that this list ever held: start again without it."


class StoreRefused(Exception):
    """The database can't be used: its message is one sentence that says why and what to do."""


class StoreFailed(Exception):
    """The database failed in a way that can't be lived through: the server must stop, and say why."""


def new_turn(new: NewTurn, now: float) -> Turn:
    """The turn that `new` begins."""
    return Turn(
        id=new.id,
        session_id=new.session_id,
        tenant=new.tenant,
        created_at=now,
        message_id=new.message_id,
        message=new.message,
        model=new.model,
        settings=new.settings,
    )


def batches(appends: Sequence[Append], rows_max: int) -> Iterator[dict[str, Append]]:
    """The appends by turn, at most `rows_max` at once. A turn comes once in a batch: its fence judges one append."""
    batch: dict[str, Append] = {}
    for append in appends:
        if append.turn_id in batch or len(batch) == rows_max:
            yield batch
            batch = {}
        batch[append.turn_id] = append
    if batch:
        yield batch


def ends_uncancelled(append: Append) -> bool:
    """Whether it ends its turn otherwise than as cancelled, which one that is to be cancelled can't."""
    return append.ending is not None and append.ending.status != "cancelled"


def explain(append: Append, row: Sequence[Any] | None) -> Appended:
    """Why the fence let nothing through, by epoch, last_seq, ended and cancel_requested of the turn. An earlier try
    that was written, its acknowledgement lost, is no refusal."""
    if row is None:
        return Appended.FENCED
    epoch, last_seq, ended, cancel_requested = row
    ends = append.ending is not None
    if epoch == append.epoch and last_seq == append.last_seq and bool(ended) == ends:
        return Appended.WRITTEN
    if epoch == append.epoch and last_seq == append.first_seq - 1 and not ended and cancel_requested and ends:
        return Appended.CANCEL_FIRST
    return Appended.FENCED


def merge_metadata(metadata: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`metadata` with `changes` laid over it, key by key; None removes a key."""
    merged = metadata | changes
    return {key: value for key, value in merged.items() if value is not None or key not in changes}


DELETED_AT_ONCE = 500
"""Sessions that one transaction of a bulk delete marks."""


async def delete_in_bites(
    find: Callable[[int], Awaitable[list[int]]], delete: Callable[[list[int]], Awaitable[int]], limit: int | None
) -> int:
    """Delete what `find` finds, of which it is asked for so many at most, a bite at a time; how many it were."""
    deleted = 0
    while limit is None or deleted < limit:
        found = await find(DELETED_AT_ONCE if limit is None else min(DELETED_AT_ONCE, limit - deleted))
        if not found:
            break
        deleted += await delete(found)
    return deleted


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
