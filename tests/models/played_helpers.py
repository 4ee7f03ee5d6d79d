"""Playing a model in tests: as the engine reads it, in pieces."""

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolReturnPart, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from turnwire.seams.model import Piece, PiecewiseStream


def said(text: str) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(text)])


def answered(response: ModelResponse, content: str = "done", outcome: str = "success") -> ModelRequest:
    """Each call of the response, answered."""
    return ModelRequest(
        parts=[ToolReturnPart(c.tool_name, content, c.tool_call_id, outcome=outcome) for c in response.tool_calls]
    )


async def read(
    model: Model, messages: list[ModelMessage], tools: tuple[str, ...] = ()
) -> tuple[list[list[Piece]], ModelResponse]:
    """One request: its batches and its response."""
    parameters = ModelRequestParameters(function_tools=[ToolDefinition(name=name) for name in tools])
    async with model.request_stream(messages, None, parameters) as stream:
        assert isinstance(stream, PiecewiseStream)
        batches = [batch async for batch in stream.pieces()]
        return batches, stream.get()


async def play(model: Model, text: str, tools: tuple[str, ...] = ()) -> list[ModelResponse]:
    """A whole turn: the model's responses, each call answered with "done"."""
    messages: list[ModelMessage] = [said(text)]
    responses: list[ModelResponse] = []
    while True:
        _, response = await read(model, messages, tools)
        responses.append(response)
        if not response.tool_calls:
            return responses
        messages += [response, answered(response)]


def joined(batches: list[list[Piece]], part: int) -> str:
    return "".join(piece.content for batch in batches for piece in batch if piece.part == part)
