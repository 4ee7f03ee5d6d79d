"""What the routes stand on: the engine's parts, made by the wiring, and the limits of this server."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from fastapi import Depends, Request

from turnwire.engine.follow import Follower
from turnwire.engine.sessions import Sessions
from turnwire.engine.turns import Turns
from turnwire.protocol.errors import Unavailable
from turnwire.seams.model import ModelEntry
from turnwire.seams.skills import Skills
from turnwire.seams.store import Store
from turnwire.seams.workspaces import Workspaces
from turnwire.server.auth import Keys
from turnwire.server.streaming import EventStream
from turnwire.server.tickets import Tickets
from turnwire.server.transfer import Disk


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The server's settings that routes go by. Times are seconds."""

    event_ids: bool = False
    heartbeat_interval_s: float = 15.0
    slow_reader_timeout_s: float = 60.0
    streams_max: int = 5000
    ttl_default_s: int = 14_400
    ttl_max_s: int = 90 * 24 * 3600
    cors_origins: tuple[str, ...] = ()
    root_path: str = ""
    upload_bytes_max: int = 10 * 1024**3
    console: bool = True


class Services:
    """The parts that answer requests."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        turns: Turns,
        workspaces: Workspaces,
        keys: Keys,
        tickets: Tickets,
        catalogue: list[ModelEntry],
        skills: Skills,
        options: ServerOptions,
    ) -> None:
        self.store = store
        self.sessions = sessions
        self.turns = turns
        self.workspaces = workspaces
        self.keys = keys
        self.tickets = tickets
        self.catalogue = catalogue
        self.skills = skills
        self.options = options
        self.disk = Disk()
        self.ready = asyncio.Event()
        self._streams = 0

    @contextmanager
    def place_for_stream(self) -> Generator[None]:
        """A place for a stream that may be opened in here; `Unavailable` when as many are open as this server takes."""
        if self._streams >= self.options.streams_max:
            raise Unavailable("The server has as many open streams as it takes: try again soon.", retry_after_s=5)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def stream(self, follower: Follower, response_id: str) -> EventStream:
        """The answer that a follower's events are."""
        self._streams += 1
        return EventStream(
            follower,
            response_id,
            heartbeat_interval_s=self.options.heartbeat_interval_s,
            slow_reader_timeout_s=self.options.slow_reader_timeout_s,
            on_close=self._on_stream_closed,
        )

    def _on_stream_closed(self) -> None:
        self._streams -= 1


async def _services(request: Request) -> Services:  # a plain function would be run in a thread
    return request.app.state.services


Of = Annotated[Services, Depends(_services)]
