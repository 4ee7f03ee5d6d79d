"""OpenAI's Chat Completions, streamed: <https://platform.openai.com/docs/api-reference/chat-streaming>.

`Answer.options`: `reasoning` names the field of thinking deltas (`reasoning_content`, as vLLM and DeepSeek
send, by default; `reasoning` as Ollama and OpenRouter do; `None`: as `<think>…</think>` in the content);
`dialect` is `openai` (default) or `vllm`; `extra_chunk`, `extra_choice` and `extra_delta` are added to the
objects of every chunk; `model`, `id`, `created` replace the usual ones.
"""

from collections.abc import Iterator, Sequence
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
)

CREATED = 1_790_000_000


class FakeOpenAIChat(Fake):
    """`base_url` ends in `/v1`. GET /v1/models lists `models`; `only_models` refuses any other with 404."""

    root: ClassVar[str] = "/v1"
    path: ClassVar[str] = "/chat/completions"
    models: Sequence[str] = ("fake-model",)
    only_models: bool = False

    def render(self, answer: Answer, request: Request) -> Iterator[bytes | Stall | Cut]:
        return _Writer(answer, request, self._served).run()

    def get(self, request: Request) -> Fault | None:
        if request.path != "/v1/models":
            return None
        data = [{"id": m, "object": "model", "created": CREATED, "owned_by": "fake"} for m in self.models]
        return Fault(200, {"object": "list", "data": data})

    def error_body(self, status: int, message: str | None = None, **more: Any) -> dict[str, Any]:
        usual, kind, code = ERRORS.get(status, ("The server had an error.", "server_error", None))
        return {
            "error": {"message": message or usual, "type": kind, "param": None, "code": code, **more},
        }

    def too_long(self, tokens: int, most: int) -> dict[str, Any]:
        message = (
            f"This model's maximum context length is {most} tokens. However, your messages resulted in {tokens} tokens."
            " Please reduce the length of the messages."
        )
        return self.error_body(400, message, param="messages", code="context_length_exceeded")

    def refuse(self, body: dict[str, Any]) -> Fault | None:
        if self.only_models and body.get("model") not in self.models:
            message = f"The model `{body.get('model')}` does not exist or you do not have access to it."
            return Fault(404, self.error_body(404, message))
        if not body.get("stream"):
            return Fault(400, self.error_body(400, "This fake only streams."))
        if (wrong := unpaired(body.get("messages", []))) is not None:
            return Fault(400, self.error_body(400, wrong[0], param=wrong[1]))
        return None


ERRORS: dict[int, tuple[str, str, str | None]] = {
    400: ("Invalid request.", "invalid_request_error", None),
    401: (
        "Incorrect API key provided: sk-wrong. You can find your API key at"
        " https://platform.openai.com/account/api-keys.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    404: (
        "The model `nope` does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
    ),
    429: (
        "Rate limit reached for requests. Please try again in 20s.",
        "requests",
        "rate_limit_exceeded",
    ),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    529: ("Overloaded", "overloaded_error", None),
}


def unpaired(messages: list[dict[str, Any]]) -> tuple[str, str] | None:
    """OpenAI's message and `param` for tool calls and tool messages that don't belong together, or None."""
    open_ids: list[str] = []
    for i, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_ids:
                return (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message"
                    " with 'tool_calls'.",
                    f"messages.[{i}].role",
                )
            open_ids.remove(message["tool_call_id"])
            continue
        if open_ids:
            return _unanswered(open_ids, i)
        open_ids = [call["id"] for call in message.get("tool_calls") or []]
    return _unanswered(open_ids, len(messages) - 1) if open_ids else None


def _unanswered(ids: list[str], i: int) -> tuple[str, str]:
    return (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
        f" 'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(ids)}",
        f"messages.[{i}].role",
    )


