"""Commands without a sandbox, as the server's own user: only where the setting `sandbox = "none"` asks for it.

For machines that are sandboxes themselves, such as a container for one agent. A command can read and do all that the
server can. Its environment is made from nothing, and the limits of the kernel hold; what it leaves behind in its own
process group ends with it, what has left the group does not.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from turnwire.sandboxes.children import Children, spawn
from turnwire.sandboxes.layout import WORKSPACE
from turnwire.sandboxes.limits import (
    ADDRESS_SPACE_BYTES,
    CONVERSATIONS_MAX,
    OPEN_FILES_MAX,
    SESSION_CONVERSATIONS_MAX,
    Limits,
)
from turnwire.sandboxes.mounts import opened_mounts
from turnwire.sandboxes.partner import Partner
from turnwire.sandboxes.quota import budget_of
from turnwire.sandboxes.watch import Watch
from turnwire.seams.sandbox import Command, Conversation, Network, Running, SandboxError, Sink, Status
from turnwire.seams.workspace import Workspace

WARNING = (
    "Commands run without a sandbox (TURNWIRE_SANDBOX=none): an agent can read and do all that this server's user may, "
    "the server's database and keys included."
)


class NoSandbox:
    """`turnwire.seams.sandbox.Sandbox`, by trust alone."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        self._children = Children()
        self._conversations = Children("programs", CONVERSATIONS_MAX, SESSION_CONVERSATIONS_MAX)
        self._watch = Watch(limits.memory_bytes)
        if shutil.which("bash") is None:
            self.status = Status("none", "There is no bash.", "install bash.")
        else:
            self.status = Status("none", warnings=(WARNING,), network=Network("the machine's own"))

    async def start(self, command: Command, sink: Sink) -> Running:
        self._check(command)
        with self._children.place(command.session_id):
            async with _folder_of(command.workspace) as (handle, folder):
                budget = await budget_of(command.workspace)
                process = self._spawn(command, folder, self._limits.cpu_s)
                child = self._children.adopt(process, sink, session_id=command.session_id, wall_s=command.wall_s)
                if command.workspace is None:
                    child.when_ended(lambda: shutil.rmtree(folder, ignore_errors=True))
                self._watch.add(child, [handle], budget)
                return child

    async def converse(self, command: Command, errors: Sink) -> Conversation:
        self._check(command)
        with self._conversations.place(command.session_id):
            async with _folder_of(command.workspace) as (handle, folder):
                budget = await budget_of(command.workspace)
                process = self._spawn(command, folder, None, talks=True)
                child = self._conversations.take(Partner(process, errors), command.session_id)
                if command.workspace is None:
                    child.when_ended(lambda: shutil.rmtree(folder, ignore_errors=True))
                self._watch.add(child, [handle], budget)
                return child

    def _check(self, command: Command) -> None:
        if not self.status.available:
            raise SandboxError(self.status.reason)
        if command.network is False:
            raise SandboxError(
                "That this session has no network can't be kept without a sandbox, so no command is run."
            )

    def _spawn(
        self, command: Command, folder: str, cpu_s: int | None, *, talks: bool = False
    ) -> "subprocess.Popen[bytes]":
        path = [str(shown / "bin") for shown in command.paths if (shown / "bin").is_dir()]
        variables = {
            "PATH": ":".join([*path, os.environ.get("PATH", os.defpath)]),
            "HOME": folder,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "PYTHONUNBUFFERED": "1",
        }
        return spawn(
            [*self._limiting_shell(cpu_s), *command.argv], env={**variables, **command.env}, cwd=folder, talks=talks
        )

    def _limiting_shell(self, cpu_s: int | None) -> list[str]:
        """Without a limit of processes: here it would count all of this user's, the server's own included."""
        limits = self._limits
        cpu = "" if cpu_s is None else f"ulimit -t {cpu_s}; "
        return [
            "bash",
            "-c",
            f"umask 022; ulimit -c 0; ulimit -n {OPEN_FILES_MAX}; {cpu}"
            f"ulimit -f {limits.file_bytes // 1024}; ulimit -d {limits.memory_bytes // 1024}; "
            f'ulimit -v {ADDRESS_SPACE_BYTES // 1024}; exec "$@"',
            "bash",
        ]

    async def end_session(self, session_id: str) -> None:
        await asyncio.gather(self._children.end(session_id), self._conversations.end(session_id))

    async def aclose(self) -> None:
        await asyncio.gather(self._children.aclose(), self._conversations.aclose())
        await self._watch.aclose()


@contextlib.asynccontextmanager
async def _folder_of(workspace: Workspace | None) -> AsyncGenerator[tuple[int, str], None]:
    """An open handle of the folder to start in, and its path. Without a workspace it is a new one: remove it."""
    if workspace is None:
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="turnwire-")
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield handle, folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            os.close(handle)
        return
    async with opened_mounts(workspace) as mounts:
        own = [mount for mount in mounts if mount.at == WORKSPACE]  # skills are read by the file tools
        if [(mount.parts, mount.writable) for mount in own] != [((), True)]:
            raise SandboxError("This session's file_access can't be kept without a sandbox, so no command is run.")
        yield own[0].fd, _path_of(own[0].fd)


def _path_of(folder: int) -> str:
    return str(Path(f"/proc/self/fd/{folder}").readlink())
