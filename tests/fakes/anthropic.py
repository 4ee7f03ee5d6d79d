"""Anthropic's Messages, streamed: <https://docs.claude.com/en/docs/build-with-claude/streaming>.

It refuses what the real one refuses, with the real one's error body: an empty text block, a tool_use
without its tool_result in the next message, a tool_result without its tool_use, and, when thinking is on, a
tool_result after an assistant message whose thinking block did not come back signed. Two user messages in a
row are taken, as the real one merges them.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from fakes.base import (
    Answer,
    Comment,
    Cut,
    ErrorEvent,
    Fake,
    Fault,
    Finish,
    Ping,
    Raw,
    Request,
    Stall,
    Text,
    Thinking,
    ToolCall,
    ToolCalls,
    Usage,
    event,
    sign,
)

DOCS = "https://docs.claude.com/en/docs/build-with-claude/extended-thinking"

ERRORS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "Invalid request"),
    401: ("authentication_error", "invalid x-api-key"),
    404: ("not_found_error", "model: nope"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    529: ("overloaded_error", "Overloaded"),
}


class FakeAnthropic(Fake):
    """`base_url` has no `/v1`: the SDK adds it."""

    path: ClassVar[str] = "/v1/messages"

    def render(self, answer: Answer, request: Request) -> Iterator[bytes | Stall | Cut]:
        return _Writer(answer, request, self._served).run()

    def error_body(self, status: int, message: str | None = None, **more: Any) -> dict[str, Any]:
        kind, usual = ERRORS.get(status, ("api_error", "Internal server error"))
        error = {"type": kind, "message": message or usual}
        return {"type": "error", "error": error, "request_id": f"req_fake{len(self.requests):04}"}

    def too_long(self, tokens: int, most: int) -> dict[str, Any]:
        return self.error_body(400, f"prompt is too long: {tokens} tokens > {most} maximum")

    def refuse(self, body: dict[str, Any]) -> Fault | None:
        if not body.get("stream"):
            return Fault(400, self.error_body(400, "This fake only streams."))
        wrong = wrong_messages(body)
        return None if wrong is None else Fault(400, self.error_body(400, wrong))


def blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A message's content as blocks."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def wrong_messages(body: dict[str, Any]) -> str | None:
    """The real one's sentence about messages that it refuses, or None."""
    messages = body.get("messages", [])
    thinking_on = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    for i, message in enumerate(messages):
        following = blocks(messages[i + 1]) if i + 1 < len(messages) else []
        before = blocks(messages[i - 1]) if i else []
        wrong = (
            _empty_text(message)
            or _unanswered(i, message, following)
            or _unasked(i, message, before)
            or (_unsigned(i, message, following) if thinking_on else None)
        )
        if wrong:
            return wrong
    return None


def _empty_text(message: dict[str, Any]) -> str | None:
    if message["content"] in ("", []):
        return "messages: text content blocks must be non-empty"
    if any(b["type"] == "text" and not b["text"] for b in blocks(message)):
        return "messages: text content blocks must be non-empty"
    return None


def _unanswered(i: int, message: dict[str, Any], following: list[dict[str, Any]]) -> str | None:
    answered = {b["tool_use_id"] for b in following if b["type"] == "tool_result"}
    ids = [b["id"] for b in blocks(message) if b["type"] == "tool_use" and b["id"] not in answered]
    if not ids:
        return None
    return (
        f"messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately after:"
        f" {', '.join(ids)}. Each `tool_use` block must have a corresponding `tool_result` block in the next"
        " message."
    )


def _unasked(i: int, message: dict[str, Any], before: list[dict[str, Any]]) -> str | None:
    asked = {b["id"] for b in before if b["type"] == "tool_use"}
    for j, block in enumerate(blocks(message)):
        if block["type"] == "tool_result" and block["tool_use_id"] not in asked:
            return (
                f"messages.{i}.content.{j}: unexpected `tool_use_id` found in `tool_result` blocks:"
                f" {block['tool_use_id']}. Each `tool_result` block must have a corresponding `tool_use`"
                " block in the previous message."
            )
    return None


