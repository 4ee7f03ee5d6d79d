"""Where an agent's commands run: what a sandbox promises.

A command sees its session's files at /workspace, the system's programs read-only, and nothing else of the machine.
What it starts ends with it. Its output, stdout and stderr in the order in which they were written, goes to a sink while
it runs.

All verbs belong to the event loop's thread, which must be the process's main one or live as long: the kernel ends a
sandbox with the *thread* that started it (prctl(2), PR_SET_PDEATHSIG).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from turnwire.seams.workspace import Workspace

Sink = Callable[[bytes], None]
"""Takes output as it comes. Called in the event loop's thread: it must not wait."""

Stopped = Literal["time", "output", "memory", "disk", "quota", "killed"]
"""What made the server end a command: its wall time, bytes of output, or memory in all; the disk was nearly full, or
its workspace holds more than it may; or somebody asked for it."""


NetworkRule = Literal["off", "session", "on"]
"""Which commands may have a network: none; those of sessions that ask for it; all but those of sessions that don't
want it."""


class SandboxError(Exception):
    """A command could not be started: one sentence for people and models."""


class Network(msgspec.Struct, frozen=True):
    """What network the commands of a sandbox can have. `by`: what carries it. Empty: none, and then `reason` says why,
    and `todo` what to install or change."""

    by: str = ""
    reason: str = ""
    todo: str = ""


class Status(msgspec.Struct, frozen=True):
    """What a sandbox is on this machine.

    `name`: what stands in start-up lines. `reason` why it can't be used, empty when it can, and then `todo` what to
    install or change. `gaps`: what of its promises this machine does not keep, each a sentence. `network`: what
    commands have of one.
    """

    name: str
    reason: str = ""
    todo: str = ""
    gaps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    network: Network = Network()

    @property
    def available(self) -> bool:
        return not self.reason


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, for whom. `argv` is looked up in the sandbox's own PATH; it starts in /workspace.

    `workspace`: None is an empty folder of its own, gone with it. `wall_s` seconds after its start it is ended; None:
    never (it ends with its session). `network`: what its session says; None: nothing, so the settings do.
    """

    argv: Sequence[str]
    tenant: str
    session_id: str
    workspace: Workspace | None
    wall_s: float | None = None
    env: Mapping[str, str] = {}
    """Beside the sandbox's own variables."""
    paths: Sequence[Path] = ()
    """Files and folders of the machine that it may read, beside those that all may."""
    network: bool | None = None


class Ending(msgspec.Struct, frozen=True):
    """How a command ended: `exit_code`, 128 + n for the signal n as in shells; `stopped` when the server ended it."""

    exit_code: int
    stopped: Stopped | None = None


class Running(Protocol):
    """A command that was started."""

    @property
    def ending(self) -> Ending | None:
        """None while it runs."""
        ...

    async def wait(self) -> Ending:
        """Wait for its end: everything it started has been told to end too, and the sink has all of its output.
        Giving up the wait does not end the command."""
        ...

    def kill(self) -> None:
        """End it now, with all that it started. Returns at once; harmless when it has ended."""
        ...


class Conversation(Running, Protocol):
    """A program that was started to be talked with, by its standard input and output. One reader, one writer."""

    async def read(self) -> bytes:
        """What it wrote next; empty at the end. What nobody reads it has to wait with."""
        ...

    async def write(self, data: bytes) -> None:
        """Returns when it, or the pipe to it, has taken all. Raises SandboxError when nobody takes it any more."""
        ...

    def close_input(self) -> None:
        """Tell it that nothing more comes: programs that are talked with end then. Harmless when it has ended."""
        ...


class Sandbox(Protocol):
    """Runs commands of sessions."""

    @property
    def status(self) -> Status:
        """As found when the sandbox was made."""
        ...

    async def start(self, command: Command, sink: Sink) -> Running:
        """Start a command, with nothing to read. Raises SandboxError, WorkspaceError."""
        ...

    async def converse(self, command: Command, errors: Sink) -> Conversation:
        """Start a program to talk with; what it writes to stderr goes to the sink. It has the limits of a command, but
        none of CPU time: it serves its session for as long as that is in use. Raises SandboxError, WorkspaceError."""
        ...

    async def end_session(self, session_id: str) -> None:
        """End everything that runs for a session, and wait for that."""
        ...

    async def aclose(self) -> None:
        """End everything that runs, and wait for that. Nothing can be started any more."""
        ...
