"""The floor: a relay from the provider to the caller, which keeps nothing.

It speaks the part of the wire that the bench needs. It reads and writes with aiohttp, decodes each delta, encodes each
event, and writes all that came with one read at once; it has no log, no grammar, no history, no resume, no
authentication. What turnwire costs above it is what its promises cost.
"""

import asyncio
import os
import secrets
import socket

import aiohttp
import msgspec
import uvloop
from aiohttp import web


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Delta


class Chunk(msgspec.Struct):
    choices: list[Choice] = []


class Content(msgspec.Struct):
    content: str


decode = msgspec.json.Decoder(Chunk).decode
encode = msgspec.json.Encoder().encode


def event(type_: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), encode(data))


def rendered(events: list[bytes]) -> bytes:
    """The events of the caller that these of the provider make."""
    deltas: list[bytes] = []
    for data in events:
        if data.startswith(b"data: {"):
            contents = [choice.delta.content for choice in decode(data[6:]).choices]
            deltas += [event("text.delta", Content(content)) for content in contents if content]
    return b"".join(deltas)


async def create_session(_: web.Request) -> web.Response:
    return web.json_response({"id": f"sess_{secrets.token_hex(6)}"}, status=201)


async def send_message(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    id_ = f"msg_{secrets.token_hex(12)}"
    answer = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "X-Response-Id": id_, "Connection": "close"}
    )
    answer.force_close()
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    created = {"id": id_, "session_id": request.match_info["session"], "status": "in_progress"}
    await answer.write(event("message.created", created))
    asked = {"model": "x", "stream": True, "messages": [{"role": "user", "content": body["message"]}]}
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    async with request.app[CLIENT].post(url, json=asked) as response:
        await answer.write(event("text.start", {}))
        held = b""
        while block := await response.content.readany():
            *events, held = (held + block).split(b"\n\n")
            if frames := rendered(events):
                await answer.write(frames)
    ending = event("text.stop", {}) + event("message.completed", {"id": id_, "status": "completed", "usage": {}})
    await answer.write(ending)
    await answer.write_eof()
    return answer


CLIENT = web.AppKey("client", aiohttp.ClientSession)


async def main() -> None:
    app = web.Application()
    app[CLIENT] = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    )
    app.router.add_post("/v1/sessions", create_session)
    app.router.add_post("/v1/sessions/{session}/messages", send_message)
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
