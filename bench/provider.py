"""A fast OpenAI-compatible provider, in a process of its own: canned bytes over raw asyncio.

The caller's message says what comes, so that any server can be driven through its own API:

    bench:fast:N          N deltas as fast as the socket takes them
    bench:paced:N:R       N deltas, R a second, each in a write of its own
    bench:quiet:S         one delta, then nothing for S seconds, then the end

Deltas of the last two hold `@sent;`, and the first one of every answer `@sent,arrived;`: nanoseconds of the
monotonic clock, which all processes of a machine share.
"""

import asyncio
import json
import random
import re
import sys
import time
from typing import cast

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
ORDER = re.compile(rb"bench:(fast|paced|quiet):(\d+)(?::(\d+))?")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "x",
        "system_fingerprint": "fp_bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


BEGIN = _http_chunk(_event({"role": "assistant", "content": ""}))
END = _http_chunk(_event({}, "stop")) + _http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
WORDS = [_http_chunk(_event({"content": f" word{i % 97}"})) for i in range(97)]
STAMPED = _event({"content": "STAMP"}).split(b"STAMP")


def _stamped(content: bytes) -> bytes:
    return _http_chunk(content.join(STAMPED))


class Provider(asyncio.Protocol):
    """One connection; answers one request after another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, separator, body = self._held.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not separator or len(body) < int(length[1] if length else 0):
            return
        self._held = b""
        orders = ORDER.findall(body)
        if not orders:
            self._transport.write(REFUSAL)
            return
        kind, number, rate = orders[-1]
        first = _stamped(b"@%d,%d;" % (time.monotonic_ns(), time.monotonic_ns()))
        if kind == b"fast":
            words = [WORDS[i % 97] for i in range(int(number) - 1)]
            self._transport.write(b"".join([HEAD, BEGIN, first, *words, END]))
        elif kind == b"paced":
            self._transport.write(HEAD + BEGIN)
            # Real streams don't tick together.
            interval = 1 / int(rate)
            self._pace(int(number), interval, self._loop.time() + random.random() * interval)
        else:
            self._transport.write(HEAD + BEGIN + first)
            self._timer = self._loop.call_later(int(number), self._transport.write, END)

    def _pace(self, left: int, interval: float, at: float) -> None:
        self._timer = self._loop.call_at(at, self._tick, left, interval, at)

    def _tick(self, left: int, interval: float, at: float) -> None:
        self._transport.write(_stamped(b"@%d;" % time.monotonic_ns()))
        if left > 1:
            self._pace(left - 1, interval, at + interval)
        else:
            self._transport.write(END)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever started this goes


if __name__ == "__main__":
    uvloop.run(main())
