import re
import time
from pathlib import Path

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.messages import ModelMessagesTypeAdapter, TextPart, ThinkingPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters

from turnwire.models.demo import DemoModel
from turnwire.models.demo_language import AWKWARD, COMMANDS

from .played_helpers import answered, joined, play, read, said

MODEL = DemoModel(pace=None)


def shape(batches):
    return [(p.part, p.kind, p.name) for batch in batches for p in batch]


async def test_plain_text_is_answered_by_a_text_that_says_what_it_is_and_quotes_the_message():
    batches, response = await read(MODEL, [said("Write me a poem")])

    assert "demo model: a few rules, not a language model" in response.text
    assert "“Write me a poem”" in response.text
    assert "/help" in response.text
    assert joined(batches, 0) == response.text
    assert len(batches[0]) > 20
    assert response.finish_reason == "stop"


async def test_a_plain_answer_comes_at_a_pace():
    batches, _ = await read(DemoModel(pace=400), [said("hello")])

    assert len(batches) > 20


async def test_thinking_text_and_parallel_calls_are_parts_in_order_and_results_are_quoted_at_the_end():
    message = '/think Two sums.\n/text Adding.\n/call add {"x": 1}\n/call add {"x": 2}\n/then\nMore:\n/call add'
    first, second, last = await play(MODEL, message)

    assert first.parts[:2] == [ThinkingPart("Two sums."), TextPart("Adding.")]
    assert [(c.tool_name, c.args) for c in first.tool_calls] == [("add", '{"x": 1}'), ("add", '{"x": 2}')]
    assert second.text == "More:"
    assert second.tool_calls[0].args == "{}"
    assert len({c.tool_call_id for r in (first, second) for c in r.tool_calls}) == 3
    assert last.text.startswith("add answered: “done”.")
    assert (first.finish_reason, last.finish_reason) == ("tool_call", "stop")


async def test_a_failed_result_is_called_failed():
    _, response = await read(MODEL, [said("/unknown")])

    _, last = await read(MODEL, [said("/unknown"), response, answered(response, "no such tool", "failed")])

    assert response.tool_calls[0].tool_name == "no_such_tool"
    assert last.text.startswith("no_such_tool failed: “no such tool”.")


async def test_the_step_survives_a_restart_in_between():
    _, first = await read(DemoModel(), [said("/call a\n/then\n/text second")])
    stored = ModelMessagesTypeAdapter.dump_json([said("/call a\n/then\n/text second"), first, answered(first)])

    _, second = await read(DemoModel(), ModelMessagesTypeAdapter.validate_json(stored))

    assert second.text == "second"


async def test_steps_are_counted_from_the_last_message_of_the_user():
    _, first = await read(MODEL, [said("/text one")])

    _, second = await read(MODEL, [said("/text one"), first, said("/text two")])

    assert second.text == "two"


async def test_pieces_of_calls_come_in_turns_when_asked():
    batches, response = await read(MODEL, [said('/interleave\n/call a {"text": "0123456789"}\n/call b {"n": 1}')])

    assert shape(batches) == [(0, "call", "a"), (1, "call", "b"), (0, "call", "")]
    assert [c.args for c in response.tool_calls] == ['{"text": "0123456789"}', '{"n": 1}']


async def test_stream_gives_numbered_deltas_in_batches():
    batches, response = await read(MODEL, [said("/stream 1000")])

    deltas = [p.content for batch in batches for p in batch]
    assert deltas == [f"{i} " for i in range(1, 1001)]
    assert len(batches) < 20
    assert response.usage.output_tokens == 1000


async def test_stream_keeps_its_rate():
    begun = time.perf_counter()
    batches, _ = await read(MODEL, [said("/stream 30 100")])

    assert sum(map(len, batches)) == 30
    assert 0.28 < time.perf_counter() - begun < 2


async def test_big_is_one_delta():
    batches, _ = await read(MODEL, [said("/big 300000")])

    assert [[len(p.content) for p in batch] for batch in batches] == [[300_000]]


async def test_awkward_characters_come_as_they_are():
    batches, response = await read(MODEL, [said("/unicode")])

    assert [p.content for batch in batches for p in batch] == list(AWKWARD)
    for character in "\u2028\u2029\u0085\r\x00\ud83d😀":
        assert character in response.text


async def test_a_text_in_double_quotes_is_a_json_string():
    (response,) = await play(MODEL, r'/text "a\nb é"')

    assert response.text == "a\nb é"


async def test_invalid_json_and_cut_input_are_passed_on():
    _, bad = await read(MODEL, [said("/badjson write_file")])
    _, cut = await read(MODEL, [said("/cutcall write_file")])

    for response in (bad, cut):
        with pytest.raises(ValueError):
            response.tool_calls[0].args_as_dict(raise_if_invalid=True)
    assert cut.finish_reason == "length"


async def test_failing_before_is_an_http_error_and_nothing_else():
    with pytest.raises(ModelHTTPError) as failure:
        await read(MODEL, [said("/text never\n/fail before 429")])

    assert failure.value.status_code == 429
    assert failure.value.headers == {"retry-after": "1"}


