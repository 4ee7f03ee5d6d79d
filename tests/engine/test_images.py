"""Images that tools return: a model that sees is given them byte for byte, in its provider's form, over the whole
life of a conversation; the wire and other models are given a line of text."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.messages import BinaryContent, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.toolsets import FunctionToolset

from engine.world import Chosen, World, a_world
from fakes import Answer, FakeAnthropic, FakeOpenAIChat, FakeOpenAIResponses, Fault, Request, Stall, ToolCall, Usage
from fakes.base import Fake
from pictures import SMALL, png
from turnwire.engine import limits
from turnwire.engine.recovery import rebuild
from turnwire.engine.turns import Message, MessagePart
from turnwire.protocol.transcript import ToolResultBlock
from turnwire.seams.store import Turn
from turnwire.seams.tool import ToolContext

PICTURE = png(640, 480)
SEEN = "The plot."


def images_in(value: Any) -> Iterator[tuple[str, bytes]]:
    """Every image in a request's body, of whatever vendor's form, in its order: media type and bytes."""
    match value:
        case {"type": "image", "source": {"media_type": media_type, "data": data}}:
            yield media_type, base64.b64decode(data)
        case {"image_url": {"url": str(url)}} | {"type": "input_image", "image_url": str(url)}:
            head, data = url.split(",")
            yield head.removeprefix("data:").removesuffix(";base64"), base64.b64decode(data)
        case dict():
            for item in value.values():
                yield from images_in(item)
        case list():
            for item in value:
                yield from images_in(item)
        case _:
            pass


def made_calls(body: dict[str, Any]) -> int:
    text = json.dumps(body)
    return text.count('"tool_result"') + text.count('"role": "tool"') + text.count('"function_call_output"')


def reading(*paths: str, then: str = SEEN) -> Any:
    """A model that reads these files, one a step, and then says so."""

    def answer(request: Request) -> Answer:
        made = made_calls(request.body)
        if made < len(paths):
            return Answer.of(ToolCall("read_file", (json.dumps({"path": paths[made]}),)), Usage(50, 5))
        return Answer.of(then, Usage(50, 5))

    return answer


VENDORS: dict[str, tuple[type[Fake], str, str]] = {
    "anthropic": (FakeAnthropic, "anthropic:claude-sonnet-5-5", "ANTHROPIC"),
    "chat": (FakeOpenAIChat, "vllm:fake-model", "VLLM"),
    "openai-chat": (FakeOpenAIChat, "openai-chat:gpt-4o", "OPENAI"),
    "responses": (FakeOpenAIResponses, "openai:gpt-5", "OPENAI"),
}


def env(fake: Fake, name: str) -> dict[str, str]:
    return {f"{name}_BASE_URL": fake.base_url, f"{name}_API_KEY": "k"}


async def result_of(world: World, turn: Turn) -> list[str]:
    running = await rebuild(world.store, turn)
    return [block.content for block in running.recorder.transcript.content if isinstance(block, ToolResultBlock)]


@pytest.mark.parametrize("name", VENDORS)
async def test_the_model_is_given_the_image_in_its_vendor_s_form_in_later_turns_and_after_a_restart_too(
    name: str, tmp_path: Path
) -> None:
    kind, spec, variable = VENDORS[name]
    paths = [f"{i}.bin" for i in range(len(SMALL))]
    async with kind(reading(*paths)) as fake:
        async with a_world(tmp_path, spec, env(fake, variable), context_tokens=128_000) as world:
            for path, data in zip(paths, SMALL.values(), strict=True):
                world.write(path, data)
            session = await world.session()
            turn = await world.turn(session, "Look.")

            assert (turn.status, turn.error) == ("completed", None)
            assert list(images_in(fake.requests[1].body)) == list(SMALL.items())[:1]
            assert list(images_in(fake.requests[-1].body)) == list(SMALL.items())
            [first, *_] = await result_of(world, turn)
            assert first == f"0.bin: 7 × 5 pixels\n[image/png, {len(SMALL['image/png'])} bytes]"
            await world.restart()
            fake.script = lambda _: Answer.of("Yes.", Usage(50, 5))
            assert (await world.turn(session, "Still there?")).status == "completed"
            assert list(images_in(fake.requests[-1].body)) == list(SMALL.items())


async def test_each_vendor_has_the_image_where_it_may_stand(tmp_path: Path) -> None:
    placed: dict[str, Any] = {}
    for name, (kind, spec, variable) in VENDORS.items():
        (tmp_path / name).mkdir()
        async with kind(reading("plot.png")) as fake:
            async with a_world(tmp_path / name, spec, env(fake, variable), context_tokens=128_000) as world:
                world.write("plot.png", PICTURE)
                await world.turn(await world.session(), "Look.")
            placed[name] = fake.requests[-1].body

    [result] = placed["anthropic"]["messages"][-1]["content"]
    assert (result["type"], [b["type"] for b in result["content"]]) == ("tool_result", ["text", "image"])
    # A tool's message can only be text in Chat Completions: the image follows it, in a user's message.
    *_, tool, user = placed["chat"]["messages"]
    assert (tool["role"], user["role"], list(images_in(tool))) == ("tool", "user", [])
    assert list(images_in(user)) == [("image/png", PICTURE)]
    output = placed["responses"]["input"][-1]
    assert (output["type"], list(images_in(output))) == ("function_call_output", [("image/png", PICTURE)])


async def test_google_is_given_it_with_the_function_s_response() -> None:
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    returned = ToolReturnPart("read_file", ["plot.png", BinaryContent(PICTURE, media_type="image/png")], "c")
    history = [ModelResponse([ToolCallPart("read_file", "{}", "c")]), ModelRequest([returned])]
    for name in ("gemini-2.5-flash", "gemini-3.8-flash"):
        model = GoogleModel(name, provider=GoogleProvider(api_key="k"))
        _, contents = await model._map_messages(history, ModelRequestParameters())  # type: ignore[reportPrivateUsage]
        assert sum(part.count(PICTURE) for part in _bytes_in(contents)) == 1


def _bytes_in(value: Any) -> Iterator[bytes]:
    match value:
        case bytes():
            yield value
        case dict():
            for item in value.values():
                yield from _bytes_in(item)
        case list():
            for item in value:
                yield from _bytes_in(item)
        case _:
            pass


class Blind(World):
    """Its models can't see, but one that is named so."""

    async def choose(self, spec: str | None) -> Chosen:
        chosen = await super().choose(spec)
        chosen.images = spec == "vllm:seeing"
        return chosen


