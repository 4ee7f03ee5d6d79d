"""What was sent is let go of when its answer comes, and sent again where it is sent on, or met a closed connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from aiohttp import web

from turnwire.models.aiohttp_transport import AiohttpTransport


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A server that sends `/old` on to `/new`, which echoes."""

    async def old(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/new"})

    async def new(request: web.Request) -> web.Response:
        said = (await request.read()).decode()
        return web.Response(text=f"{request.headers['X-Mark']} {said}")

    app = web.Application()
    app.add_routes([web.post("/old", old), web.post("/new", new)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


@pytest.mark.parametrize("path", ["/new", "/old"])
async def test_a_body_arrives_also_behind_a_redirect(address: str, path: str) -> None:
    transport = AiohttpTransport()
    async with httpx2.AsyncClient(transport=transport, follow_redirects=True) as client:
        answer = await client.post(f"{address}{path}", content=b"all of it", headers={"X-Mark": "mine"})

    assert answer.text == "mine all of it"


async def test_what_was_sent_is_not_held_while_the_answer_comes(address: str) -> None:
    transport = AiohttpTransport()
    async with httpx2.AsyncClient(transport=transport) as client:
        async with client.stream("POST", f"{address}/new", content=b"x" * 1000, headers={"X-Mark": "m"}) as answer:
            held = vars(answer.request)

    assert "_content" not in held
    assert b"".join([part async for part in answer.request.stream]) == b""


class Closing:
    """A server that answers `answers` requests on a connection as if it kept that, and closes it under the next one,
    without a word, or by a reset."""

    def __init__(self, answers: int, *, reset: bool) -> None:
        self._answers, self._reset = answers, reset
        self.requests: list[bytes] = []
        self.connections = 0

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for number in range(self._answers + 1):
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:  # the client has what it wanted
                break
            self.requests.append(await reader.readexactly(4))
            if number < self._answers:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if self._reset:
            writer.transport.abort()
        writer.close()


@asynccontextmanager
async def talking_to(server: Closing) -> AsyncIterator[httpx2.AsyncClient]:
    async with await asyncio.start_server(server.on_connection, "127.0.0.1", 0) as listening:
        address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with httpx2.AsyncClient(transport=AiohttpTransport(), base_url=address) as client:
            yield client


@pytest.mark.parametrize("reset", [False, True])
async def test_a_kept_connection_that_is_closed_under_a_request_costs_nothing(reset: bool) -> None:
    server = Closing(2, reset=reset)
    async with talking_to(server) as client:
        for body in (b"one.", b"two.", b"thr."):
            assert (await client.post("/", content=body)).text == "ok"

    assert (server.requests, server.connections) == ([b"one.", b"two.", b"thr.", b"thr."], 2)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_new_connection_that_is_closed_under_a_request_is_an_error(reset: bool) -> None:
    server = Closing(0, reset=reset)
    async with talking_to(server) as client:
        with pytest.raises(httpx2.ReadError):
            await client.post("/", content=b"one.")

    assert (server.requests, server.connections) == ([b"one."], 1)
