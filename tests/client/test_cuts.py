"""The connection is cut at every single byte of a turn, and the turn is read the same each time."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.proxy import CuttingProxy, Mode, for_all
from e2e.harness import Server
from turnwire import AsyncClient, Client, ClientError, Event, MessageCreated, ToolCallAnswered

MESSAGE = (
    '/think Hm, “two” files.\n/text I look at both.\n/call write_file {"path": "ä.txt", "content": "x\\ny"}\n'
    '/then\n/text "Done.\\u2028👍"'
)


class Recorded:
    """A turn that has ended, which its message's key replays: its events, and the bytes of the answer."""

    def __init__(self, server: Server) -> None:
        self.server = server
        with Client(server.url, server.key) as tw:
            session = tw.sessions.create(persistent=True, workspace="private")
            self.session_id = session.id
            turn = session.send(MESSAGE, idempotency_key="recorded")
            self.events: list[Event] = list(turn)
            self.result = turn.result()
        self.answer_bytes = len(self._raw())

    def _raw(self) -> bytes:
        with httpx.Client(base_url=self.server.url, trust_env=False) as http:
            body = {"message": MESSAGE, "event_ids": True}
            headers = {"Authorization": f"Bearer {self.server.key}", "Idempotency-Key": "recorded"}
            answer = http.post(f"/v1/sessions/{self.session_id}/messages", json=body, headers=headers)
        head = b"".join(b"%b: %b\r\n" % pair for pair in answer.headers.raw)
        # As it crosses the wire: the head, and 3 to 6 bytes around each chunk, of which a few more do no harm.
        return head + answer.content + b" " * 64


@pytest.fixture(scope="module")
def recorded(demo: Server) -> Recorded:
    return Recorded(demo)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("modes", [("fin", "rst"), pytest.param(("rst", "fin"), marks=pytest.mark.long)])
async def test_a_cut_after_any_byte_of_the_answer_changes_nothing(recorded: Recorded, modes: tuple[Mode, Mode]) -> None:
    async def check(offset: int) -> None:
        proxy = CuttingProxy(recorded.server.port, after_answer=offset, mode=modes[offset % 2])
        async with proxy.running(), AsyncClient(proxy.url, recorded.server.key) as tw:
            session = await tw.sessions.get(recorded.session_id)
            turn = session.send(MESSAGE, idempotency_key="recorded")

            assert [event async for event in turn] == recorded.events
            assert await turn.result() == recorded.result
            assert proxy.cuts == 1

    assert recorded.answer_bytes > 1800
    await for_all(range(recorded.answer_bytes), check)


async def test_a_cut_after_any_byte_of_the_request_begins_one_turn(recorded: Recorded) -> None:
    server = recorded.server

    async def check(offset: int) -> None:
        proxy = CuttingProxy(server.port, after_request=offset)
        async with proxy.running(), AsyncClient(proxy.url, server.key) as tw:
            session = await tw.sessions.create()

            assert await session.send("/text once").text() == "once"
            assert [turn.status async for turn in session.responses()] == ["completed"]
            assert proxy.cuts == 1

    await for_all(range(420), check)


async def test_an_answer_that_is_cut_again_and_again_is_read_on_each_time(recorded: Recorded) -> None:
    proxy = CuttingProxy(recorded.server.port, of=b"/v1/sessions/", after_answer=900, times=1000)
    async with AsyncClient(recorded.server.url, recorded.server.key) as direct:
        session = await direct.sessions.get(recorded.session_id)
        async with proxy.running():
            direct._wire.api.url = proxy.url  # pyright: ignore[reportPrivateUsage]
            turn = session.send(MESSAGE, idempotency_key="recorded")
            assert [event async for event in turn] == recorded.events

    assert proxy.cuts > 3


LIVE_STEP = 41
"""Every so many bytes: each of these is a turn of its own."""


