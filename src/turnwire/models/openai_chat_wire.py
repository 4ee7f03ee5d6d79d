"""The wire format of Chat Completions as far as the fast path knows it: events, and the plain chunk.

A plain chunk continues a part of the response and says nothing else. Its structs allow no field that they
don't name, and name no value that would mean something: whatever does not decode as a `PlainChunk` is not
plain.
"""

from typing import Literal

import msgspec

EVENT_BYTES_MAX = 16 << 20
"""An event that is not complete by then is garbage, or an attack; the largest real ones hold images."""


class TooLongError(Exception):
    """An event is longer than `EVENT_BYTES_MAX`."""


class ErrorPayload(bytes):
    """The data of an event that the provider named `error`."""


class EventSplitter:
    """Splits the bytes of a body of Server-Sent Events, cut anywhere, into the data of its events.

    <https://html.spec.whatwg.org/multipage/server-sent-events.html>: lines end in LF, CRLF or CR; comments
    and unknown fields are skipped; an event without data is none; an event that the end of the body cuts
    off is dropped.
    """

    def __init__(self) -> None:
        self.done = False
        """Whether `[DONE]` has come. What follows it is not looked at."""
        self._held = bytearray()
        self._after_cr = False

    def feed(self, block: bytes) -> list[bytes]:
        """The data of the events that this block completes. Raises `TooLongError`."""
        if self._after_cr or b"\r" in block:
            block = self._with_lf(block)
        held = self._held
        start = max(len(held) - 1, 0)
        held += block
        end = held.rfind(b"\n\n", start)
        if end < 0:
            if len(held) > EVENT_BYTES_MAX:
                raise TooLongError
            return []
        events = bytes(held[:end]).split(b"\n\n")
        del held[: end + 2]
        payloads: list[bytes] = []
        for event in events:
            if event.startswith(b"data: {") and b"\n" not in event:
                payloads.append(event[6:])
            elif (payload := _data_of(event)) is not None:
                if payload.startswith(b"[DONE]"):
                    self.done = True
                    break
                payloads.append(payload)
        return payloads

    def _with_lf(self, block: bytes) -> bytes:
        if self._after_cr and block.startswith(b"\n"):
            block = block[1:]  # the rest of a CRLF that was cut in two
            self._after_cr = False
        if block:
            self._after_cr = block.endswith(b"\r")
        return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data_of(event: bytes) -> bytes | None:
    """The data of an event, its lines joined by LF; None when it has none."""
    lines: list[bytes] = []
    name = b""
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip()
    if not lines:
        return None
    data = b"\n".join(lines)
    return ErrorPayload(data) if name == b"error" else data


class _Strict(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Fields of type None are ones that providers send as null."""


class PlainFunction(_Strict):
    arguments: str | None = None
    name: Literal[""] | None = None


class PlainCall(_Strict):
    """A piece of the arguments of a call that has begun."""

    index: int
    function: PlainFunction
    id: Literal[""] | None = None
    type: Literal["function", ""] | None = None


class PlainDelta(_Strict):
    content: str | None = None
    tool_calls: list[PlainCall] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    role: str | None = None
    refusal: None = None
    function_call: None = None
    audio: None = None


class PlainChoice(_Strict):
    delta: PlainDelta
    index: int = 0
    finish_reason: Literal[""] | None = None
    logprobs: None = None
    native_finish_reason: None = None  # OpenRouter
    stop_reason: None = None  # vLLM, as the next
    token_ids: None = None


class PlainChunk(_Strict):
    """Beside its one choice it has what the vendor's class keeps from every chunk, and what nobody keeps."""

    choices: tuple[PlainChoice]
    id: str | None = None
    model: str | None = None
    created: float | None = None
    service_tier: str | None = None
    usage: None = None
    object: str | None = None
    system_fingerprint: str | None = None
    obfuscation: str | None = None  # OpenAI's padding against guessing a text from the lengths of its packets
    provider: str | None = None  # OpenRouter
    prompt_token_ids: None = None  # vLLM


decode_plain = msgspec.json.Decoder(PlainChunk).decode
