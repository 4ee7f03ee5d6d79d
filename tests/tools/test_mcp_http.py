"""MCP servers over HTTP: a real one, in all the ways that it can be served, and as it goes and comes."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.mcp_http import McpHttp
from fakes.mcp_tools import Mcp, mcp
from turnwire.sandboxes.host import NoSandbox
from turnwire.tools import limits
from turnwire.tools.mcp.config import McpServer

pytestmark = pytest.mark.slow

WAYS = ("http", "stateless", "json", "sse")


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[McpHttp]:
    with McpHttp(request.param) as server:
        yield server


@pytest.fixture
def own() -> Iterator[McpHttp]:
    with McpHttp() as server:
        yield server


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MCP_RETRY_S", 0.2)
    monkeypatch.setattr(limits, "MCP_ANSWER_S", 0.5)


def there(server: McpHttp, **more: str) -> McpServer:
    return McpServer(name="there", url=server.url, headers={"Authorization": f"Bearer {server.key}", **more})


def state(made: Mcp) -> str:
    return made.tools.states()["there"]


async def test_its_tools_are_called_and_what_they_give_is_text(way: McpHttp, tmp_path: Path) -> None:
    async with mcp(tmp_path, there(way), sandbox=NoSandbox()) as made:
        assert state(made).startswith("up, ")
        assert await made.call("add", a=1, b=2) == "3"
        assert await made.call("picture") == "[image/png, but it has no header: not shown.]"
        assert "a valid integer" in await made.failure("add", a="x", b=2)
        assert await made.failure("refuse")
        assert await made.call("large", size=400_000) == "x" * 400_000


async def test_calls_run_at_the_same_time(way: McpHttp, tmp_path: Path) -> None:
    async with mcp(tmp_path, there(way), sandbox=NoSandbox()) as made:
        began = time.monotonic()
        await asyncio.gather(*(made.call("slow", seconds=0.5) for _ in range(5)))

    assert time.monotonic() - began < 2


async def test_without_its_key_it_says_so(way: McpHttp, tmp_path: Path) -> None:
    refused = McpServer(name="there", url=way.url, headers={"Authorization": "Bearer wrong"})
    async with mcp(tmp_path, refused, sandbox=NoSandbox()) as made:
        assert state(made) == "down: it answered 401 Unauthorized"
        assert await made.names() == []


async def test_a_slow_tool_is_given_up_and_the_server_goes_on(
    way: McpHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MCP_TIME_LIMIT_S", 0.5)
    async with mcp(tmp_path, there(way), sandbox=NoSandbox()) as made:
        assert await made.failure("slow", seconds=60) == "The tool was given up: it took longer than 0.5 seconds."
        assert await made.call("add", a=1, b=2) == "3"
        assert state(made).startswith("up, ")


async def test_a_call_is_given_up_at_once_and_the_server_goes_on(way: McpHttp, tmp_path: Path) -> None:
    async with mcp(tmp_path, there(way), sandbox=NoSandbox()) as made:
        calling = asyncio.create_task(made.call("slow", seconds=60))
        await asyncio.sleep(0.3)
        calling.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await calling

        assert time.monotonic() - began < 0.2
        assert await made.call("add", a=1, b=2) == "3"


async def test_it_goes_and_comes_back(way: McpHttp, tmp_path: Path) -> None:
    async with mcp(tmp_path, there(way), sandbox=NoSandbox()) as made:
        assert await made.call("add", a=1, b=2) == "3"
        way.stop()
        said = await made.failure("add", a=1, b=2)
        await made.until(lambda: state(made).startswith("down: "))
        assert await made.names() == []
        way.start()
        await made.until(lambda: state(made).startswith("up, "))

        assert said.startswith("The MCP server there ")
        assert await made.call("add", a=3, b=4) == "7"


async def test_that_it_went_is_noticed_without_a_call(
    own: McpHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MCP_CHECK_S", 0.2)
    async with mcp(tmp_path, there(own), sandbox=NoSandbox()) as made:
        own.stop()
        await made.until(lambda: state(made).startswith("down: "))


async def test_one_that_went_in_the_middle_of_a_call_says_that_it_may_have_taken_effect(
    own: McpHttp, tmp_path: Path
) -> None:
    async with mcp(tmp_path, there(own), sandbox=NoSandbox()) as made:
        calling = asyncio.create_task(made.failure("slow", seconds=60))
        await asyncio.sleep(0.3)
        own.stop()

        assert "may have taken effect" in await calling


async def test_one_that_hangs_is_down_and_a_call_to_it_is_given_up_at_once(own: McpHttp, tmp_path: Path) -> None:
    async with mcp(tmp_path, there(own), sandbox=NoSandbox()) as made:
        own.freeze()
        calling = asyncio.create_task(made.call("add", a=1, b=2))
        await asyncio.sleep(0.2)
        calling.cancel()
        await made.until(lambda: state(made) == "down: it did not answer within 0.5 seconds")


async def test_an_answer_that_is_too_large_fails_its_call_alone(
    own: McpHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MCP_MESSAGE_BYTES_MAX", 100_000)
    async with mcp(tmp_path, there(own), sandbox=NoSandbox()) as made:
        other = asyncio.create_task(made.call("slow", seconds=0.5))
        said = await made.failure("large", size=200_000)

        assert "larger than 100000 bytes" in said
        assert await other == "late"
        assert state(made).startswith("up, ")


async def test_tools_that_come_later_are_offered(own: McpHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MCP_CHECK_S", 0.2)
    async with mcp(tmp_path, there(own), sandbox=NoSandbox()) as made:
        before = await made.names()
        await made.call("learn")
        await made.until(lambda: state(made) == f"up, {len(before) + 1} tools")

        assert await made.names() == [*before, "learnt"]
        assert await made.call("learnt") == "learnt"


async def test_an_address_where_something_else_answers_is_down(tmp_path: Path) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/mcp"
        async with mcp(tmp_path, McpServer(name="there", url=url), sandbox=NoSandbox()) as made:
            assert state(made).startswith("down: ")
            assert "\n" not in state(made)
