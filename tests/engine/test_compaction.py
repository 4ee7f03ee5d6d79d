"""A conversation that lasts: it is shortened before it is longer than the model's context, and nothing breaks."""

import asyncio
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.world import a_world
from fakes import Answer, FakeAnthropic, FakeOpenAIChat, Fault, Request, Stall, ToolCall, Usage
from fakes.base import prompt_tokens
from pictures import png

pytestmark = pytest.mark.slow

FACT = "The vault's code is 7-3-1-9."
SPEC = "openai-chat:fake-model"


def env(fake: FakeOpenAIChat) -> dict[str, str]:
    return {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "k"}


def is_summary(body: dict[str, Any]) -> bool:
    return "Now write the summary." in json.dumps(body)


def told(*steps: Any, request: Request) -> Answer:
    """An answer that counts its request as the fake does."""
    return Answer.of(*steps, Usage(prompt_tokens(request.body), 20))


def summarizing(request: Request) -> Answer:
    """A model that keeps the fact when it sees it."""
    seen = FACT if FACT in json.dumps(request.body) else "nothing"
    return told(f"The user said: {seen}", request=request)


def talk(request: Request) -> Answer:
    if is_summary(request.body):
        return summarizing(request)
    return told("Of course. " * 30, request=request)


async def test_200_turns_in_a_hard_window_and_the_first_turn_s_fact_is_still_given(tmp_path: Path) -> None:
    async with FakeOpenAIChat(talk) as fake:
        fake.context_tokens = 4000
        async with a_world(tmp_path, SPEC, env(fake), context_tokens=4000) as world:
            session = await world.session()
            await world.turn(session, f"{FACT} Keep it in mind.")
            for i in range(199):
                turn = await world.turn(session, f"Question {i}: {'tell me more about it, ' * (i % 40)}please.")
                assert (turn.status, turn.error) == ("completed", None)

            assert max(prompt_tokens(request.body) for request in fake.requests) <= 4000
            summaries = sum(is_summary(request.body) for request in fake.requests)
            assert 5 <= summaries <= 100
            assert FACT in json.dumps(fake.requests[-1].body)
            assert len(await world.store.list_turns("t", session.id, limit=1000)) == 200
            assert all(t.content for t in await world.store.list_turns("t", session.id, limit=1000))


def working(request: Request) -> Answer:
    """Every third turn it reads a file, every tenth it looks at a picture."""
    if is_summary(request.body):
        return summarizing(request)
    content = request.body["messages"][-1]["content"]
    texts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
    asked = re.search(r"Question (\d+):", texts[-1])
    if asked and int(asked[1]) % 10 == 0:
        return told(ToolCall("read_file", ('{"path": "plot.png"}',)), request=request)
    if asked and int(asked[1]) % 3 == 0:
        return told(ToolCall("read_file", ('{"path": "large.txt"}',)), request=request)
    return told("Of course. " * 10, request=request)


async def test_200_turns_of_work_in_a_hard_window_with_files_pictures_and_a_restart(tmp_path: Path) -> None:
    async with FakeAnthropic(working) as fake:
        fake.context_tokens = 9000
        environment = {"ANTHROPIC_BASE_URL": fake.base_url, "ANTHROPIC_API_KEY": "k"}
        async with a_world(tmp_path, "anthropic:claude-sonnet-5-5", environment, context_tokens=9000) as world:
            world.write("large.txt", b"0123456789abcdef\n" * 300)
            world.write("plot.png", png(64, 48))
            session = await world.session()
            await world.turn(session, f"{FACT} Keep it in mind.")
            for i in range(1, 200):
                if i == 100:
                    await world.restart()
                turn = await world.turn(session, f"Question {i}: {'tell me more about it, ' * (i % 20)}please.")
                # The fake refuses what is too long, and a call that is split from its result.
                assert (turn.status, turn.error) == ("completed", None)

            assert max(prompt_tokens(request.body) for request in fake.requests) <= 9000
            assert FACT in json.dumps(fake.requests[-1].body)
            said = [json.dumps(request.body) for request in fake.requests]
            assert 3 <= sum(map(is_summary, (request.body for request in fake.requests))) <= 100
            assert sum('"type": "image"' in one for one in said) >= 19
            assert sum("any more: the conversation grew too long" in one for one in said) >= 1
            assert len(await world.store.list_turns("t", session.id, limit=1000)) == 200


