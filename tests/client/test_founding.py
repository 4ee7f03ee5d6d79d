"""The client with a server of the founding contract: what is promised there, and what can't be."""

import socket
import time
from collections.abc import Iterator

import pytest

from client.founding import CONTENT, Founding
from client.proxy import CuttingProxy, for_all
from turnwire import (
    AsyncClient,
    Client,
    MessageCompleted,
    MessageError,
    NotFound,
    SessionBusy,
    TextBlock,
    ToolExecuting,
    TurnFailed,
    TurnLost,
    Usage,
)

TEXT = "I look at it.\n\n\nDone. 👍"


def answer_bytes(server: Founding) -> int:
    """How long the answer to a message is, as it crosses the wire."""
    request = b'POST /v1/sessions/%b/messages HTTP/1.1\r\nContent-Length: 19\r\n\r\n{"message": "test"}'
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(request % server.create().encode())
        return len(b"".join(iter(lambda: sock.recv(65536), b"")))


@pytest.fixture
def plain() -> Iterator[Founding]:
    with Founding(conversation=False).running() as server:
        yield server


@pytest.fixture
def talking() -> Iterator[Founding]:
    with Founding(conversation=True).running() as server:
        yield server


def test_a_turn_is_read_as_anywhere(plain: Founding) -> None:
    with Client(plain.url, "k") as tw:
        turn = tw.sessions.create().send("hi")
        events = list(turn)

    assert events[-1] == MessageCompleted("m0", usage=Usage(input_tokens=12, output_tokens=5))
    assert ToolExecuting("bash", "toolu_1", {"command": "ls"}) in events
    assert turn.text() == TEXT


def test_a_busy_session_is_waited_for_by_asking_whether_it_is(plain: Founding) -> None:
    plain.delay_s = 0.02
    with Client(plain.url, "k") as tw:
        session = tw.sessions.create()
        next(iter(session.send("first")))

        assert session.send("second").text() == TEXT
    assert [message["content"] for message in plain.sessions["s0"] if message["role"] == "user"] == ["first", "second"]


def test_without_patience_busy_is_an_error(plain: Founding) -> None:
    plain.delay_s = 0.05
    with Client(plain.url, "k", busy_timeout_s=0) as tw:
        session = tw.sessions.create()
        next(iter(session.send("first")))

        with pytest.raises(SessionBusy, match="Session is busy"):
            session.send("second").text()


def test_a_failed_turn_is_told(plain: Founding) -> None:
    plain.ending = "error"
    with Client(plain.url, "k") as tw, pytest.raises(TurnFailed, match=r"^The model is overloaded\.$"):
        tw.sessions.create().send("hi").text()


def test_what_was_missed_after_leaving_is_made_from_the_conversation(talking: Founding) -> None:
    with Client(talking.url, "k") as tw:
        turn = tw.sessions.create().send("hi")
        seen = []
        for event in turn:
            seen.append(event)
            if len(seen) == 6:
                break

        assert turn.text() == TEXT
        assert turn.result().usage.input_tokens == 12


@pytest.mark.timeout(400)
@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.long)])
async def test_a_cut_after_any_byte_gives_the_same_message(talking: Founding, step: int) -> None:
    async def check(offset: int) -> None:
        proxy = CuttingProxy(talking.port, of=b"POST /v1/sessions/", after_answer=offset)
        async with proxy.running(), AsyncClient(proxy.url, "k") as tw:
            session = await tw.sessions.create()
            turn = session.send(f"hi {offset}")
            events = [event async for event in turn]

            assert isinstance(events[-1], MessageCompleted)
            assert [block.__class__.__name__ for block in (await turn.result()).content] == [
                "ThinkingBlock",
                "TextBlock",
                "ToolUseBlock",
                "ToolResultBlock",
                "TextBlock",
            ]
            assert await turn.text() == TEXT
            users = [message for message in talking.sessions[session.id] if message["role"] == "user"]
            assert [message["content"] for message in users] == [f"hi {offset}"]
            assert proxy.cuts == 1

    await for_all(range(1450), check)


async def test_without_a_conversation_what_can_not_be_had_is_said(plain: Founding) -> None:
    async def check(offset: int) -> None:
        proxy = CuttingProxy(plain.port, of=b"POST /v1/sessions/", after_answer=offset)
        async with proxy.running(), AsyncClient(proxy.url, "k") as tw:
            turn = (await tw.sessions.create()).send("hi")
            with pytest.raises(TurnLost) as caught:
                await turn.text()
            assert TEXT.startswith(caught.value.partial.text.removesuffix("\n\n"))

    await for_all(range(0, answer_bytes(plain), 31), check)
    assert all(len(conversation) == 2 for conversation in plain.sessions.values())


async def test_a_message_that_may_have_been_taken_is_never_sent_twice(talking: Founding) -> None:
    async def check(offset: int) -> None:
        proxy = CuttingProxy(talking.port, of=b"POST /v1/sessions/", after_request=offset)
        async with proxy.running(), AsyncClient(proxy.url, "k") as tw:
            session = await tw.sessions.create()
            with pytest.raises(TurnLost, match="can't tell whether it took the message"):
                await session.send("hi").text()
            assert talking.sessions[session.id] == []

    await for_all(range(0, 300, 30), check)


def test_a_turn_is_followed_to_its_end(talking: Founding) -> None:
    talking.delay_s = 0.02
    with Client(talking.url, "k") as tw:
        session = tw.sessions.create()
        next(iter(session.send("hi")))
        began = time.monotonic()

        assert tw.sessions.get(session.id).follow().text() == TEXT
        assert time.monotonic() - began > 0.1
        assert session.messages()[0].content == [TextBlock("hi")]
        assert len(session.messages()[1].content) == len(CONTENT)


def test_what_such_a_server_lacks_is_not_found(plain: Founding) -> None:
    with Client(plain.url, "k") as tw:
        session = tw.sessions.create()
        plain.delay_s = 0.02
        turn = session.send("hi")
        next(iter(turn))

        with pytest.raises(NotFound):
            turn.cancel()
        with pytest.raises(NotFound, match="does not tell which turn runs"):
            session.cancel()
        with pytest.raises(NotFound):
            session.messages()


def test_an_ending_that_was_missed_may_be_an_error(talking: Founding) -> None:
    talking.ending = "error"
    with Client(talking.url, "k") as tw:
        turn = tw.sessions.create().send("hi")
        for _ in zip(range(4), turn, strict=False):
            pass

        *_, last = list(turn)
    assert isinstance(last, MessageError)


def test_a_strict_server_is_sent_the_one_field_that_it_knows(plain: Founding) -> None:
    plain.strict = True
    with Client(plain.url, "k") as tw:
        assert tw.sessions.create().send("hi").text() == TEXT
