"""Bodies as they arrive, or don't."""

import asyncio

import pytest
from starlette.types import Message

from turnwire.protocol.errors import InvalidRequest, PayloadTooLarge
from turnwire.server import edge


class Line:
    """The parts of a body, and then silence."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)

    async def receive(self) -> Message:
        if not self.parts:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self.parts.pop(0), "more_body": True}


async def test_a_body_that_falls_silent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "BODY_SILENCE_S", 0.05)

    with pytest.raises(InvalidRequest, match=r"nothing more of it came for 0\.05 s"):
        await edge.read_body(Line(b'{"mess').receive, {})


async def test_a_body_that_is_too_large_and_falls_silent_is_refused_as_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge, "BODY_SILENCE_S", 0.05)

    with pytest.raises(PayloadTooLarge):
        await edge.read_body(Line(b"x", bytes(edge.BODY_BYTES_MAX)).receive, {})
    with pytest.raises(PayloadTooLarge):
        await edge.read_body(Line(b"x").receive, {"content-length": str(edge.BODY_BYTES_MAX + 1)})
