"""A server that dies while it ends a turn, between the results of the calls that it stops and the ending itself."""

import asyncio
from pathlib import Path
from typing import Any

from pydantic_ai.toolsets import FunctionToolset

from engine.world import a_world
from fakes import Answer, FakeOpenAIChat, ToolCall
from turnwire.seams.tool import ToolContext


async def test_a_death_between_the_results_and_the_ending_leaves_a_history_that_can_be_gone_on_with(
    tmp_path: Path,
) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()
    tools: FunctionToolset[ToolContext] = FunctionToolset(max_retries=0)

    @tools.tool_plain
    async def slow() -> str:
        begun.set()
        await asyncio.sleep(60)
        return "never"

    script = [Answer.of(ToolCall("slow")), Answer.of("Again."), Answer.of("Good.")]
    async with FakeOpenAIChat(script) as fake:
        env = {"VLLM_BASE_URL": fake.base_url, "VLLM_API_KEY": "k"}
        async with a_world(tmp_path, "vllm:m", env, toolsets=[tools]) as world:
            session = await world.session()
            turn = await world.begin(session, "Go.")
            await begun.wait()
            append = world.store.append

            def until_the_ending(batch: Any, on_done: Any) -> None:
                if batch.ending is None:
                    append(batch, on_done)
                else:
                    stopped.set()  # the server dies before this is written

            world.store.append = until_the_ending  # type: ignore[method-assign]
            await world.turns.cancel("t", session.id, turn.id)
            await stopped.wait()
            world.store.append = append  # type: ignore[method-assign]
            await world.restart()

            assert (await world.ended(turn)).status == "cancelled"
            # The fake refuses a call without its result.
            assert (await world.turn(session, "And now?")).status == "completed"
