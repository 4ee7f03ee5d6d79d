"""A client: it sends messages, one behind the other's end, and puts each turn together over any number of breaks."""

import asyncio
import json
import random
from typing import Any

import aiohttp

from bench.crash.plan import turn_of
from bench.crash.process import KEY
from bench.crash.provider import message_of
from turnwire.protocol.sse import SSEDecoder

RETRY_S = 0.1
TERMINAL = ("message.completed", "message.error", "message.cancelled")
STATES = {
    "text.start": "text",
    "text.delta": "text",
    "thinking.start": "thinking",
    "thinking.delta": "thinking",
    "tool_use.start": "tool input",
    "tool_use.input_delta": "tool input",
}


class Seen:
    """What a client has of a turn: its events in the order in which they came, and how often it was cut off."""

    def __init__(self, name: str, session_id: str) -> None:
        self.name = name
        self.session_id = session_id
        self.response_id: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.breaks = 0
        self.attached = False
        """A stream is open."""
        self.torn = False
        """The stream broke off; whoever looks at it sets it back."""
        self.open = ""
        """What is going on, as far as this client sees."""
        self._calls: set[str] = set()

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1][0] in TERMINAL

    def add(self, number: int, type_: str, data: dict[str, Any]) -> str | None:
        """Take an event; a sentence when it is not the one that must come next."""
        if number != len(self.events):
            return f"{self.name}: got the event {number} where {len(self.events)} comes next"
        if self.ended:
            return f"{self.name}: an event behind the ending, {type_}"
        self.events.append((type_, data))
        if type_ == "tool_use.executing":
            self._calls.add(data["id"])
        elif type_ in ("tool_result", "message.resumed", *TERMINAL):
            self._calls.discard(data["id"])
        self.open = STATES.get(type_) or ("executing" if self._calls else "")
        return None


class Client:
    """One session and its turns. `faults`: what no client should see."""

    def __init__(self, http: aiohttp.ClientSession, base_url: str, seed: int, number: int) -> None:
        self.faults: list[str] = []
        self.turns: list[Seen] = []
        self.session_id = ""
        self._http = http
        self._base_url = base_url
        self._seed = seed
        self._number = number
        self._draw = random.Random(f"client {seed} {number}")

    async def run(self, stop: asyncio.Event) -> None:
        """Turns until `stop`; the last one is read to its end."""
        await self._make_session()
        while not stop.is_set():
            number = len(self.turns)
            seen = Seen(f"t{self._number}-{number}", self.session_id)
            self.turns.append(seen)
            message = message_of(seen.name, turn_of(self._seed, self._number, number))
            await self._read_turn(seen, message, numbered=self._draw.random() < 0.5)

    async def _make_session(self) -> None:
        while not self.session_id:
            try:
                async with self._http.post(self._base_url + "/v1/sessions", json={"persistent": True}) as answer:
                    self.session_id = (await answer.json())["id"]
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(RETRY_S)

    async def _read_turn(self, seen: Seen, message: str, *, numbered: bool) -> None:
        url = f"{self._base_url}/v1/sessions/{self.session_id}"
        while not seen.ended:
            begun = seen.response_id is not None
            headers = {"Idempotency-Key": seen.name} if not begun else {}
            if begun and seen.events:
                headers["Last-Event-ID"] = str(len(seen.events) - 1)
            request = (
                self._http.get(f"{url}/responses/{seen.response_id}/events", headers=headers)
                if begun
                else self._http.post(
                    url + "/messages", json={"message": message, "event_ids": numbered}, headers=headers
                )
            )
            try:
                async with request as answer:
                    if answer.status != 200:
                        await self._refused(seen, answer)
                        continue
                    seen.response_id = answer.headers["X-Response-Id"]
                    seen.attached = True
                    await self._read(seen, answer, numbered=numbered or begun)
            except (aiohttp.ClientError, OSError):
                seen.breaks += 1
                seen.torn = seen.torn or seen.attached
                seen.attached = False
                await asyncio.sleep(RETRY_S)
            finally:
                seen.attached = False

    async def _refused(self, seen: Seen, answer: aiohttp.ClientResponse) -> None:
        if answer.status != 503:
            self.faults.append(f"{seen.name}: {answer.status} {await answer.text()} behind {len(seen.events)} events")
        await asyncio.sleep(RETRY_S)

    async def _read(self, seen: Seen, answer: aiohttp.ClientResponse, *, numbered: bool) -> None:
        """Read the stream until it ends, or until this client has had enough, in the middle of whatever comes."""
        decoder = SSEDecoder()
        bytes_left = self._draw.choice((self._draw.randint(50, 20_000), 10**9, 10**9))
        async for chunk in answer.content.iter_any():
            for event in decoder.feed(chunk[:bytes_left]):
                number = int(event.id) if numbered else len(seen.events)
                data = json.loads(event.data)
                if numbered and data.pop("sequence_number", None) != number:
                    self.faults.append(f"{seen.name}: the event {number} has another sequence number")
                fault = seen.add(number, event.event, data)
                if fault is not None:
                    self.faults.append(fault)
                    raise RuntimeError(fault)
            bytes_left -= len(chunk)
            if bytes_left <= 0:
                answer.close()
                return
        if not seen.ended:
            self.faults.append(f"{seen.name}: the stream ended cleanly without an ending")


def http_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {KEY}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60),
    )