async def test_a_model_that_can_not_see_is_told_and_so_is_one_that_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.world.World", Blind)
    async with FakeOpenAIChat(reading("plot.png")) as fake:
        async with a_world(tmp_path, "vllm:blind", env(fake, "VLLM"), context_tokens=128_000) as world:
            world.write("plot.png", PICTURE)
            blind, seeing = await world.session(), await world.session(model="vllm:seeing")
            turn = await world.turn(blind, "Look.")

            [said] = await result_of(world, turn)
            assert said.endswith("not shown, since this model can't see images]"), said
            assert said in [m["content"] for m in fake.requests[-1].body["messages"] if m["role"] == "tool"]
            await world.turn(seeing, "Look.")
            assert list(images_in(fake.requests[-1].body)) == [("image/png", PICTURE)]
            turn, _ = await world.turns.begin(
                "t", seeing.id, Message([MessagePart("text", "And?")], model="vllm:blind")
            )
            assert (await world.ended(turn)).status == "completed"
            assert list(images_in(fake.requests[-1].body)) == []
            assert "which this model can't see" in json.dumps(fake.requests[-1].body)


async def test_a_crash_behind_the_image_keeps_it(tmp_path: Path) -> None:
    reached = asyncio.Event()

    def stalling(request: Request) -> Answer:
        if made_calls(request.body) and not reached.is_set():
            reached.set()
            return Answer.of("never", Stall(60))
        return reading("plot.png")(request)

    async with FakeOpenAIChat(stalling) as fake:
        async with a_world(tmp_path, "vllm:m", env(fake, "VLLM"), context_tokens=128_000) as world:
            world.write("plot.png", PICTURE)
            turn = await world.begin(await world.session(), "Look.")
            await reached.wait()
            world.write("plot.png", png(3, 3))  # what the model saw is kept, not the file
            await world.restart()
            turn = await world.ended(turn)

            assert (turn.status, turn.recoveries) == ("completed", 1)
            assert list(images_in(fake.requests[-1].body)) == [("image/png", PICTURE)]


async def test_too_many_images_leave_the_older_ones_out_for_good_and_the_text_stays(tmp_path: Path) -> None:
    paths = [f"{i}.png" for i in range(limits.IMAGES_MAX + 3)]
    async with FakeAnthropic(reading(*paths)) as fake:
        async with a_world(
            tmp_path, "anthropic:claude-sonnet-5-5", env(fake, "ANTHROPIC"), context_tokens=1_000_000
        ) as world:
            for i, path in enumerate(paths):
                world.write(path, png(10, 10, seed=i))
            session = await world.session()
            turn = await world.turn(session, "Look at all.")

            assert (turn.status, turn.error) == ("completed", None)
            counts = [len(list(images_in(request.body))) for request in fake.requests]
            assert max(counts) == limits.IMAGES_MAX
            given = list(images_in(fake.requests[-1].body))
            assert given == [("image/png", png(10, 10, seed=i)) for i in range(len(paths) - len(given), len(paths))]
            assert len(given) == limits.IMAGES_MAX // 2 + 2
            assert all(
                f"{path}: 10 × 10 pixels" in json.dumps(fake.requests[-1].body, ensure_ascii=False) for path in paths
            )
            await world.restart()
            fake.script = lambda _: Answer.of("Yes.")
            await world.turn(session, "And?")
            assert list(images_in(fake.requests[-1].body)) == given


