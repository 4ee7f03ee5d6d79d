"""CPU of reading one long answer of Chat Completions: our reader's pieces against the vendor's events.

    python bench/openai_chat_reader.py [DELTAS]

A server process sends the answer at once (many deltas to a read) and, for a second line, a delta at a time.
What is printed is this process's CPU per delta, the HTTP client included.
"""

import asyncio
import json
import multiprocessing
import multiprocessing.connection
import sys
import time
from collections.abc import Awaitable, Callable
from typing import cast

from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

from turnwire.models.openai_chat import OpenAIChatFast
from turnwire.seams.model import PiecewiseStream

HELLO: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart("hello")])]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(delta: dict[str, str], finish: str | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "bench",
        "system_fingerprint": "fp_bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def serve(deltas: int, pipe: multiprocessing.connection.Connection) -> None:
    """Answers any request; its path says how: /fast/… or /paced/…"""
    events = [event({"role": "assistant", "content": ""})]
    events += [event({"content": f" word{i % 97}"}) for i in range(deltas)]
    events += [event({}, "stop"), b"data: [DONE]\n\n"]
    chunks = [b"%x\r\n%b\r\n" % (len(e), e) for e in events] + [b"0\r\n\r\n"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.write(HEAD)
        if b"/fast/" in head:
            writer.write(b"".join(chunks))
        else:
            for chunk in chunks:
                writer.write(chunk)
                await asyncio.sleep(0.0005)
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def by_pieces(model: OpenAIChatModel) -> int:
    async with model.request_stream(HELLO, None, ModelRequestParameters()) as stream:
        n = 0
        async for batch in cast(PiecewiseStream, stream).pieces():
            n += len(batch)
        assert stream.get().finish_reason == "stop"
        return n


async def by_events(model: OpenAIChatModel) -> int:
    async with model.request_stream(HELLO, None, ModelRequestParameters()) as stream:
        n = 0
        async for _ in stream:
            n += 1
        assert stream.get().finish_reason == "stop"
        return n


async def cost(read: Callable[[OpenAIChatModel], Awaitable[int]], model: OpenAIChatModel, deltas: int) -> float:
    """µs of CPU per delta, the fixed cost of a request included; the best of three."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        assert await read(model) >= deltas
        best = min(best, time.process_time() - began)
    return best / deltas * 1e6


async def measure(port: int, deltas: int) -> None:
    for pace in ("fast", "paced"):
        url = f"http://127.0.0.1:{port}/{pace}/v1"
        ours = OpenAIChatFast("bench", base_url=url)
        vendor = OpenAIChatModel("bench", provider=OpenAICompatibleProvider("bench", base_url=url))
        pieces = await cost(by_pieces, ours, deltas)
        events = await cost(by_events, vendor, deltas)
        await ours.aclose()
        print(f"{pace:6} pieces {pieces:7.1f} µs/delta, vendor {events:7.1f} µs/delta, {events / pieces:5.1f} x")


def main() -> None:
    deltas = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(deltas, there), daemon=True)
    server.start()
    try:
        asyncio.run(measure(here.recv(), deltas))
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