def _unsigned(i: int, message: dict[str, Any], following: list[dict[str, Any]]) -> str | None:
    if message["role"] != "assistant" or not any(b["type"] == "tool_result" for b in following):
        return None
    first = blocks(message)[0]
    if first["type"] not in ("thinking", "redacted_thinking"):
        return (
            f"messages.{i}.content.0.type: Expected `thinking` or `redacted_thinking`, but found"
            f" `{first['type']}`. When `thinking` is enabled, a final `assistant` message must start with a"
            " thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks). We"
            " recommend you include thinking blocks from previous turns. To avoid this requirement, disable"
            f" `thinking`. Please consult our documentation at {DOCS}"
        )
    for j, block in enumerate(blocks(message)):
        if block["type"] == "thinking" and "signature" not in block:
            return f"messages.{i}.content.{j}.thinking.signature: Field required"
        if block["type"] == "thinking" and block["signature"] != sign(block["thinking"]):
            return f"messages.{i}.content.{j}: Invalid `signature` in `thinking` block"
    return None


class _Writer:
    """One answer's events."""

    def __init__(self, answer: Answer, request: Request, number: int) -> None:
        self.answer = answer
        self.model = request.body.get("model")
        self.number = number
        self.index = -1
        self.open: str | None = None
        self.thought = ""
        self.calls = 0
        self.stop: str | None = "end_turn"
        steps = [s for s in answer.steps if isinstance(s, Usage)]
        self.usage = steps[-1] if steps else Usage(10, 5)

    def run(self) -> Iterator[bytes | Stall | Cut]:
        yield self.start()
        for step in self.answer.steps:
            yield from self.step(step)
        if not self.answer.ending:
            return
        yield from self.close()
        delta = {"stop_reason": self.stop, "stop_sequence": None}
        usage = {**self.input_usage(), "output_tokens": self.usage.output}
        yield self.event("message_delta", delta=delta, usage=usage)
        yield self.event("message_stop")

    def start(self) -> bytes:
        message = {
            "model": self.model,
            "id": f"msg_fake{self.number:04}",
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**self.input_usage(), "output_tokens": 1, "service_tier": "standard"},
        }
        return self.event("message_start", message=message)

    def input_usage(self) -> dict[str, int]:
        usage = self.usage
        return {
            "input_tokens": usage.input - usage.cached - usage.cache_write,
            "cache_creation_input_tokens": usage.cache_write,
            "cache_read_input_tokens": usage.cached,
        }

    def step(self, step: object) -> Iterator[bytes | Stall | Cut]:
        match step:
            case Text():
                yield from self.begin("text", {"type": "text", "text": ""})
                yield self.delta(type="text_delta", text=step.content)
            case Thinking():
                yield from self.begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                self.thought += step.content
                yield self.delta(type="thinking_delta", thinking=step.content)
            case ToolCall():
                yield from self.call(step)
            case ToolCalls():
                for call in step.calls:
                    yield from self.call(call)
            case Finish():
                self.stop = step.reason
            case Ping():
                yield b'event: ping\ndata: {"type": "ping"}\n\n'
            case ErrorEvent():
                yield self.event("error", error={"type": step.type, "message": step.message})
            case Comment():
                yield f":{step.text}\n\n".encode()
            case Raw():
                yield step.data
            case Stall() | Cut():
                yield step
            case _:
                pass

    def call(self, call: ToolCall) -> Iterator[bytes]:
        self.stop = "tool_use"
        yield from self.close()
        call_id = call.id or f"toolu_{self.number:04}{self.calls:04}"
        self.calls += 1
        yield from self.begin("call", {"type": "tool_use", "id": call_id, "name": call.name, "input": {}})
        yield self.delta(type="input_json_delta", partial_json="")
        for piece in call.arguments:
            yield self.delta(type="input_json_delta", partial_json=piece)
        yield from self.close()

    def begin(self, kind: str, block: dict[str, Any]) -> Iterator[bytes]:
        if self.open == kind:
            return
        yield from self.close()
        self.index += 1
        self.open = kind
        yield self.event("content_block_start", index=self.index, content_block=block)

    def close(self) -> Iterator[bytes]:
        if self.open is None:
            return
        if self.open == "thinking":
            yield self.delta(type="signature_delta", signature=sign(self.thought))
            self.thought = ""
        yield self.event("content_block_stop", index=self.index)
        self.open = None

    def delta(self, **delta: Any) -> bytes:
        return self.event("content_block_delta", index=self.index, delta=delta)

    def event(self, kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)
