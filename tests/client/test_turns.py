"""Turns, as a program that uses the client sees them: against a real server."""

import asyncio
import threading
import time

import pytest

from turnwire import (
    AsyncClient,
    Client,
    InvalidRequest,
    MessageCancelled,
    MessageCompleted,
    MessageCreated,
    NotFound,
    SessionBusy,
    TextBlock,
    TextDelta,
    ToolExecuting,
    ToolResult,
    ToolUseBlock,
    TurnCancelled,
    TurnFailed,
    Unauthorized,
)


def test_a_turn_is_iterated_from_its_first_event_to_its_ending(tw: Client) -> None:
    events = list(tw.sessions.create().send("/text one two"))

    assert isinstance(events[0], MessageCreated)
    assert [event.content for event in events if isinstance(event, TextDelta)] == ["one ", "two"]
    assert isinstance(events[-1], MessageCompleted)


def test_the_result_is_the_folded_message_with_its_usage(tw: Client) -> None:
    turn = tw.sessions.create().send("/text hi\n/call list_files\n/then\n/text bye\n/usage 7 5")

    result = turn.result()
    assert result.text == "hi\n\nbye"
    assert [type(block).__name__ for block in result.content] == [
        "TextBlock",
        "ToolUseBlock",
        "ToolResultBlock",
        "TextBlock",
    ]
    assert (result.status, result.response_id, result.usage.requests) == ("completed", turn.response_id, 2)
    assert result.usage.tool_calls == 1


def test_nothing_is_sent_until_the_turn_is_iterated(tw: Client) -> None:
    session = tw.sessions.create()
    turn = session.send("hi")

    assert (turn.response_id, turn.sequence_number, turn.ended) == (None, -1, False)
    assert list(session.responses()) == []


def test_a_turn_that_was_iterated_to_its_end_gives_no_more_events_and_its_result_still(tw: Client) -> None:
    turn = tw.sessions.create().send("/text hi")
    count = len(list(turn))

    assert count == 5
    assert list(turn) == []
    assert turn.text() == "hi"


def test_leaving_the_loop_does_not_cancel_the_turn_and_it_can_be_gone_on_with(tw: Client) -> None:
    session = tw.sessions.create()
    turn = session.send("/stream 10 50")
    seen = []
    for event in turn:
        seen.append(event)
        if event == TextDelta("4 "):
            break

    assert session.refresh().busy
    assert isinstance(seen[-1], TextDelta)
    rest = [event.content for event in turn if isinstance(event, TextDelta)]
    assert rest == ["5 ", "6 ", "7 ", "8 ", "9 ", "10 "]
    assert turn.text() == "1 2 3 4 5 6 7 8 9 10 "


def test_a_session_that_is_busy_is_waited_for(tw: Client) -> None:
    session = tw.sessions.create()
    for event in session.send("/stream 10 20"):
        if isinstance(event, TextDelta):
            break

    assert session.send("/text second").text() == "second"
    assert [message.text for message in session.messages() if message.role == "assistant"] == [
        "1 2 3 4 5 6 7 8 9 10 ",
        "second",
    ]


def test_with_no_patience_a_busy_session_is_an_error_that_names_the_turn(demo, tw: Client) -> None:
    session = tw.sessions.create()
    turn = session.send("/stall 20")
    next(iter(turn))

    with Client(demo.url, demo.key, busy_timeout_s=0) as hasty, pytest.raises(SessionBusy) as caught:
        hasty.sessions.get(session.id).send("x").text()
    assert caught.value.response_id == turn.response_id
    turn.cancel()


def test_a_turn_is_followed_from_another_client(demo, tw: Client) -> None:
    session = tw.sessions.create()
    turn = session.send("/stream 10 20")
    next(iter(turn))

    with Client(demo.url, demo.key) as other:
        followed = other.sessions.get(session.id).follow()
        assert followed.text() == turn.text()
    assert followed.response_id == turn.response_id


def test_there_is_nothing_to_follow_in_a_new_session(tw: Client) -> None:
    with pytest.raises(NotFound, match="No turn has been begun"):
        tw.sessions.create().follow().text()


def test_a_turn_is_cancelled_while_it_is_read(tw: Client) -> None:
    turn = tw.sessions.create().send("/text hm\n/then\n/stall 20")

    events = []
    for event in turn:
        events.append(event)
        if isinstance(event, MessageCreated):
            assert turn.cancel()
    assert isinstance(events[-1], MessageCancelled)
    with pytest.raises(TurnCancelled) as caught:
        turn.result()
    assert caught.value.response_id == turn.response_id
    assert not turn.cancel()


def test_a_turn_is_cancelled_from_another_thread(tw: Client) -> None:
    session = tw.sessions.create()
    turn = session.send("/stall 20")
    threading.Timer(0.3, turn.cancel).start()

    with pytest.raises(TurnCancelled):
        turn.text()


def test_cancelling_where_nothing_runs_says_so(tw: Client) -> None:
    session = tw.sessions.create()

    assert not session.cancel()
    assert not session.send("hi").cancel()


