"""Calls that wait for their caller: to be run by it, or to be allowed by it.

An answer is a row before anybody acts on it, so a turn that waits needs nobody: no connection, and not even the
server that began it. `wake()` is a hint that something was answered here; what another server was told is found by
looking, every ANSWERS_POLL_S.
"""

import asyncio
from contextlib import suppress
from typing import Any, Literal

import msgspec

from turnwire.engine.limits import ANSWERS_POLL_S
from turnwire.protocol.codec import decode_json, encode_json
from turnwire.seams.clock import Clock
from turnwire.seams.store import CallAnswer, Store


class ToolAnswer(msgspec.Struct, frozen=True):
    """The result of a call that its caller ran."""

    content: Any
    is_error: bool = False

    @property
    def text(self) -> str:
        """The content as the model and the wire get it: a text as it is, anything else as compact JSON."""
        return self.content if isinstance(self.content, str) else encode_json(self.content).decode()


class Approval(msgspec.Struct, frozen=True):
    """Whether a call may be made. `message`: why not; `input`: what it is to be made with instead."""

    approve: bool
    message: str | None = None
    input: dict[str, Any] | None = None


def call_answer(call_id: str, answer: ToolAnswer | Approval) -> CallAnswer:
    """The answer as it is kept: equal ones are equal bytes, whatever the order of their keys."""
    kind: Literal["tool", "approval"] = "tool" if isinstance(answer, ToolAnswer) else "approval"
    return CallAnswer(call_id, kind, encode_json(_sorted(msgspec.to_builtins(answer))))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        items: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return {key: _sorted(items[key]) for key in sorted(items)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def read_answer(answer: CallAnswer) -> ToolAnswer | Approval:
    return msgspec.convert(decode_json(answer.answer), ToolAnswer if answer.kind == "tool" else Approval)


class Asking:
    """The calls of one turn that wait."""

    def __init__(self, store: Store, turn_id: str, clock: Clock, *, timeout_s: float) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._turn_id = turn_id
        self._clock = clock
        self._changed: asyncio.Event | None = None  # most turns never ask

    def deadline(self) -> float:
        """Until when a call that is asked about now waits, in epoch seconds."""
        return self._clock.now() + self._timeout_s

    def wake(self) -> None:
        """Something was answered."""
        if self._changed is not None:
            self._changed.set()

    async def answer(self, call_id: str, deadline: float) -> ToolAnswer | Approval | None:
        """The caller's answer; None when there is none by the deadline (epoch seconds): it was given up then."""
        changed = self._changed = self._changed or asyncio.Event()
        while True:
            changed.clear()
            found = (await self._store.call_answers(self._turn_id)).get(call_id)
            if found is not None:
                return read_answer(found)
            left_s = deadline - self._clock.now()
            if left_s <= 0:
                late = (await self._store.give_up_calls(self._turn_id, [call_id])).get(call_id)
                return None if late is None else read_answer(late)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, ANSWERS_POLL_S)):
                    await changed.wait()
