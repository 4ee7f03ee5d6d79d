import re
from pathlib import Path

import pytest
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.messages import TextPart, ThinkingPart
from pydantic_ai.models import ModelRequestParameters

from turnwire.models.errors import ModelUnavailable
from turnwire.models.scripted import ACTS, ScriptedModel

from .played_helpers import answered, play, read, said

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "scripted.md"


@pytest.fixture
def scenario(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "scenario.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


async def test_the_guides_example_plays_as_the_guide_says(scenario):
    example = re.search(r"```yaml[^\n]*\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    model = ScriptedModel(scenario(example[1]))
    question = said("What is the weather?")

    _, first = await read(model, [question])
    history = [question, first, answered(first)]
    with pytest.raises(ModelHTTPError) as overloaded:
        await read(model, history)
    batches, second = await read(model, history)
    history += [second, said("And tomorrow?")]
    async with model.request_stream(history, None, ModelRequestParameters()) as third:
        with pytest.raises(ModelAPIError, match=r"The connection broke\."):
            async for _ in third.pieces():
                pass
    _, ended = await read(model, [*history, third.get(), said("And then?")])

    assert first.parts[:2] == [
        ThinkingPart("The caller wants the weather. I should look at the file."),
        TextPart("One moment."),
    ]
    assert [(c.tool_name, c.args) for c in first.tool_calls] == [
        ("read_file", '{"path":"weather.txt"}'),
        ("list_files", "{}"),
    ]
    assert (first.usage.input_tokens, first.usage.output_tokens, first.usage.cache_read_tokens) == (40, 25, 10)
    assert overloaded.value.status_code == 529
    assert [p.content for b in batches for p in b] == ["It ", "rai", "ns."]
    assert third.get().text == "This answer stops in the"
    assert ended.text == "The scenario “weather” has ended: it has 3 steps."


def test_the_guide_and_the_docstring_name_every_act_and_key():
    from turnwire.models import scripted

    for text in (GUIDE.read_text(), scripted.__doc__):
        for struct in (*ACTS.values(), scripted.Step, scripted.Scenario, scripted.Usage):
            for name in struct.__struct_fields__:
                assert name in text, name


async def test_repeat_begins_again(scenario):
    model = ScriptedModel(scenario("repeat: true\nsteps: [{play: [{text: one}]}, {play: [{text: two}]}]"))
    messages = [said("x")]
    texts = []
    for _ in range(5):
        _, response = await read(model, messages)
        texts.append(response.text)
        messages += [response, said("x")]

    assert texts == ["one", "two", "one", "two", "one"]


async def test_raw_input_is_passed_as_it_stands(scenario):
    model = ScriptedModel(scenario("steps: [{play: [{call: bash, raw_input: '{\"a\": '}], finish: length}]"))

    first, _ = await play(model, "x")

    assert first.tool_calls[0].args == '{"a": '
    assert first.finish_reason == "length"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: []", "wrong at steps (line 1): Expected `array` of length >= 1."),
        ("", "wrong at the file: Expected `object`, got `null`."),
        ("steps:\n- play:\n  - txt: hi", "wrong at steps[0].play[0] (line 3): an act has exactly one of text, deltas"),
        ("steps:\n- play:\n  - {text: a, call: b}", "here is text and call."),
        (
            "steps:\n- play:\n  - text: a\n    speed: 3",
            "steps[0].play[0] (line 3): Object contains unknown field `speed`.",
        ),
        ("steps:\n- play:\n  - text: 5", "wrong at steps[0].play[0].text (line 3): Expected `str`, got `int`."),
        ("steps:\n- play:\n  - text: a\n    rate: 0", "play[0].rate (line 4): Expected `float` > 0.0."),
        ("steps:\n- play:\n  - call: a\n    input: [1]", "play[0].input (line 4): Expected `object`, got `array`."),
        ("steps:\n- play:\n  - {call: a, input: {}, raw_input: ''}", "`input` and `raw_input` exclude each other."),
        (
            "steps:\n- play: []\n  usage: {input_tokens: -1}",
            "steps[0].usage.input_tokens (line 3): Expected `int` >= 0.",
        ),
        ("steps:\n- play: []\n  repeat: true", "steps[0] (line 2): Object contains unknown field `repeat`."),
        ("name: a\nname: b\nsteps: []", "has the key 'name' twice (line 2)."),
        ("steps: [", "is no valid YAML: while parsing a flow node"),
        ("steps: !!python/object/apply:os.system [ls]", "is no valid YAML: could not determine a constructor"),
        ("steps:\n- play:\n  - call: a\n    input: {1: 2}", "play[0].input (line 4): Expected `str`, got `int`."),
        (b"\xff\xfe\x00", "is not UTF-8."),
    ],
)
def test_a_wrong_scenario_is_refused_with_the_place(scenario, text, message):
    path = scenario(text)

    with pytest.raises(ModelUnavailable) as refused:
        ScriptedModel(path)

    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"can't be read: No such file or directory\."):
        ScriptedModel(tmp_path / "none.yaml")
    with pytest.raises(ModelUnavailable, match=r"can't be read: Is a directory\."):
        ScriptedModel(tmp_path)