async def test_failing_after_gives_what_came_before_it():
    seen = []
    async with MODEL.request_stream([said("/text some words\n/fail after")], None, ModelRequestParameters()) as stream:
        with pytest.raises(ModelAPIError):
            async for batch in stream.pieces():
                seen += batch

    assert "".join(p.content for p in seen) == "some words"
    assert stream.get().text == "some words"
    assert stream.get().state == "incomplete"


async def test_a_failure_can_pass():
    request = said("/fail before x2\n/text through")
    for _ in range(2):
        with pytest.raises(ModelHTTPError):
            await read(MODEL, [request])

    _, response = await read(MODEL, [request])

    assert response.text == "through"


async def test_stall_is_silent_for_so_long():
    begun = time.perf_counter()
    await read(MODEL, [said("/stall 0.2\n/text at last")])

    assert time.perf_counter() - begun >= 0.2


async def test_an_empty_answer_has_no_part():
    batches, response = await read(MODEL, [said("/empty")])

    assert (batches, list(response.parts)) == ([], [])
    assert response.state == "complete"


async def test_usage_is_what_was_asked_for_and_else_a_count_of_words():
    _, told = await read(MODEL, [said("/text a b c\n/usage 70 80 20 10")])
    _, counted = await read(MODEL, [said("/text a b c")])

    usage = told.usage
    assert (usage.input_tokens, usage.output_tokens) == (70, 80)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (20, 10)
    assert (counted.usage.input_tokens, counted.usage.output_tokens) == (4, 3)


async def test_tools_and_history_say_what_the_model_was_given():
    _, first = await read(MODEL, [said("hello")])
    _, second = await read(MODEL, [said("hello"), first, said("/tools\n/history")], ("read_file", "bash"))

    assert "Tools on offer: read_file, bash." in second.text
    assert "Messages before this one: 2.\nuser: “hello”\nassistant: “I am" in second.text


async def test_help_lists_every_command():
    (response,) = await play(MODEL, "/help")

    for command in COMMANDS.values():
        assert command.usage in response.text


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("/text hi\n/sing", "Line 2: /sing is no command; /help lists them all."),
        ("/text hi\n/then\n/text there", "Line 2: a step without a call ends the turn"),
        ("/stream many", "Line 1: it must be /stream N [RATE]."),
        ("/stream 9999999", "Line 1: the number must be from 0 to 1,000,000."),
        ("/stream 5 0", "Line 1: the number must be from 0.001 to 1,000,000."),
        ("/stall nan", "Line 1: the number must be from 0 to 3,600."),
        ("/fail sideways", "Line 1: it must be /fail [before|after] [STATUS] [xTIMES]."),
        ("/usage 1", "Line 1: it must be /usage IN OUT [CACHE_READ CACHE_WRITE]."),
        ("/call", "Line 1: it must be /call TOOL {JSON}."),
        ('/text "open', "Line 1: a text in double quotes must be a JSON string."),
    ],
)
async def test_what_is_no_program_is_told_and_nothing_is_done(message, reason):
    (response,) = await play(MODEL, message)

    assert reason in response.text
    assert "Nothing of it was done." in response.text


async def test_the_same_messages_give_the_same_answer():
    message = [said("/think a b\n/call x {}\n/stream 100")]

    assert (await read(DemoModel(), message))[0] == (await read(DemoModel(), message))[0]


async def test_pydantic_ai_reads_the_same_from_its_own_events():
    agent = Agent(MODEL)

    @agent.tool_plain
    def add(x: int, y: int) -> int:
        return x + y

    result = await agent.run('/think hm\n/call add {"x": 1, "y": 2}\n/call add {"x": 3, "y": 4}\n/interleave')

    assert result.output.startswith("add answered: “3”.\nadd answered: “7”.")
    calls = [p for m in result.all_messages() for p in m.parts if isinstance(p, ToolCallPart)]
    assert [c.args_as_dict() for c in calls] == [{"x": 1, "y": 2}, {"x": 3, "y": 4}]


async def test_parts_of_a_message_that_are_no_text_are_named():
    from pydantic_ai.messages import BinaryContent, ModelRequest

    prompt = UserPromptPart(["/text seen", BinaryContent(b"x", media_type="image/png")])
    _, response = await read(MODEL, [ModelRequest(parts=[prompt])])

    assert response.text == "seen[binary]"


GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "demo.md").read_text()


def test_the_guide_names_every_command():
    for command in COMMANDS.values():
        assert f"| `{command.usage}` |".replace("before|after", "before\\|after") in GUIDE


async def test_the_guides_example_does_what_the_guide_says():
    example = re.search(r"```text\n(.*?)```", GUIDE, re.DOTALL)

    first, second, last = await play(MODEL, example[1])

    assert [part.part_kind for part in first.parts] == ["thinking", "text", "tool-call", "tool-call"]
    assert [part.part_kind for part in second.parts] == ["text", "tool-call"]
    assert last.text.startswith("write_file answered")