async def test_a_function_is_called_once_wherever_the_live_turn_is_cut(demo: Server) -> None:
    async def check(offset: int) -> None:
        calls: list[str] = []

        async def ask(what: str) -> str:
            calls.append(what)
            return f"yes to {what}"

        proxy = CuttingProxy(demo.port, after_answer=offset)
        async with proxy.running(), AsyncClient(proxy.url, demo.key) as tw:
            session = await tw.sessions.create(tools=[ask])
            turn = session.send('/call ask {"what": "one"}\n/call ask {"what": "two"}\n/then\n/text Fine.')
            events = [event async for event in turn]

        assert sorted(calls) == ["one", "two"]
        assert (await turn.result()).text == "Fine."
        assert sum(isinstance(event, ToolCallAnswered) for event in events) == 2
        assert sum(isinstance(event, MessageCreated) for event in events) == 1

    await for_all(range(0, 2600, LIVE_STEP), check)


async def test_an_answer_to_a_call_that_is_cut_off_is_sent_again(demo: Server) -> None:
    async def check(offset: int) -> None:
        def ask() -> str:
            return "yes"

        proxy = CuttingProxy(demo.port, of=b"/tool_results ", after_answer=offset)
        async with proxy.running(), AsyncClient(proxy.url, demo.key) as tw:
            session = await tw.sessions.create(tools=[ask])
            result = await session.send("/call ask\n/then\n/text Fine.").result()

        assert [getattr(block, "content", "") for block in result.content] == ["", "yes", ""]
        assert proxy.cuts == 1

    await for_all(range(0, 200, 10), check)


@pytest.fixture
async def busy_proxy(recorded: Recorded) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy(recorded.server.port, after_answer=1200, times=8).running() as proxy:
        yield proxy


async def test_the_client_for_threads_reads_on_as_well(recorded: Recorded, busy_proxy: CuttingProxy) -> None:
    results: list[Any] = []

    def work() -> None:
        with Client(busy_proxy.url, recorded.server.key) as tw:
            turn = tw.sessions.get(recorded.session_id).send(MESSAGE, idempotency_key="recorded")
            results.append((list(turn), turn.result()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join(20) for thread in threads])

    assert results == [(recorded.events, recorded.result)] * 8
    assert busy_proxy.cuts == 8


async def test_a_download_goes_on_where_it_was_cut(demo: Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40

    async with AsyncClient(demo.url, demo.key) as tw:
        session = await tw.sessions.create(workspace="private", persistent=True)
        await session.files.upload(content, "some.bin")

    async def check(offset: int) -> None:
        proxy = CuttingProxy(demo.port, of=b"/files/some.bin ", after_answer=offset)
        async with proxy.running(), AsyncClient(proxy.url, demo.key) as tw:
            files = (await tw.sessions.get(session.id)).files
            target = await files.download("some.bin", tmp_path / f"{offset}.bin")

        assert target.read_bytes() == content
        assert proxy.cuts == 1

    await for_all(range(0, 10_600, 331), check)


async def test_an_upload_that_is_cut_off_is_sent_again(demo: Server) -> None:
    content = bytes(range(256)) * 200

    async def check(offset: int) -> None:
        proxy = CuttingProxy(demo.port, of=b"/files/some.bin ", after_request=offset)
        async with proxy.running(), AsyncClient(proxy.url, demo.key) as tw:
            session = await tw.sessions.create(workspace="private")
            written = await session.files.upload(content, "some.bin")

            assert written.size == len(content)
            assert await session.files.read("some.bin") == content
            assert proxy.cuts == 1

    await for_all(range(0, 600, 60), check)


async def test_a_pipe_that_was_cut_off_is_not_sent_in_part(demo: Server) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 60_000)
    os.close(writer)

    proxy = CuttingProxy(demo.port, of=b"/files/piped ", after_request=200)
    async with proxy.running(), AsyncClient(proxy.url, demo.key) as tw:
        session = await tw.sessions.create(workspace="private")
        with open(reader, "rb") as file, pytest.raises(ClientError, match="can't be read a second time"):  # noqa: PTH123
            await session.files.upload(file, "piped")
        assert [file.name async for file in session.files.list()] == []
