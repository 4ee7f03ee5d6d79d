"""fetch_url against a real HTTP server, and which addresses it goes to."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from pydantic_ai import RunContext
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage

from turnwire.seams.tool import ToolContext, ToolFailed
from turnwire.tools import limits
from turnwire.tools.addresses import is_public
from turnwire.tools.page import page_text
from turnwire.tools.web import WebTools

LARGE = "x" * (limits.FETCH_BYTES_MAX + 1000)


async def _answer(request: web.Request) -> web.StreamResponse:
    match request.path:
        case "/page":
            return web.Response(text="<title>T</title><p>One <a href='/x'>two</a>", content_type="text/html")
        case "/latin":
            return web.Response(body="<meta charset=latin-1><p>caf\xe9".encode("latin-1"), content_type="text/html")
        case "/large":
            return web.Response(text=LARGE)
        case "/image":
            return web.Response(body=b"\x89PNG", content_type="image/png")
        case "/binary":
            return web.Response(body=b"a\0b", content_type="text/plain")
        case "/slow":
            await asyncio.sleep(60)
        case "/loop":
            raise web.HTTPFound("/loop")
        case "/there":
            raise web.HTTPMovedPermanently("/page")
        case "/to-file":
            raise web.HTTPFound("file:///etc/passwd")
        case "/to-private":
            raise web.HTTPFound("http://10.0.0.1/")
        case "/empty":
            return web.Response(text="")
    return web.json_response({"error": "none"}, status=404)


@asynccontextmanager
async def a_site() -> AsyncIterator[str]:
    runner = web.AppRunner(_app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _app() -> web.Application:
    app = web.Application()
    app.router.add_get("/{path:.*}", _answer)
    return app


async def fetch(url: str, *, private: bool = True, **more: Any) -> str:
    tools = WebTools(private=private)
    context = RunContext(deps=ToolContext("t", "s", None), model=TestModel(), usage=RunUsage())  # type: ignore[arg-type]
    tool = (await tools.get_tools(context))["fetch_url"]
    arguments = tool.args_validator.validate_python({"url": url, **more})
    result = await tools.call_tool("fetch_url", arguments, context, tool)
    assert isinstance(result, str)
    return result


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/page", "(200, text/html)\n\nT\n\nOne [two]("),
        ("/there", "/page (200, text/html)"),
        ("/latin", "café"),
        ("/empty", "(it is empty)"),
    ],
)
async def test_text_is_given(path: str, expected: str) -> None:
    async with a_site() as url:
        assert expected in await fetch(url + path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/image", "only text can be fetched"),
        ("/binary", "is binary"),
        ("/loop", "redirects more than 5 times"),
        ("/to-file", "is not an http or https address"),
        ("/gone", '(404, application/json)\n{"error": "none"}'),
    ],
)
async def test_what_is_no_text_is_told(path: str, expected: str) -> None:
    async with a_site() as url:
        with pytest.raises(ToolFailed) as caught:
            await fetch(url + path)
    assert expected in caught.value.message


async def test_a_large_page_is_read_in_parts_and_what_is_left_out_is_said() -> None:
    async with a_site() as url:
        first = await fetch(url + "/large")
        last = await fetch(url + "/large", offset=limits.FETCH_BYTES_MAX - 10)

    assert "read on with offset 40000" in first and len(first) < 41_000
    assert "xxxxxxxxxx\n[" in last and f"first {limits.FETCH_BYTES_MAX} bytes" in last


async def test_a_slow_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FETCH_TIME_S", 0.3)
    async with a_site() as url:
        with pytest.raises(ToolFailed, match="took longer"):
            await fetch(url + "/slow")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[fe80::1%25lo]/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://0.0.0.0/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://user:secret@example.com/",
        "http://",
        "no address",
        "http://a:99999999/",
        "http://[::1/",
    ],
)
async def test_what_is_not_the_public_web_is_refused(url: str) -> None:
    began = time.monotonic()
    with pytest.raises(ToolFailed) as caught:
        await fetch(url, private=False)

    assert "Connect call failed" not in caught.value.message  # it was refused, not tried
    assert "Cannot connect" not in caught.value.message
    assert time.monotonic() - began < 5


async def test_a_redirect_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, {"public.test": ["8.8.8.8", "127.0.0.1"]})
    monkeypatch.setattr("turnwire.tools.addresses.is_public", lambda address: str(address) == "127.0.0.1")
    async with a_site() as url:
        port = url.rpartition(":")[2]
        with pytest.raises(ToolFailed, match=r"10\.0\.0\.1 is no address of the public Internet"):
            await fetch(f"http://public.test:{port}/to-private", private=False)


async def test_a_name_that_leads_inside_is_refused_however_often_it_answers_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = resolved(monkeypatch, {"rebind.test": ["127.0.0.1", "10.0.0.5"]})
    with pytest.raises(ToolFailed, match=r"rebind\.test leads to no address of the public Internet"):
        await fetch("http://rebind.test/", private=False)
    assert asked == ["rebind.test"]  # once: what was checked is what would be connected to


def resolved(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Names resolve so; the list tells which were asked for."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    true_getaddrinfo = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **more: Any) -> Any:
        if host not in names:
            return await true_getaddrinfo(host, port, **more)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    ("address", "expected"),
    [("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True)]
    + [(a, False) for a in ("127.0.0.1", "::1", "fc00::1", "fe80::1", "ff02::1", "2002:7f00:1::", "240.0.0.1", "::")],
)
def test_public_addresses(address: str, expected: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<h2>A</h2><p>b<br>c", "## A\n\nb\nc"),
        ("<ul><li>a<li>b</ul>c", "- a\n- b\n\nc"),
        ("a<script>if (1<2) '<p>'</script >b<style>x</style>", "ab"),
        ("<pre>  x\n  y</pre>", "x\n  y"),
        ("<a href='#top'>t</a> <a href=javascript:x>j</a> <a href=\"b?c&amp;d\">k</a>", "t j [k](http://h/b?c&d)"),
        ("1 < 2 &amp; 3 &lt; 4 <!-- <p> --> 5", "1 < 2 & 3 < 4  5"),
        ("<p", ""),
        ("<script>never closed", ""),
    ],
)
def test_a_page_becomes_text(page: str, expected: str) -> None:
    assert page_text(page, "http://h/") == expected


@pytest.mark.parametrize("piece", ["<div>", "<a href=x>", "<", "<!--", "&amp;", "<script>", " ", "<a href='", "&#1"])
def test_a_hostile_page_takes_time_in_proportion(piece: str) -> None:
    began = time.perf_counter()
    page_text(piece * (400_000 // len(piece)), "http://h/")

    assert time.perf_counter() - began < 5  # far below a second; nested ones took minutes with a tree
