"""Tool calls: an input is checked, the tool is run within its limits, and whatever happens there is one result."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import structlog
from pydantic import ValidationError
from pydantic_ai import ModelRetry, RunContext, ToolFailed
from pydantic_ai.messages import BinaryContent
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool

from turnwire.engine.context import Call, clean_text
from turnwire.engine.limits import (
    IMAGE_BYTES_MAX,
    IMAGE_TYPES,
    PARALLEL_CALLS_MAX,
    TOOL_RESULT_CHARS_MAX,
    TOOL_TIME_LIMIT_S,
)
from turnwire.seams.tool import ALSO_NAMED, REPEATABLE, TIME_LIMIT_S, ToolContext

log = structlog.get_logger(__name__)

Tools = Mapping[str, ToolsetTool[ToolContext]]

INTERRUPTED = (
    "This call was interrupted: the server stopped while it ran. It may have taken effect, wholly or in part; "
    "look before you make it again."
)
SUPERSEDED = "This call was not made: the answer that asked for it was cut off."
NOT_RUN = "This call was not made: the turn ended before it."
UNANSWERED = "The user's program did not answer this call in time, so it was given up."
NOT_APPROVED = "The user did not allow this call in time, so it was not made."
REFUSED = "The user refused this call."
STOPPED = "This call was stopped: the turn ended while it ran. It may have taken effect, wholly or in part."


class Result:
    """A call's result, as text, and the images that the model is given beside it."""

    __slots__ = ("content", "images", "is_error")

    def __init__(self, content: str, *, is_error: bool = False, images: Sequence[BinaryContent] = ()) -> None:
        self.content = content
        self.is_error = is_error
        self.images = images


def is_repeatable(name: str, tools: Tools) -> bool:
    """Whether the tool says that its calls may be made again after they were interrupted."""
    tool = tools.get(name)
    return tool is not None and bool((tool.tool_def.metadata or {}).get(REPEATABLE))


def in_turn(calls: list[Call], tools: Tools) -> bool:
    """Whether these calls must be made one after another."""
    return any(call.part.tool_name in tools and tools[call.part.tool_name].tool_def.sequential for call in calls)


class CallRunner:
    """Makes the calls of one turn."""

    def __init__(
        self,
        toolset: AbstractToolset[ToolContext],
        tools: Tools,
        context: RunContext[ToolContext],
        approvals: frozenset[str] = frozenset(),
        *,
        images: bool = False,
    ) -> None:
        self._toolset = toolset
        self._tools = tools
        self._context = context
        self._approvals = approvals
        self._images = images
        self._places = asyncio.Semaphore(PARALLEL_CALLS_MAX)

    def asks(self, call: Call) -> Literal["tool", "approval"] | None:
        """What its caller is asked about this call: to run it, or to allow it; None: nothing."""
        tool = self._tools[call.part.tool_name].tool_def
        if tool.kind == "external":
            return "tool"
        names = {tool.name, *(tool.metadata or {}).get(ALSO_NAMED, ())}
        return "approval" if names & self._approvals else None

    def refusal(self, call: Call) -> Result | None:
        """Why a call can't be made at all: an unknown tool, an input that is no JSON object, or, where the caller
        would be asked, one that does not fit the tool's schema."""
        name = call.part.tool_name
        if name not in self._tools:
            known = ", ".join(sorted(self._tools)) or "none"
            return Result(f"There is no tool {name!r}. The tools are: {known}.", is_error=True)
        if call.input is None:
            return Result(
                "The input of this call was cut off or is no JSON object, so it was not made. Make it again, whole.",
                is_error=True,
            )
        return self.misfit(call, call.input) if self.asks(call) else None

    def misfit(self, call: Call, input: dict[str, Any]) -> Result | None:
        """How an input does not fit the tool's schema."""
        try:
            self._tools[call.part.tool_name].args_validator.validate_python(input)
        except ValidationError as exc:
            return Result(_invalid_input(exc), is_error=True)
        except ModelRetry as exc:
            return Result(_shorten(exc.message), is_error=True)
        return None

    async def run(self, call: Call) -> Result:
        """The result of a call that is not refused. Never raises, but when the turn itself is stopped."""
        async with self._places:
            return await self._run(call, self._tools[call.part.tool_name])

    async def _run(self, call: Call, tool: ToolsetTool[ToolContext]) -> Result:
        limit_s = float((tool.tool_def.metadata or {}).get(TIME_LIMIT_S) or TOOL_TIME_LIMIT_S)
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                return _result_of(await self._call(call, tool), sees=self._images)
        except TimeoutError:
            if scope.expired():
                return Result(f"The tool was stopped: it took longer than {limit_s:g} seconds.", is_error=True)
            return Result("The tool failed: it ran into a time limit of its own.", is_error=True)
        except ValidationError as exc:
            return Result(_invalid_input(exc), is_error=True)
        except (ModelRetry, ToolFailed) as exc:
            return Result(_shorten(exc.message), is_error=True)
        except Exception as exc:
            # What a tool raises is the model's to know, in one line; where it was raised is for the log.
            log.warning("tool_raised", tool=call.part.tool_name, call_id=call.id, exc_info=True)
            return Result(_shorten(f"The tool failed: {exc}" if str(exc) else "The tool failed."), is_error=True)

    async def _call(self, call: Call, tool: ToolsetTool[ToolContext]) -> Any:
        context = replace(self._context, tool_name=tool.tool_def.name, tool_call_id=call.id)
        args = tool.args_validator.validate_python(call.input, context=context.validation_context)
        return await self._toolset.call_tool(tool.tool_def.name, args, context, tool)


def _invalid_input(exc: ValidationError) -> str:
    faults = [f"{'.'.join(map(str, error['loc'])) or 'input'}: {error['msg']}" for error in exc.errors()[:10]]
    return _shorten("The input does not fit the tool's schema. " + "; ".join(faults) + ".")


def _result_of(value: Any, *, sees: bool) -> Result:
    """What a tool returned, as text; images among it beside that, for a model that sees."""
    items: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not any(isinstance(item, BinaryContent) for item in items):
        return Result(_shorten(_text_of(value)))
    texts: list[str] = []
    images: list[BinaryContent] = []
    for item in items:
        if not isinstance(item, BinaryContent):
            texts.append(_text_of(item))
            continue
        unseen = _why_unseen(item, sees=sees)
        texts.append(f"[{item.media_type}, {size_text(len(item.data))}{unseen}]")
        if not unseen:
            images.append(item)
    return Result(_shorten("\n".join(texts)), images=images)


def _why_unseen(content: BinaryContent, *, sees: bool) -> str:
    if content.media_type not in IMAGE_TYPES:
        return "; not shown, since it is no text and no image that models take"
    if len(content.data) > IMAGE_BYTES_MAX:
        return f"; not shown, since it is larger than {size_text(IMAGE_BYTES_MAX)}"
    return "" if sees else "; not shown, since this model can't see images"


def size_text(size: int) -> str:
    """A number of bytes for people, in decimal units."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e3:.3g} kB" if size < 999_500 else f"{size / 1e6:.3g} MB"


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    from pydantic_ai.messages import tool_return_ta  # the agent library's own way to write any value

    return tool_return_ta.dump_json(value).decode()


def _shorten(text: str) -> str:
    text = clean_text(text)
    if len(text) <= TOOL_RESULT_CHARS_MAX:
        return text
    left_out = len(text) - TOOL_RESULT_CHARS_MAX
    half = TOOL_RESULT_CHARS_MAX // 2
    return f"{text[:half]}\n… {left_out} characters left out …\n{text[-half:]}"
