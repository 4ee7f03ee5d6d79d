"""Turns that another server left running, and that are taken up together."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine.world import TENANT, World, a_world
from fakes import Answer, FakeOpenAIChat, Stall
from turnwire.protocol.codec import decode_frames, encode_frame
from turnwire.protocol.events import TextStop
from turnwire.seams.store import Append, Appended, Session, Turn


def append(frames: bytes) -> Callable[[World, Turn], Awaitable[None]]:
    """Writes one more event of a turn as it comes; with a checksum that is right."""

    async def write(world: World, turn: Turn) -> None:
        result: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        turn = await world.store.get_turn(TENANT, turn.session_id, turn.id)
        seq = turn.last_seq + 1
        of_turn = {"session_id": turn.session_id, "turn_id": turn.id, "epoch": turn.epoch}
        world.store.append(Append(**of_turn, first_seq=seq, last_seq=seq, frames=frames), result.set_result)
        assert await result is Appended.WRITTEN

    return write


async def spoil(world: World, turn: Turn) -> None:
    """As a disk does it."""
    with closing(sqlite3.connect(world.folder.parent / "db.sqlite")) as db, db:
        db.execute(
            "UPDATE segments SET frames = CAST('x' || frames AS BLOB) WHERE turn = (SELECT n FROM turns WHERE id = ?)",
            (turn.id,),
        )


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(spoil, id="a wrong checksum"),
        pytest.param(append(encode_frame(TextStop())), id="no turn"),
        pytest.param(append(b"event: text.started\ndata: {}\n\n"), id="an event that nobody knows"),
        pytest.param(append(b'event: text.delta\ndata: {"content":1}\n\n'), id="another shape"),
        pytest.param(append(b"event: \xff\ndata: \xff\n\n"), id="no text"),
    ],
)
async def test_a_turn_whose_log_is_damaged_ends_when_it_is_taken_up(
    tmp_path: Path, damage: Callable[[World, Turn], Awaitable[None]]
) -> None:
    async with a_world(tmp_path, "demo", {}) as world:
        session, other = await world.session(), await world.session()
        turn, sound = await world.begin(session, "/stall 60"), await world.begin(other, "/text Sound.\n/stall 0.5")
        await world.turns.drain(0)
        await damage(world, turn)
        await world.restart()
        while (ended := await world.store.get_turn(TENANT, session.id, turn.id)).ended_at is None:
            await asyncio.sleep(0.01)

        assert (ended.status, ended.error) == (
            "error",
            "What was stored of this turn is damaged, so it can't go on: send the message again.",
        )
        assert (await world.ended(sound)).status == "completed"
        assert (await world.turn(session, "/text Again.")).status == "completed"


async def test_no_model_is_asked_before_all_turns_are_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = [
        Answer.of("One", Stall(60)),
        Answer.of("Two", Stall(60)),
        Answer.of("One again."),
        Answer.of("Two again."),
    ]
    async with FakeOpenAIChat(script) as fake, a_world(tmp_path, "vllm:m", env_of(fake)) as world:
        turns = [await world.begin(await world.session(), "Go.") for _ in range(2)]
        while len(fake.requests) < 2:
            await asyncio.sleep(0.01)
        get_session, asked_for, go_on = world.store.get_session, asyncio.Event(), asyncio.Event()

        async def late(tenant: str, session_id: str) -> Session:
            if session_id == turns[1].session_id:
                asked_for.set()
                await go_on.wait()
            return await get_session(tenant, session_id)

        monkeypatch.setattr(world.store, "get_session", late)
        restart = asyncio.create_task(world.restart())
        await asked_for.wait()
        while await last_event(world, turns[0]) != "message.resumed":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(fake.requests) == 2
        go_on.set()
        await restart

        assert [(await world.ended(turn)).status for turn in turns] == ["completed"] * 2
        assert len(fake.requests) == 4


def env_of(fake: FakeOpenAIChat) -> dict[str, str]:
    return {"VLLM_BASE_URL": fake.base_url, "VLLM_API_KEY": "k"}


async def last_event(world: World, turn: Turn) -> str:
    page = await world.store.read_events(turn.id, 0, bytes_max=1_000_000)
    return decode_frames(page.segments[-1].frames)[-1].type
