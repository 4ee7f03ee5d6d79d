"""OpenAI's Responses, streamed: <https://platform.openai.com/docs/api-reference/responses-streaming>."""

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
from fakes.openai_chat import CREATED, ERRORS


class FakeOpenAIResponses(Fake):
    """`base_url` ends in `/v1`. Thinking comes as a reasoning item with a summary, as the vendor shows it."""

    root: ClassVar[str] = "/v1"
    path: ClassVar[str] = "/responses"

    def render(self, answer: Answer, request: Request) -> Iterator[bytes | Stall | Cut]:
        return _Writer(answer, request, self._served).run()

    def error_body(self, status: int, message: str | None = None, **more: Any) -> dict[str, Any]:
        usual, kind, code = ERRORS.get(status, ("The server had an error.", "server_error", None))
        return {"error": {"message": message or usual, "type": kind, "param": None, "code": code, **more}}

    def refuse(self, body: dict[str, Any]) -> Fault | None:
        if not body.get("stream"):
            return Fault(400, self.error_body(400, "This fake only streams."))
        items = body.get("input")
        if not isinstance(items, list):
            return None
        called = {i["call_id"] for i in items if i.get("type") == "function_call"}
        answered = {i["call_id"] for i in items if i.get("type") == "function_call_output"}
        for call_id in sorted(called - answered):
            return Fault(400, self.error_body(400, f"No tool output found for function call {call_id}."))
        for call_id in sorted(answered - called):
            message = f"No tool call found for function call output with call_id {call_id}."
            return Fault(400, self.error_body(400, message))
        return None


class _Writer:
    """One answer's events."""

    def __init__(self, answer: Answer, request: Request, number: int) -> None:
        self.answer = answer
        self.body = request.body
        self.number = number
        self.sequence = 0
        self.output: list[dict[str, Any]] = []
        self.text: str | None = None
        self.thought: str | None = None
        self.calls = 0
        self.finish: str | None = None
        steps = [s for s in answer.steps if isinstance(s, Usage)]
        self.usage = steps[-1] if steps else None

    def run(self) -> Iterator[bytes | Stall | Cut]:
        yield self.event("response.created", response=self.response("in_progress"))
        yield self.event("response.in_progress", response=self.response("in_progress"))
        for step in self.answer.steps:
            yield from self.step(step)
        if not self.answer.ending:
            return
        yield from self.close()
        if self.finish is None:
            yield self.event("response.completed", response=self.response("completed"))
        else:
            yield self.event("response.incomplete", response=self.response("incomplete"))

    def step(self, step: object) -> Iterator[bytes | Stall | Cut]:
        match step:
            case Text():
                yield from self.text_delta(step.content)
            case Thinking():
                yield from self.thinking_delta(step.content)
            case ToolCall():
                yield from self.call(step)
            case ToolCalls():
                for call in step.calls:
                    yield from self.call(call)
            case Finish():
                self.finish = step.reason
            case ErrorEvent():
                yield self.event("error", code=step.code or step.type, message=step.message, param=None)
            case Comment():
                yield f":{step.text}\n\n".encode()
            case Raw():
                yield step.data
            case Stall() | Cut():
                yield step
            case _:
                pass

    def text_delta(self, content: str) -> Iterator[bytes]:
        if self.text is None:
            yield from self.close()
            self.text = ""
            yield self.added(self.message("in_progress"))
            yield self.event("response.content_part.added", **self.at(content_index=0), part=self.part())
        self.text += content
        more = {"delta": content, "logprobs": [], "obfuscation": "xxxx"}
        yield self.event("response.output_text.delta", **self.at(content_index=0), **more)

    def thinking_delta(self, content: str) -> Iterator[bytes]:
        if self.thought is None:
            yield from self.close()
            self.thought = ""
            yield self.added(self.reasoning())
            part = {"type": "summary_text", "text": ""}
            yield self.event("response.reasoning_summary_part.added", **self.at(summary_index=0), part=part)
        self.thought += content
        yield self.event(
            "response.reasoning_summary_text.delta",
            **self.at(summary_index=0),
            delta=content,
            obfuscation="xxxx",
        )

    def call(self, call: ToolCall) -> Iterator[bytes]:
        yield from self.close()
        call_id = call.id or f"call_{self.number:04}{self.calls:04}"
        self.calls += 1
        item: dict[str, Any] = {
            "id": self.item_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "arguments": "",
            "call_id": call_id,
            "name": call.name,
        }
        yield self.added(item)
        for piece in call.arguments:
            yield self.event(
                "response.function_call_arguments.delta",
                item_id=item["id"],
                output_index=len(self.output),
                delta=piece,
                obfuscation="xxxx",
            )
        arguments = "".join(call.arguments)
        yield self.event(
            "response.function_call_arguments.done",
            item_id=item["id"],
            output_index=len(self.output),
            arguments=arguments,
            name=call.name,
        )
        yield self.done({**item, "status": "completed", "arguments": arguments})

    def close(self) -> Iterator[bytes]:
        if self.text is not None:
            yield self.event("response.output_text.done", **self.at(content_index=0), text=self.text, logprobs=[])
            yield self.event("response.content_part.done", **self.at(content_index=0), part=self.part())
            done = self.message("completed")
            self.text = None
            yield self.done(done)
        if self.thought is not None:
            place = self.at(summary_index=0)
            part = {"type": "summary_text", "text": self.thought}
            yield self.event("response.reasoning_summary_text.done", **place, text=self.thought)
            yield self.event("response.reasoning_summary_part.done", **place, part=part)
            done = {**self.reasoning(), "summary": [part]}
            self.thought = None
            yield self.done(done)

    def item_id(self, prefix: str) -> str:
        return f"{prefix}_{self.number:04}{len(self.output):04}"

    def at(self, **index: int) -> dict[str, Any]:
        item_id = self.item_id("msg" if self.text is not None else "rs")
        return {"item_id": item_id, "output_index": len(self.output), **index}

    def part(self) -> dict[str, Any]:
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": self.text}

    def message(self, status: str) -> dict[str, Any]:
        content = [self.part()] if status == "completed" else []
        return {
            "id": self.item_id("msg"),
            "type": "message",
            "status": status,
            "content": content,
            "role": "assistant",
        }

    def reasoning(self) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self.item_id("rs"), "type": "reasoning", "summary": []}
        if "reasoning.encrypted_content" in (self.body.get("include") or []):
            item["encrypted_content"] = "gAAAAfake"
        return item

    def added(self, item: dict[str, Any]) -> bytes:
        return self.event("response.output_item.added", output_index=len(self.output), item=item)

    def done(self, item: dict[str, Any]) -> bytes:
        sent = self.event("response.output_item.done", output_index=len(self.output), item=item)
        self.output.append(item)
        return sent

    def response(self, status: str) -> dict[str, Any]:
        ended = status != "in_progress"
        return {
            "id": f"resp_fake{self.number:04}",
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": self.finish} if self.finish else None,
            "instructions": self.body.get("instructions"),
            "max_output_tokens": None,
            "model": self.body.get("model"),
            "output": self.output if ended else [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": True,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self.usage_object() if ended else None,
            "user": None,
            "metadata": {},
        }

    def usage_object(self) -> dict[str, Any] | None:
        usage = self.usage
        if usage is None:
            return None
        return {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
        }

    def event(self, kind: str, **fields: Any) -> bytes:
        sent = event({"type": kind, "sequence_number": self.sequence, **fields}, kind)
        self.sequence += 1
        return sent