async def test_the_usage_of_a_summary_counts_in_the_turn_that_made_it(tmp_path: Path) -> None:
    async with FakeOpenAIChat(talk) as fake:
        async with a_world(tmp_path, SPEC, env(fake), context_tokens=2000) as world:
            session = await world.session()
            turn = await world.turn(session, "word " * 500)
            while not is_summary(fake.requests[-2].body if len(fake.requests) > 1 else {}):
                turn = await world.turn(session, "word " * 300)

            asked, answered = fake.requests[-2:]
            assert turn.usage.requests == 2
            assert turn.usage.input_tokens == prompt_tokens(asked.body) + prompt_tokens(answered.body)


def calling(request: Request) -> Answer:
    """Reads a large file, five times, then says so."""
    if is_summary(request.body):
        return summarizing(request)
    messages = request.body["messages"]
    since = next(i for i, m in reversed(list(enumerate(messages))) if m["role"] == "user")
    made = sum(m["role"] == "tool" for m in messages[since:])
    if made < 5 and "read it" in json.dumps(messages[since]["content"]):
        return told(ToolCall("read_file", (json.dumps({"path": "large.txt"}),)), request=request)
    return told("Read.", request=request)


async def test_old_outputs_of_tools_are_shortened_before_anything_is_summed_up(tmp_path: Path) -> None:
    async with FakeOpenAIChat(calling) as fake:
        fake.context_tokens = 16_000
        async with a_world(tmp_path, SPEC, env(fake), context_tokens=16_000) as world:
            world.write("large.txt", b"0123456789abcdef\n" * 700)
            session = await world.session()
            turn = await world.turn(session, f"{FACT} read it five times")

            assert (turn.status, turn.error) == ("completed", None)
            assert not any(is_summary(request.body) for request in fake.requests)
            tools = [m["content"] for m in fake.requests[-1].body["messages"] if m["role"] == "tool"]
            assert "bytes are left out here" in tools[0] and len(tools[0]) < 1500
            assert len(tools[-1]) > 10_000
            history = await world.store.read_history(session.id)
            assert history[0].kind == "summary"
            assert [len(e.data) > 10_000 for e in history if e.kind == "return"] == [True] * 5


async def test_a_long_turn_is_summed_up_in_its_middle_and_no_call_is_split_from_its_result(tmp_path: Path) -> None:
    async with FakeOpenAIChat(calling) as fake:
        fake.context_tokens = 3000
        async with a_world(tmp_path, SPEC, env(fake), context_tokens=3000) as world:
            world.write("large.txt", b"0123456789abcdef\n" * 700)
            session = await world.session()
            for i in range(12):
                turn = await world.turn(session, f"{FACT if i == 0 else i} read it five times")
                # The fake refuses a call without its result, and a result without its call.
                assert (turn.status, turn.error) == ("completed", None)

            assert any(is_summary(request.body) for request in fake.requests)
            assert FACT in json.dumps(fake.requests[-1].body)


async def test_a_provider_that_says_too_long_is_asked_again_with_less(tmp_path: Path) -> None:
    async with FakeOpenAIChat(talk) as fake:
        fake.context_tokens = 3000
        async with a_world(tmp_path, SPEC, env(fake), context_tokens=100_000) as world:
            session = await world.session()
            await world.turn(session, FACT)
            for i in range(30):
                turn = await world.turn(session, f"Question {i}: {'tell me more about it, ' * 20}please.")
                assert (turn.status, turn.error) == ("completed", None)

            assert FACT in json.dumps(fake.requests[-1].body)
            refused = sum(prompt_tokens(request.body) > 3000 for request in fake.requests)
            assert 1 <= refused <= 3  # what it learnt it keeps


async def test_a_message_that_is_too_long_by_itself_ends_in_a_sentence(tmp_path: Path) -> None:
    async with FakeOpenAIChat(talk) as fake:
        fake.context_tokens = 3000
        async with a_world(tmp_path, SPEC, env(fake), context_tokens=3000) as world:
            session = await world.session()
            turn = await world.turn(session, "word " * 5000)

            assert turn.status == "error"
            assert turn.error and "longer than the model" in turn.error
            assert (await world.turn(session, "word")).status == "completed"  # it was summed up


