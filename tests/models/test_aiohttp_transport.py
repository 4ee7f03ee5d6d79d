"""What was sent is let go of when its answer comes, and sent again where it is sent on."""

from collections.abc import AsyncIterator

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
