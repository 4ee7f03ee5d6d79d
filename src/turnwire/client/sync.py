"""`Client`: turnwire for programs with threads. `asynchronous.py` is the same for asyncio."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import httpx2

from turnwire.client import operations as ops
from turnwire.client import transfers
from turnwire.client.address import find_server
from turnwire.client.answering import Answerer, approval, post_answers
from turnwire.client.api import Options
from turnwire.client.blocking import Line, Wire
from turnwire.client.functions import ToolLike, content_of, tools_of
from turnwire.client.operations import LEFT_OUT, Given, named
from turnwire.client.records import (
    FileRecord,
    Health,
    MessageRecord,
    ModelRecord,
    ResponseRecord,
    Result,
    SessionRecord,
    SkillRecord,
    Waiting,
    WrittenFile,
)
from turnwire.client.state import SessionState
from turnwire.client.steps import Course
from turnwire.client.transfers import Content, Progress
from turnwire.client.turns import TurnFlow
from turnwire.protocol.events import Event, ToolCallRequested

OnApproval = Callable[[ToolCallRequested], Any]
Message = str | Sequence[Mapping[str, Any]]
ThinkingLevel = Literal["off", "low", "medium", "high"]


class Client:
    """A server of the turnwire API. Safe to share between threads.

    `url` and `key` are by default those of TURNWIRE_URL and TURNWIRE_KEY, or POKEE_API and POKEE_KEY.
    `retry_timeout_s`: how long an outage, or a server that refuses for now (429, 503), is waited for.
    `busy_timeout_s`: how long a message waits for the session's other turn; 0: SessionBusy is raised at once.
    `heartbeat_timeout_s`: a stream that is silent for so long is taken for dead, and opened again.
    `on_wait` is told before the client sleeps. `http` is an HTTP client of your own, with your authorization, proxies
    and certificates; you close it.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        retry_timeout_s: float = 120.0,
        busy_timeout_s: float = 600.0,
        heartbeat_timeout_s: float = 35.0,
        connect_timeout_s: float = 10.0,
        on_wait: Callable[[Waiting], object] | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        options = Options(
            retry_timeout_s=retry_timeout_s,
            busy_timeout_s=busy_timeout_s,
            heartbeat_timeout_s=heartbeat_timeout_s,
            connect_timeout_s=connect_timeout_s,
        )
        self.url, found_key = find_server(url, key)
        self._wire = Wire(self.url, found_key, options, on_wait, http)
        self.sessions = Sessions(self._wire)
        self.skills = Skills(self._wire)

    def health(self) -> Health:
        """Whether the server is there, and its version: asked once, without waiting."""
        return self._wire.run(ops.health(self._wire.api))

    def models(self) -> list[ModelRecord]:
        return self._wire.run(ops.models(self._wire.api))

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sessions:
    """`client.sessions`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(
        self,
        *,
        persistent: bool | None = None,
        ttl: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        file_access: Mapping[str, Sequence[str]] | None = None,
        model: str | None = None,
        instructions: str | None = None,
        workspace: Literal["shared", "private"] | None = None,
        tools: Sequence[ToolLike] = (),
        approvals: Sequence[str] | None = None,
        on_approval: OnApproval | None = None,
    ) -> "Session":
        """Open a session. What is left out is as the server has it.

        `tools`: functions that the agent may call; they run here while a turn is read. `approvals`: tools of the server
        whose calls wait for a yes; `on_approval(call)` says it: True, False, (False, reason), or a dict, which is a yes
        with this input.
        """
        fields = named(
            persistent=persistent,
            ttl=ttl,
            metadata=metadata,
            file_access=file_access,
            model=model,
            instructions=instructions,
            workspace=workspace,
            approvals=approvals,
        )
        found = tools_of(tools, functions_may_be_async=False)
        record = self._wire.run(ops.create_session(self._wire.api, found, fields))
        return Session(self._wire, SessionState(self._wire.api, record, Answerer(found, on_approval), is_new=True))

    def get(
        self, session_id: str, *, tools: Sequence[ToolLike] = (), on_approval: OnApproval | None = None
    ) -> "Session":
        """A session that is there. `tools` and `on_approval` answer for its turns here, as in `create`."""
        found = tools_of(tools, functions_may_be_async=False)
        record = self._wire.run(ops.get_session(self._wire.api, session_id))
        return Session(self._wire, SessionState(self._wire.api, record, Answerer(found, on_approval)))

    def list(self, *, status: Literal["idle", "busy"] | None = None) -> "Iterator[Session]":
        """All sessions, newest first; they are fetched a page at a time."""
        params = named(status=status)
        for record in self._wire.iterate(self._wire.api.pages("/v1/sessions", ops.read_sessions, params)):
            yield Session(self._wire, SessionState(self._wire.api, record, Answerer()))

    def delete(self, session_id: str) -> None:
        """Delete a session; a turn that runs is cancelled."""
        self._wire.run(self._wire.api.delete(f"/v1/sessions/{ops.check_id('session', session_id)}"))

    def delete_many(self, *, status: Literal["idle"] | None = None, older_than: str | None = None) -> int:
        """Delete idle sessions, or those without activity for a time such as "1h30m": how many."""
        return self._wire.run(ops.delete_sessions(self._wire.api, named(status=status, older_than=older_than)))


class Session:
    """A session. `record` is what was last known of it."""

    def __init__(self, wire: Wire, state: SessionState) -> None:
        self._wire, self._state = wire, state
        self.files = Files(wire, state)

    @property
    def id(self) -> str:
        return self._state.record.id

    @property
    def record(self) -> SessionRecord:
        return self._state.record

    def refresh(self) -> SessionRecord:
        """Ask for the record anew."""
        return self._wire.run(self._state.refresh())

    def update(
        self,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: int | None = None,
        model: str | Given | None = LEFT_OUT,
        instructions: str | Given | None = LEFT_OUT,
    ) -> SessionRecord:
        """Change what is given. `metadata` is merged: None as a value removes its key."""
        fields = {"metadata": metadata, "ttl": ttl}
        fields = {k: v for k, v in fields.items() if v is not None}
        optional = {"model": model, "instructions": instructions}
        fields |= {k: v for k, v in optional.items() if not isinstance(v, Given)}
        return self._wire.run(ops.update_session(self._state, fields))

    def delete(self) -> None:
        self._wire.run(self._state.api.delete(self._state.path))

    def send(
        self,
        message: Message,
        *,
        model: str | None = None,
        thinking: ThinkingLevel | None = None,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        idempotency_key: str | None = None,
    ) -> "Turn":
        """A turn: iterate over it for its events, or ask it for `.text()` or `.result()`; until then nothing is sent.

        A session that is busy is waited for. Leaving the loop does not cancel the turn; going on with it later works.
        """
        settings = named(thinking=thinking, temperature=temperature, max_output_tokens=max_output_tokens)
        body = ops.message_body(message, model, settings)
        return Turn(self, TurnFlow(self._state, body=body, key=idempotency_key))

    def follow(self, response_id: str | None = None) -> "Turn":
        """The turn that runs, or the latest, from its first event on; or the one with this id."""
        return Turn(self, TurnFlow(self._state, response_id=response_id))

    def cancel(self, response_id: str | None = None) -> bool:
        """Cancel the turn that runs, or the one with this id: False when it has ended, or there is none."""
        return self._wire.run(ops.cancel(self._state, response_id))

    def answer(self, call_id: str, content: Any, *, is_error: bool = False) -> None:
        """Answer a `ToolCallRequested` of the kind "tool" by hand: with text, or any JSON."""
        answer = {"id": call_id, "content": content_of(content), "is_error": is_error}
        self._wire.run(post_answers(self._state.api, self._state.path, [answer], strict=True))

    def approve(self, call_id: str, said: Any = True) -> None:
        """Answer one of the kind "approval": True, False, (False, reason), or a dict: a yes with this input."""
        self._wire.run(post_answers(self._state.api, self._state.path, [approval(call_id, said)], strict=True))

    def messages(self) -> list[MessageRecord]:
        """The conversation, oldest first."""
        return self._wire.run(ops.messages(self._state))

    def responses(self) -> Iterator[ResponseRecord]:
        """The turns, newest first."""
        yield from self._wire.iterate(ops.responses(self._state))

    def response(self, response_id: str) -> ResponseRecord:
        return self._wire.run(ops.response(self._state, response_id))

    def __repr__(self) -> str:
        return f"<Session {self.id}>"


class Turn:
    """A turn, as an iterable of its events: each once, in order, to the terminal one, over lost connections and
    restarts of the server. For one thread at a time; `cancel` may be called from any."""

    def __init__(self, session: Session, flow: TurnFlow) -> None:
        self.session = session
        self._flow = flow
        self._course = Course(flow.events(), flow.events_again)
        self._wire = session._wire  # pyright: ignore[reportPrivateUsage]

    def __iter__(self) -> Iterator[Event]:
        line = Line(self._wire)
        try:
            yield from self._wire.items(self._course, line)
        finally:
            line.hangup()

    @property
    def response_id(self) -> str | None:
        """Names the turn, once it has begun."""
        return self._flow.read.response_id

    @property
    def sequence_number(self) -> int:
        """Of the last event that was read, from 0; -1 before the first."""
        return self._flow.read.seq

    @property
    def ended(self) -> bool:
        return self._flow.read.ending is not None

    def text(self) -> str:
        """Read to the end: all that was said. Raises TurnFailed, or TurnCancelled."""
        return self.result().text

    def result(self) -> Result:
        """Read to the end: the folded message, with its usage. Raises TurnFailed, or TurnCancelled."""
        for _ in self:
            pass
        return self._flow.result()

    def so_far(self) -> Result:
        """What was read until now, folded."""
        return self._flow.read.so_far()

    def cancel(self) -> bool:
        """Cancel the turn: then it ends in MessageCancelled. False when it has ended already, or has not begun."""
        if self.response_id is None:
            return False
        return self.session.cancel(self.response_id)


class Files:
    """`session.files`: the session's workspace. Paths are relative to it."""

    def __init__(self, wire: Wire, state: SessionState) -> None:
        self._wire, self._state = wire, state

    def list(self, path: str = "") -> Iterator[FileRecord]:
        """What is in a folder, by name."""
        yield from self._wire.iterate(transfers.list_files(self._state, path))

    def upload(
        self, content: Content, path: str | None = None, *, progress: Progress | None = None, overwrite: bool = True
    ) -> WrittenFile:
        """Write a file: a local path, bytes or an open binary file. `path` is by default the local file's name."""
        return self._wire.run(transfers.upload(self._state, content, path, progress, overwrite=overwrite))

    def stream(self, path: str, *, progress: Progress | None = None) -> Iterator[bytes]:
        """A file's bytes as they come."""
        yield from self._wire.iterate(transfers.download(self._state, path, progress))

    def read(self, path: str) -> bytes:
        """A file's bytes."""
        return b"".join(self.stream(path))

    def download(
        self, path: str, to: str | os.PathLike[str] | None = None, *, progress: Progress | None = None
    ) -> Path:
        """Write a file to disk, whole or not at all: `to` a path or a folder; by default here, by its own name."""
        return _save(self.stream(path, progress=progress), transfers.local_path(path, to))

    def zip(
        self, path: str = "", to: str | os.PathLike[str] | None = None, *, progress: Progress | None = None
    ) -> Path:
        """A folder as a zip on disk."""
        chunks = self._wire.iterate(transfers.download(self._state, path, progress, as_zip=True))
        return _save(chunks, transfers.local_path(f"{path.strip('/') or 'workspace'}.zip", to))

    def delete(self, path: str) -> None:
        """Delete a file, or an empty folder."""
        self._wire.run(self._state.api.delete(transfers.file_path(self._state, path)))


def _save(chunks: Iterable[bytes], target: Path) -> Path:
    with transfers.written(target) as file:
        for chunk in chunks:
            file.write(chunk)
    return target


class Skills:
    """`client.skills`: what the tenant's agents know to do."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self) -> list[SkillRecord]:
        return self._wire.run(ops.skills(self._wire.api))

    def install(self, name: str, content: Content, *, progress: Progress | None = None) -> SkillRecord:
        """Install a skill from a zip, or replace it."""
        source = transfers.source_of(content, progress)
        return self._wire.run(ops.install_skill(self._wire.api, name, source))

    def remove(self, name: str) -> None:
        self._wire.run(ops.remove_skill(self._wire.api, name))