async def test_a_summary_survives_the_death_of_the_server(tmp_path: Path) -> None:
    gate = asyncio.Event()

    def stalling(request: Request) -> Answer:
        if is_summary(request.body):
            return summarizing(request)
        if "<summary>" in json.dumps(request.body) and not gate.is_set():
            gate.set()
            return Answer.of("never told", Stall(60))
        return talk(request)

    async with FakeOpenAIChat(stalling) as fake:
        fake.context_tokens = 4000
        async with a_world(tmp_path, SPEC, env(fake), context_tokens=4000) as world:
            session = await world.session()
            await world.turn(session, FACT)
            turn = None
            while not gate.is_set():
                turn = await world.begin(session, "word " * 300)
                await asyncio.wait([world.task(turn), asyncio.create_task(gate.wait())], return_when="FIRST_COMPLETED")
            assert turn is not None
            asked = sum(is_summary(request.body) for request in fake.requests)
            await world.restart()
            turn = await world.ended(turn)

            assert (turn.status, turn.recoveries) == ("completed", 1)
            assert sum(is_summary(request.body) for request in fake.requests) == asked
            assert FACT in json.dumps(fake.requests[-1].body)
            assert (await world.store.read_history(session.id))[0].kind == "summary"


async def test_a_summary_request_that_fails_for_the_moment_is_made_again(tmp_path: Path) -> None:
    failed: list[int] = []

    def faulty(request: Request) -> Answer | Fault:
        if is_summary(request.body) and not failed:
            failed.append(1)
            return Fault(500)
        return talk(request)

    async with FakeOpenAIChat(faulty) as fake:
        async with a_world(tmp_path, SPEC, env(fake), context_tokens=2000) as world:
            session = await world.session()
            for _ in range(6):
                turn = await world.turn(session, "word " * 300)
                assert (turn.status, turn.error) == ("completed", None)

    assert failed


async def test_a_model_that_sums_up_nothing_is_helped_out_by_what_the_user_said(tmp_path: Path) -> None:
    def silent(request: Request) -> Answer:
        return Answer.of("") if is_summary(request.body) else talk(request)

    async with FakeOpenAIChat(silent) as fake:
        async with a_world(tmp_path, SPEC, env(fake), context_tokens=2000) as world:
            session = await world.session()
            await world.turn(session, FACT)
            for _ in range(6):
                turn = await world.turn(session, "word " * 300)
                assert (turn.status, turn.error) == ("completed", None)

            assert FACT in json.dumps(fake.requests[-1].body)


# Prompt caches read what a request has in common with the one before, from its beginning.


def without_cache_points(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_cache_points(v) for k, v in value.items() if k != "cache_control"}
    return [without_cache_points(item) for item in value] if isinstance(value, list) else value


async def test_a_request_begins_as_the_one_before_and_anthropic_s_cache_points_are_set(tmp_path: Path) -> None:
    def working(request: Request) -> Answer:
        if len(request.body["messages"]) % 8 in (1, 3, 5):
            return Answer.of(ToolCall("list_files", ("{}",)), Usage(900, 20, cached=800, cache_write=100))
        return Answer.of("Done.", Usage(900, 20, cached=800, cache_write=100))

    async with FakeAnthropic(working) as fake:
        environment = {"ANTHROPIC_BASE_URL": fake.base_url, "ANTHROPIC_API_KEY": "k"}
        async with a_world(tmp_path, "anthropic:claude-sonnet-5-5", environment, context_tokens=200_000) as world:
            session = await world.session(instructions="Be brief.")
            turn = await world.turn(session, "look")
            await world.restart()
            await world.turn(session, "look again")

            bodies = [request.body for request in fake.requests]
            assert len(bodies) >= 5
            for body in bodies:
                assert "cache_control" in json.dumps(body)
            for before, after in pairwise(map(without_cache_points, bodies)):
                assert after["tools"] == before["tools"]
                assert after["system"] == before["system"]
                assert after["messages"][: len(before["messages"])] == before["messages"]
            assert turn.usage.cache_read_tokens == 800 * turn.usage.requests
            assert turn.usage.cache_write_tokens == 100 * turn.usage.requests
