"""What `turnwire chat` was asked for, and what it needs of the program around it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from turnwire.client import AsyncClient, AsyncSession, Waiting

TTL_S = 30 * 24 * 3600
"""A conversation can be gone on with for so long."""

TITLE_CHARACTERS_MAX = 60

Thinking = Literal["off", "low", "medium", "high"]


class ChatOptions(NamedTuple):
    session_id: str | None = None
    last: bool = False
    model: str | None = None
    thinking: Thinking | None = None
    instructions: str | None = None
    workspace: Literal["shared", "private"] | None = None
    approvals: Sequence[str] = ()
    show_thinking: bool = False
    history: Path | None = None


class ServerAccess(Protocol):
    """The server: found, or one that is started for this chat."""

    started: bool

    def start(self) -> str:
        """Find it or begin to start it; where it is, or what is done, in words."""
        ...

    async def connect(self, on_wait: Callable[[Waiting], object]) -> AsyncClient:
        """A client for it, once it is up."""
        ...

    async def close(self) -> None:
        """End a server that was started."""
        ...


async def open_session(client: AsyncClient, options: ChatOptions, message: str) -> AsyncSession:
    """A new session for a conversation that begins with this message."""
    title = " ".join(message.split())
    if len(title) > TITLE_CHARACTERS_MAX:
        title = title[:TITLE_CHARACTERS_MAX] + "…"
    return await client.sessions.create(
        persistent=True,
        ttl=TTL_S,
        metadata={"title": title},
        model=options.model,
        instructions=options.instructions,
        workspace=options.workspace,
        approvals=list(options.approvals) or None,
    )


async def find_session(client: AsyncClient, options: ChatOptions) -> AsyncSession | None:
    """The session that the options name; None: a new one is wanted."""
    if options.session_id is not None:
        return await client.sessions.get(options.session_id)
    if options.last:
        return await last_session(client)
    return None


async def last_session(client: AsyncClient) -> AsyncSession | None:
    """The one that was last active, of the newest hundred."""
    found: list[AsyncSession] = []
    async for session in client.sessions.list():
        found.append(session)
        if len(found) == 100:
            break
    return max(found, key=lambda session: session.record.last_activity, default=None)


def turn_settings(options: ChatOptions) -> dict[str, Any]:
    """What goes with each message."""
    return {"thinking": options.thinking} if options.thinking else {}
