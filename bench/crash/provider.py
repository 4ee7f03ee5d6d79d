"""The provider: Chat Completions in a process that lives on when the server dies, and that looks at what it is asked.

A message's text is a JSON list of steps (`plan.Step`) and a name. Every word that the model says carries the turn, the
step and the attempt, `t3.1.2:4` for the fourth word of the second attempt: so a history or a conversation shows by
itself where a word came from.
"""

import asyncio
import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from aiohttp import web

from bench.crash.plan import Step

INPUT_PIECE = 12
PAD = "x" * 120
"""Makes the input of a call long enough to be cut off in."""


def message_of(name: str, steps: list[Step]) -> str:
    return json.dumps({"turn": name, "steps": [asdict(step) for step in steps]})


def said(name: str, step: int, attempt: int, count: int) -> list[str]:
    """The words of an attempt at a step."""
    return [f"{name}.{step}.{attempt}:{word} " for word in range(count)]


class Provider:
    """Answers on a port of its own. `faults`: what was wrong with the requests."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.requests = 0
        self.base_url = ""
        self._attempts: Counter[tuple[str, int]] = Counter()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.base_url = f"http://127.0.0.1:{port}/v1"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        messages: list[dict[str, Any]] = (await request.json())["messages"]
        self.requests += 1
        self.faults += faults_of(messages)
        last_user = max(i for i, message in enumerate(messages) if message["role"] == "user")
        order = json.loads(_text(messages[last_user]))
        name, number = order["turn"], sum(m["role"] == "assistant" for m in messages[last_user:])
        attempt = self._attempts[name, number]
        self._attempts[name, number] += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            await _play(response, order["steps"][number], name, number, attempt)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the server died
        return response


async def _play(response: web.StreamResponse, step: dict[str, Any], name: str, number: int, attempt: int) -> None:
    pause_s = 1 / step["rate"]

    async def send(delta: dict[str, Any], finish: str | None = None) -> None:
        chunk = {
            "id": f"chatcmpl-{name}",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "bench",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await asyncio.sleep(pause_s)

    words = said(name, number, attempt, step["thinking"] + step["text"])
    for index, word in enumerate(words):
        await send({"reasoning_content" if index < step["thinking"] else "content": word})
    for index, call in enumerate(step["calls"]):
        token = f"{name}.{number}.{attempt}:c{index}"
        text = json.dumps({"token": token, "pad": PAD, "seconds": call["seconds"]})
        head = {"index": index, "id": f"call_{index}", "type": "function"}
        await send({"tool_calls": [{**head, "function": {"name": call["tool"], "arguments": ""}}]})
        for at in range(0, len(text), INPUT_PIECE):
            piece = text[at : at + INPUT_PIECE]
            await send({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    await send({}, "tool_calls" if step["calls"] else "stop")
    await response.write(b"data: [DONE]\n\n")


def faults_of(messages: list[dict[str, Any]]) -> list[str]:
    """What is wrong with a history: calls that are not answered right behind, two messages of the user in a row, words
    of a step that was cut off, a step that is missing."""
    faults: list[str] = []
    waiting: list[str] = []
    previous = ""
    order: dict[str, Any] = {}
    number = 0
    for message in messages:
        role = message["role"]
        if role == "tool":
            if message["tool_call_id"] not in waiting:
                faults.append(f"a result of no open call {message['tool_call_id']}")
            else:
                waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            faults.append(f"calls without a result: {waiting}")
            waiting = []
        if role == "user":
            if previous == "user":
                faults.append("two messages of the user in a row")
            if order and number != len(order["steps"]):
                faults.append(f"{order['turn']} was given up with {number} of {len(order['steps'])} steps")
            order, number = json.loads(_text(message)), 0
        elif role == "assistant":
            faults += _step_faults(message, order, number)
            waiting = [call["id"] for call in message.get("tool_calls") or ()]
            number += 1
        previous = role
    if waiting:
        faults.append(f"calls without a result: {waiting}")
    return faults


def _step_faults(message: dict[str, Any], order: dict[str, Any], number: int) -> list[str]:
    step = order["steps"][number]
    words = _text(message).split()
    attempt = words[0].partition(":")[0].split(".")[2] if words else None
    if attempt is not None:
        whole = [word.strip() for word in said(order["turn"], number, int(attempt), step["thinking"] + step["text"])]
        if words != whole[step["thinking"] :]:
            return [f"step {number} of {order['turn']} is not one whole attempt: {words}"]
    elif step["text"]:
        return [f"step {number} of {order['turn']} has lost its text"]
    tokens = [json.loads(c["function"]["arguments"])["token"] for c in message.get("tool_calls") or ()]
    attempts = {token.partition(":")[0] for token in tokens}
    expected = len(step["calls"])
    if len(tokens) != expected or len(attempts) > 1 or (attempt and attempts - {f"{order['turn']}.{number}.{attempt}"}):
        return [f"step {number} of {order['turn']} has the calls {tokens}, of {expected}"]
    return []


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
