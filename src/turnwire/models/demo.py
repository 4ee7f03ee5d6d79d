"""The demo model: a few rules, no language model, and it says so.

It is there for developers of clients, to try the whole wire without a key: commands in the message make it
think, call tools, fail, stall and stream (`demo_language.py`; `/help` lists them). Any other message is
answered with a short text. The step of a turn is the number of responses since the user's last message, so a
restart changes nothing.
"""

from typing import cast

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolReturnPart,
)
from pydantic_ai.models import ModelRequestParameters

from turnwire.models.demo_language import DemoSyntaxError, is_program, parse
from turnwire.models.played import Answer, Part, PlayedModel, last_prompt, prompt_text, words

# A plain answer comes at a pace at which a person sees it stream.
PACE = 100.0
# Quotations are cut here, so that the answer to a long message or result stays short.
QUOTE_CHARACTERS_MAX = 400


class DemoModel(PlayedModel):
    """`demo`. `pace`: deltas per second of a plain answer; None as fast as possible."""

    def __init__(self, pace: float | None = PACE) -> None:
        super().__init__("demo")
        self._pace = pace

    def answer(self, messages: list[ModelMessage], parameters: ModelRequestParameters) -> Answer:
        found = last_prompt(messages)
        index, message = (found[0], prompt_text(found[1])) if found else (0, "")
        if not is_program(message):
            return self._say(_introduction(message))
        tools = tuple(tool.name for tool in parameters.function_tools)
        try:
            steps = parse(message, tools=tools, history=tuple(map(_outline, messages[:index])))
        except DemoSyntaxError as error:
            return self._say(f"The demo model cannot follow this message. {error} Nothing of it was done.")
        done = sum(isinstance(m, ModelResponse) for m in messages[index:])
        return steps[done] if done < len(steps) else self._say(_results(messages))

    def _say(self, text: str) -> Answer:
        return Answer((Part("text", words(text), rate=self._pace),))


def _introduction(message: str) -> str:
    return (
        "I am turnwire's demo model: a few rules, not a language model. I can't answer your message, "
        f"{_quoted(message)}, but I can show what a client must handle. Lines that begin with a slash are "
        "commands, for example /think TEXT, /text TEXT, /call TOOL {JSON}, /stream N RATE, /fail after; "
        "/help lists them all. For real answers set TURNWIRE_MODEL."
    )


def _results(messages: list[ModelMessage]) -> str:
    """The text that ends a turn with calls: their results, quoted."""
    results = [
        f"{part.tool_name} {_verdict(part.outcome)}: {_quoted(_content(part))}."
        for part in messages[-1].parts
        if isinstance(part, ToolReturnPart)
    ]
    return "\n".join([*results, "That is all that this message asked for."])


def _verdict(outcome: str) -> str:
    return "answered" if outcome == "success" else "failed"


def _content(part: ToolReturnPart) -> str:
    content = cast(object, part.content)
    return content if isinstance(content, str) else part.model_response_str()


def _outline(message: ModelMessage) -> str:
    """A message of the history as one short line."""
    if isinstance(message, ModelRequest):
        found = last_prompt([message])
        if found:
            return f"user: {_quoted(prompt_text(found[1]))}"
        return f"results: {sum(isinstance(p, ToolReturnPart) for p in message.parts)}"
    text = "".join(part.content for part in message.parts if isinstance(part, TextPart))
    calls = [call.tool_name for call in message.tool_calls]
    return f"assistant: {_quoted(text)}" + (f", calls: {', '.join(calls)}" if calls else "")


def _quoted(text: str) -> str:
    shown = text if len(text) <= QUOTE_CHARACTERS_MAX else text[: QUOTE_CHARACTERS_MAX - 1] + "…"
    return f"“{shown}”"