class _Writer:
    """One answer's chunks."""

    def __init__(self, answer: Answer, request: Request, number: int) -> None:
        self.answer = answer
        self.options = answer.options
        self.body = request.body
        self.number = number
        self.openai = self.options.get("dialect", "openai") == "openai"
        self.asked_usage = bool((self.body.get("stream_options") or {}).get("include_usage"))
        self.usage: Usage | None = None
        self.calls = 0
        self.finish: str | None = "stop"
        self.in_think = False

    def run(self) -> Iterator[bytes | Stall | Cut]:
        role = {"role": "assistant", "content": "", **({"refusal": None} if self.openai else {})}
        yield self.chunk(role)
        for step in self.answer.steps:
            if self.in_think and not isinstance(step, Thinking | Stall | Comment | Ping):
                yield self.chunk({"content": "</think>"})
                self.in_think = False
            yield from self.step(step)
        if self.in_think:
            yield self.chunk({"content": "</think>"})
        if not self.answer.ending:
            return
        if self.finish is not None:
            yield self.chunk({}, self.finish)
        if self.asked_usage and self.usage is not None:
            yield event({**self.top(), "choices": [], "usage": usage_object(self.usage)})
        yield b"data: [DONE]\n\n"

    def step(self, step: object) -> Iterator[bytes | Stall | Cut]:
        match step:
            case Text():
                yield self.chunk({"content": step.content})
            case Thinking():
                yield from self.thinking(step.content)
            case ToolCall():
                yield from self.tool_calls([step], interleaved=False)
            case ToolCalls():
                yield from self.tool_calls(step.calls, interleaved=step.interleaved)
            case Usage():
                self.usage = step
            case Finish():
                self.finish = step.reason
            case ErrorEvent():
                error = {"message": step.message, "type": step.type, "param": None, "code": step.code}
                yield event({"error": error})
            case Comment():
                yield f":{step.text}\n\n".encode()
            case Raw():
                yield step.data
            case Stall() | Cut():
                yield step
            case _:
                pass

    def thinking(self, content: str) -> Iterator[bytes]:
        name = self.options.get("reasoning", "reasoning_content")
        if name is not None:
            yield self.chunk({name: content})
            return
        if not self.in_think:
            yield self.chunk({"content": "<think>"})
        self.in_think = True
        yield self.chunk({"content": content})

    def tool_calls(self, calls: Sequence[ToolCall], *, interleaved: bool) -> Iterator[bytes]:
        if self.finish == "stop":
            self.finish = "tool_calls"
        numbered = [(self.calls + i, call) for i, call in enumerate(calls)]
        self.calls += len(calls)
        starts = [self.call_start(i, call) for i, call in numbered]
        pieces = [[self.call_piece(i, piece) for piece in call.arguments] for i, call in numbered]
        if not interleaved:
            for start, its in zip(starts, pieces, strict=True):
                yield from (start, *its)
            return
        yield from starts
        for turn in range(max(map(len, pieces), default=0)):
            yield from (its[turn] for its in pieces if turn < len(its))

    def call_start(self, index: int, call: ToolCall) -> bytes:
        function = {"name": call.name, "arguments": ""}
        call_id = call.id or f"call_{self.number:04}{index:04}"
        return self.chunk({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]})

    def call_piece(self, index: int, piece: str) -> bytes:
        return self.chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})

    def top(self) -> dict[str, Any]:
        top = {
            "id": self.options.get("id", f"chatcmpl-fake{self.number:04}"),
            "object": "chat.completion.chunk",
            "created": self.options.get("created", CREATED),
            "model": self.options.get("model", self.body.get("model")),
        }
        if self.openai:
            top |= {"service_tier": "default", "system_fingerprint": "fp_fake"}
        return top

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        delta = {**delta, **self.options.get("extra_delta", {})}
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        if not self.openai:
            choice["token_ids"] = None
        choice |= self.options.get("extra_choice", {})
        chunk = {**self.top(), "choices": [choice]}
        if self.openai and self.asked_usage:
            chunk["usage"] = None
        if self.openai:
            chunk["obfuscation"] = "x" * (7 - len(str(delta)) % 7)
        return event({**chunk, **self.options.get("extra_chunk", {})})


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage of a chat completion."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