def test_a_turn_that_fails_raises_its_sentence_and_has_what_was_said(tw: Client) -> None:
    turn = tw.sessions.create().send("/text almost\n/call list_files\n/then\n/fail before 400")

    with pytest.raises(TurnFailed) as caught:
        turn.text()
    assert caught.value.response_id == turn.response_id
    assert caught.value.partial.text == "almost"
    assert len(str(caught.value)) > 15


def test_events_of_a_failed_turn_are_iterated_without_an_exception(tw: Client) -> None:
    *_, last = tw.sessions.create().send("/fail before 400")

    assert last.type == "message.error"


def test_tools_show_what_they_do(tw: Client) -> None:
    session = tw.sessions.create(workspace="private")
    events = list(session.send('/call write_file {"path": "a.txt", "content": "hi"}'))

    assert ToolExecuting("write_file", events[1].id, {"path": "a.txt", "content": "hi"}) in events
    assert [event.is_error for event in events if isinstance(event, ToolResult)] == [False]


def test_a_message_that_the_server_refuses_is_a_typed_error(tw: Client) -> None:
    turn = tw.sessions.create().send("hi", model="no/such-model")

    with pytest.raises(InvalidRequest) as caught:
        turn.text()
    assert caught.value.status == 400
    assert caught.value.request_id


def test_an_empty_message_is_refused_at_once(tw: Client) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        tw.sessions.create().send("  ")


def test_parts_and_settings_reach_the_server(tw: Client) -> None:
    session = tw.sessions.create()
    parts = [{"type": "text", "text": "/text hi"}, {"type": "text", "text": "/think hm"}]

    result = session.send(parts, thinking="off", temperature=0.5, max_output_tokens=100).result()
    assert [block.text for block in result.content] == ["hi"]
    assert [block.text for block in session.messages()[0].content] == ["/text hi", "/think hm"]


def test_the_same_key_and_message_are_the_same_turn(tw: Client) -> None:
    session = tw.sessions.create()
    first = session.send("/text hi", idempotency_key="order-1")
    again = session.send("/text hi", idempotency_key="order-1")

    assert list(first) == list(again)
    assert len(list(session.responses())) == 1


def test_a_wrong_key_is_told_apart(demo) -> None:
    with Client(demo.url, "tw_default_wrong") as client, pytest.raises(Unauthorized) as caught:
        client.sessions.create()
    assert "turnwire keys show" in str(caught.value)


def test_the_conversation_is_read_in_one(tw: Client) -> None:
    session = tw.sessions.create()
    for number in range(3):
        session.send(f"/text {number}").result()

    messages = session.messages()
    assert [message.role for message in messages] == ["user", "assistant"] * 3
    assert messages[1].content == [TextBlock("0")]


def test_one_client_serves_many_threads(tw: Client) -> None:
    answers: dict[int, str] = {}

    def work(number: int) -> None:
        session = tw.sessions.create()
        answers[number] = session.send(f"/text {number}\n/stream 20 200").text()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {n: f"{n}\n\n{''.join(f'{i} ' for i in range(1, 21))}" for n in range(16)}


async def test_the_asynchronous_client_does_the_same(atw: AsyncClient) -> None:
    session = await atw.sessions.create()
    turn = session.send("/text one two")

    assert [event.content async for event in turn if isinstance(event, TextDelta)] == ["one ", "two"]
    assert (await turn.result()).text == "one two"
    assert (await atw.health()).status == "ok"
    assert "demo" in [model.id for model in await atw.models()]
    assert session.id in [found.id async for found in atw.sessions.list()]
    assert [r.status async for r in session.responses()] == ["completed"]
    assert len(await session.messages()) == 2


async def test_many_asynchronous_turns_run_at_once(atw: AsyncClient) -> None:
    async def one(number: int) -> str:
        session = await atw.sessions.create()
        return await session.send(f"/text {number}\n/stall 0.3").text()

    began = time.monotonic()
    assert await asyncio.gather(*(one(n) for n in range(20))) == [str(n) for n in range(20)]
    assert time.monotonic() - began < 4


async def test_leaving_an_asynchronous_loop_and_going_on(atw: AsyncClient) -> None:
    turn = (await atw.sessions.create()).send("/stream 6 50")
    async for event in turn:
        if event == TextDelta("3 "):
            break

    assert [event.content async for event in turn if isinstance(event, TextDelta)] == ["4 ", "5 ", "6 "]
    assert await turn.text() == "1 2 3 4 5 6 "


async def test_a_task_that_is_cancelled_leaves_the_turn_and_can_go_on_with_it(atw: AsyncClient) -> None:
    turn = (await atw.sessions.create()).send("/text hm\n/stall 1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            await turn.text()

    assert await turn.text() == "hm"


async def test_an_asynchronous_turn_is_cancelled(atw: AsyncClient) -> None:
    turn = (await atw.sessions.create()).send("/stall 20")
    async for event in turn:
        if isinstance(event, MessageCreated):
            assert await turn.cancel()

    with pytest.raises(TurnCancelled):
        await turn.result()


def test_blocks_of_calls_hold_their_input(tw: Client) -> None:
    result = tw.sessions.create().send('/call list_files {"path": ""}').result()

    assert [block.input for block in result.content if isinstance(block, ToolUseBlock)] == [{"path": ""}]
