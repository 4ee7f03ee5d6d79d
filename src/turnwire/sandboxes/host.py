"""Commands without a sandbox, as the server's own user: only where the setting `sandbox = "none"` asks for it.

For machines that are sandboxes themselves, such as a container for one agent. A command can read and do all that the
server can. Its environment is made from nothing, and the limits of the kernel hold; what it leaves behind in its own
process group ends with it, what has left the group does not.
"""

import os
import shutil
from pathlib import Path

from turnwire.sandboxes.children import Children, spawn
from turnwire.sandboxes.layout import WORKSPACE
from turnwire.sandboxes.limits import ADDRESS_SPACE_BYTES, OPEN_FILES_MAX, Limits
from turnwire.sandboxes.mounts import opened_mounts
from turnwire.sandboxes.watch import Watch
from turnwire.seams.sandbox import Command, Running, SandboxError, Sink, Status

WARNING = (
    "Commands run without a sandbox (TURNWIRE_SANDBOX=none): an agent can read and do all that this server's user may, "
    "the server's database and keys included."
)


class NoSandbox:
    """`turnwire.seams.sandbox.Sandbox`, by trust alone."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        self._children = Children()
        self._watch = Watch(limits.memory_bytes)
        if shutil.which("bash") is None:
            self.status = Status("none", "There is no bash.", "install bash.")
        else:
            self.status = Status("none", warnings=(WARNING,))

    async def start(self, command: Command, sink: Sink) -> Running:
        if not self.status.available:
            raise SandboxError(self.status.reason)
        with self._children.place(command.session_id):
            return await self._start(command, sink)

    async def _start(self, command: Command, sink: Sink) -> Running:
        async with opened_mounts(command.workspace) as mounts:
            own = [mount for mount in mounts if mount.at == WORKSPACE]  # skills are read by the file tools
            if [(mount.parts, mount.writable) for mount in own] != [((), True)]:
                raise SandboxError("This session's file_access can't be kept without a sandbox, so no command is run.")
            workspace = own[0].fd
            folder = _path_of(workspace)
            process = spawn(
                [*self._limiting_shell(), *command.argv],
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "HOME": folder,
                    "LANG": "C.UTF-8",
                    "TERM": "dumb",
                    "PYTHONUNBUFFERED": "1",
                },
                cwd=folder,
            )
            child = self._children.adopt(process, sink, session_id=command.session_id, wall_s=command.wall_s)
            self._watch.add(child, [workspace])
            return child

    def _limiting_shell(self) -> list[str]:
        """Without a limit of processes: here it would count all of this user's, the server's own included."""
        limits = self._limits
        return [
            "bash",
            "-c",
            f"umask 022; ulimit -c 0; ulimit -n {OPEN_FILES_MAX}; ulimit -t {limits.cpu_s}; "
            f"ulimit -f {limits.file_bytes // 1024}; ulimit -d {limits.memory_bytes // 1024}; "
            f'ulimit -v {ADDRESS_SPACE_BYTES // 1024}; exec "$@"',
            "bash",
        ]

    async def end_session(self, session_id: str) -> None:
        await self._children.end(session_id)

    async def aclose(self) -> None:
        await self._children.aclose()
        await self._watch.aclose()


def _path_of(folder: int) -> str:
    return str(Path(f"/proc/self/fd/{folder}").readlink())
