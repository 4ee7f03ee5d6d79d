# pyright: strict
"""What a program with types may expect of the client. `test_surface.py` has pyright read it; it never runs."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import assert_type

from turnwire import (
    AsyncClient,
    Client,
    Event,
    FileRecord,
    MessageCompleted,
    MessageRecord,
    Result,
    Session,
    SessionRecord,
    TextDelta,
    ToolCallRequested,
    ToolExecuting,
    Turn,
    TurnFailed,
    Usage,
    WrittenFile,
    tool,
)


def rate(currency: str) -> float:
    """Dollars per unit."""
    return 1.08


async def later(currency: str) -> float:
    """Dollars per unit."""
    return 1.08


def on_approval(call: ToolCallRequested) -> bool | tuple[bool, str]:
    return (False, "no") if call.name == "bash" else True


def main() -> None:
    with Client() as tw:
        session = tw.sessions.create(
            tools=[rate, tool(rate, name="other")], approvals=["bash"], on_approval=on_approval
        )
        assert_type(session, Session)
        turn = session.send("Hi", thinking="low")
        assert_type(turn, Turn)
        for event in turn:
            assert_type(event, Event)
            match event:
                case TextDelta(content=text):
                    assert_type(text, str)
                case ToolExecuting(name=name):
                    assert_type(name, str)
                case MessageCompleted(usage=usage):
                    assert_type(usage, Usage)
                case _:
                    pass
        assert_type(turn.text(), str)
        try:
            assert_type(session.send("Hi").result(), Result)
        except TurnFailed as exc:
            assert_type(exc.response_id, str | None)
            assert_type(exc.partial, Result)
        assert_type(session.files.upload("a"), WrittenFile)
        assert_type(session.files.download("a"), Path)
        assert_type(session.files.list(), Iterator[FileRecord])
        assert_type(session.messages(), list[MessageRecord])
        assert_type(session.record, SessionRecord)
        assert_type(turn.cancel(), bool)


async def amain() -> None:
    async with AsyncClient() as tw:
        session = await tw.sessions.create(tools=[rate, later])
        async for event in session.send("Hi"):
            assert_type(event, Event)
        assert_type(await session.send("Hi").text(), str)
        names: AsyncIterator[FileRecord] = session.files.list()
        async for file in names:
            assert_type(file.size, int)
