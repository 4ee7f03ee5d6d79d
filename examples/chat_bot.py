"""A bot for a chat like Slack: one session a thread, answers that grow while they are written.

`Room` is the part to replace by the SDK of your chat. The one here speaks JSON lines, so that the bot can be tried in a
terminal:

    python chat_bot.py
    {"thread": "bread", "user": "ann", "text": "What is sourdough?"}

Messages of one thread are answered one after another, threads at the same time. The bot finds the session of a thread
again when it is restarted: the server keeps the name of the thread with it.

Needs: pip install turnwire, and POKEE_API and POKEE_KEY in the environment.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from turnwire import AsyncClient, AsyncSession, MessageError, TextDelta, ToolExecuting, TurnwireError

UPDATE_EVERY_S = 1.0
"""Chats limit how often a message may be changed."""

KEPT_S = 30 * 24 * 3600


class Incoming(NamedTuple):
    thread: str
    user: str
    text: str


class Room:
    """A chat on stdin and stdout, as JSON lines."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    async def messages(self) -> AsyncIterator[Incoming]:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                said = json.loads(line)
                yield Incoming(str(said["thread"]), str(said["user"]), str(said["text"]))
            except (ValueError, KeyError, TypeError):
                print(f"This is no message: {line.strip()}", file=sys.stderr)

    async def post(self, thread: str, text: str) -> int:
        """A new message of the bot; its id."""
        id_ = next(self._ids)
        print(json.dumps({"post": id_, "thread": thread, "text": text}, ensure_ascii=False), flush=True)
        return id_

    async def update(self, id_: int, text: str) -> None:
        print(json.dumps({"update": id_, "text": text}, ensure_ascii=False), flush=True)


class Bot:
    def __init__(self, tw: AsyncClient, room: Room) -> None:
        self._tw, self._room = tw, room
        self._threads: dict[str, asyncio.Queue[Incoming]] = {}

    async def run(self) -> None:
        """Until the chat ends; what was asked until then is answered."""
        async with asyncio.TaskGroup() as tasks:
            async for message in self._room.messages():
                if message.thread not in self._threads:
                    self._threads[message.thread] = asyncio.Queue()
                    tasks.create_task(self._serve(message.thread))
                self._threads[message.thread].put_nowait(message)
            for queue in self._threads.values():
                queue.put_nowait(Incoming("", "", ""))

    async def _serve(self, thread: str) -> None:
        """The messages of a thread, one after another."""
        session: AsyncSession | None = None
        while (message := await self._threads[thread].get()).thread:
            posted = await self._room.post(thread, "…")
            try:
                session = session or await self._session(thread)
                await self._answer(session, message, posted)
            except TurnwireError as exc:
                session = None  # it may have run out
                await self._room.update(posted, f"Sorry: {exc}")

    async def _session(self, thread: str) -> AsyncSession:
        async for session in self._tw.sessions.list():
            if session.record.metadata.get("thread") == thread:
                return session
        return await self._tw.sessions.create(
            persistent=True, ttl=KEPT_S, metadata={"thread": thread}, workspace="private"
        )

    async def _answer(self, session: AsyncSession, message: Incoming, posted: int) -> None:
        shown, shown_at = "", time.monotonic()
        turn = session.send(message.text)
        async for event in turn:
            match event:
                case TextDelta():
                    now = turn.so_far().text
                case ToolExecuting(name=name):
                    now = f"{turn.so_far().text}\n_uses {name} …_".strip()
                case MessageError(error=why):
                    await self._room.update(posted, f"{turn.so_far().text}\nSorry: {why}".strip())
                    return
                case _:
                    continue
            if time.monotonic() - shown_at >= UPDATE_EVERY_S:
                await self._room.update(posted, now)
                shown, shown_at = now, time.monotonic()
        if (text := turn.so_far().text or "(no answer)") != shown:
            await self._room.update(posted, text)


async def main() -> None:
    async with AsyncClient() as tw:
        await Bot(tw, Room()).run()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except TurnwireError as exc:
        sys.exit(str(exc))