async def test_images_go_before_anything_is_shortened_or_summed_up(tmp_path: Path) -> None:
    async with FakeOpenAIChat(reading(*(f"{i}.png" for i in range(8)))) as fake:
        async with a_world(tmp_path, "vllm:m", env(fake, "VLLM"), context_tokens=8000) as world:
            for i in range(8):
                world.write(f"{i}.png", png(10, 10, seed=i))
            session = await world.session()
            fake.script = lambda r: _without_usage(reading(*(f"{i}.png" for i in range(8)))(r))
            turn = await world.turn(session, "Look at all.")

            assert (turn.status, turn.error) == ("completed", None)
            assert not any("Now write the summary." in json.dumps(request.body) for request in fake.requests)
            assert list(images_in(fake.requests[-1].body))[-1] == ("image/png", png(10, 10, seed=7))
            assert len(list(images_in(fake.requests[-1].body))) < 5


def _without_usage(answer: Answer) -> Answer:
    return Answer(tuple(step for step in answer.steps if not isinstance(step, Usage)))


async def test_an_image_that_the_provider_refuses_is_taken_back_and_the_session_goes_on(tmp_path: Path) -> None:
    def refusing(request: Request) -> Answer | Fault:
        if list(images_in(request.body)):
            return Fault(400, fake.error_body(400, "messages.2.content.0: Could not process image"))
        return reading("plot.png")(request)

    async with FakeAnthropic(refusing) as fake:
        async with a_world(
            tmp_path, "anthropic:claude-sonnet-5-5", env(fake, "ANTHROPIC"), context_tokens=128_000
        ) as world:
            world.write("plot.png", PICTURE)
            session = await world.session()
            turn = await world.turn(session, "Look.")

            assert (turn.status, turn.error) == ("completed", None)
            assert "provider refused it" in json.dumps(fake.requests[-1].body)
            asked = len(fake.requests)
            await world.restart()
            assert (await world.turn(session, "And?")).status == "completed"
            assert len(fake.requests) == asked + 1


async def test_a_refusal_for_another_reason_keeps_the_images(tmp_path: Path) -> None:
    async with FakeOpenAIChat(reading("plot.png")) as fake:
        async with a_world(tmp_path, "vllm:m", env(fake, "VLLM"), context_tokens=128_000) as world:
            world.write("plot.png", PICTURE)
            session = await world.session()
            await world.turn(session, "Look.")
            fake.script = lambda _: Fault(400, fake.error_body(400, "No."))
            assert (await world.turn(session, "And?")).status == "error"
            fake.script = lambda _: Answer.of("Yes.")
            assert (await world.turn(session, "And now?")).status == "completed"
            assert list(images_in(fake.requests[-1].body)) == [("image/png", PICTURE)]


async def test_a_tool_s_own_image_is_shown_and_other_bytes_are_told(tmp_path: Path) -> None:
    tools: FunctionToolset[ToolContext] = FunctionToolset(max_retries=0)

    @tools.tool_plain
    async def read_file(path: str) -> Any:
        large = BinaryContent(bytes(limits.IMAGE_BYTES_MAX + 1), media_type="image/png")
        return [
            {"a": 1},
            BinaryContent(PICTURE, media_type="image/png"),
            BinaryContent(b"RIFF", media_type="audio/wav"),
            large,
        ]

    async with FakeOpenAIChat(reading("x")) as fake:
        async with a_world(tmp_path, "vllm:m", env(fake, "VLLM"), context_tokens=128_000, toolsets=[tools]) as world:
            turn = await world.turn(await world.session(), "Look.")

            [said] = await result_of(world, turn)
            assert said == (
                f'{{"a":1}}\n[image/png, {len(PICTURE) / 1000:.3g} kB]\n'
                "[audio/wav, 4 bytes; not shown, since it is no text and no image that models take]\n"
                "[image/png, 3.75 MB; not shown, since it is larger than 3.75 MB]"
            )
            assert list(images_in(fake.requests[-1].body)) == [("image/png", PICTURE)]
