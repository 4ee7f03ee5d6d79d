"""Programs that are talked with, in the sandbox and without one, as each kind of user."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes.helpers import Machine
from turnwire.sandboxes import limits
from turnwire.sandboxes.host import NoSandbox
from turnwire.sandboxes.limits import Limits
from turnwire.seams.sandbox import Command, Conversation, Sandbox, SandboxError
from turnwire.seams.workspace import FileAccess
from turnwire.workspaces.directory import DirectoryWorkspace

pytestmark = pytest.mark.tool("bwrap")

Talk = Callable[[Conversation, bytearray], Awaitable[Any]]


def command(workspace: Path | None, script: str, **more: Any) -> Command:
    return Command(
        argv=("bash", "-c", script),
        tenant="default",
        session_id="sess_000000000001",
        workspace=None if workspace is None else DirectoryWorkspace(workspace, FileAccess()),
        **more,
    )


def talk(box: Machine, work: Talk, script: str, *, workspace: bool = True, **more: Any) -> Any:
    """What `work` gives, of a program in the sandbox, with what it writes to stderr; it is ended afterwards."""
    limited = {key: more.pop(key) for key in list(more) if key in Limits.__struct_fields__}

    async def run() -> Any:
        sandbox = box.sandbox(**limited)
        try:
            return await talking(sandbox, command(box.workspace if workspace else None, script, **more), work)
        finally:
            await sandbox.aclose()

    return box.as_user(run)


async def talking(sandbox: Sandbox, what: Command, work: Talk) -> Any:
    errors = bytearray()
    async with asyncio.timeout(20):
        conversation = await sandbox.converse(what, errors.extend)
        try:
            return await work(conversation, errors)
        finally:
            conversation.kill()
            await conversation.wait()


async def rest(conversation: Conversation) -> bytes:
    found = bytearray()
    while data := await conversation.read():
        found += data
    return bytes(found)


async def said(conversation: Conversation, errors: bytearray) -> tuple[bytes, bytes, int]:
    conversation.close_input()
    written = await rest(conversation)
    ending = await conversation.wait()
    return written, bytes(errors), ending.exit_code


def test_it_is_asked_and_answers(box: Machine) -> None:
    async def work(conversation: Conversation, errors: bytearray) -> list[bytes]:
        answers: list[bytes] = []
        for word in (b"one\n", b"two\n"):
            await conversation.write(word)
            answers.append(await conversation.read())
        conversation.close_input()
        ending = await conversation.wait()
        return [*answers, await rest(conversation), bytes(errors), str(ending.exit_code).encode()]

    script = 'while read -r word; do echo "got $word"; done; echo over; echo trouble >&2; exit 3'

    assert talk(box, work, script) == [b"got one\n", b"got two\n", b"over\n", b"trouble\n", b"3"]


def test_it_sees_its_session_s_workspace_and_nothing_of_the_server(box: Machine) -> None:
    (box.workspace / "file").write_text("mine")
    script = f"pwd; cat file; cat {box.data}/key {box.other}/theirs; env | grep TURNWIRE"
    written, errors, code = talk(box, said, script)

    assert written == b"/workspace\nmine"
    assert errors.count(b"No such file") == 2
    assert box.secret.encode() not in written + errors
    assert code == 1


def test_without_a_workspace_it_has_an_empty_folder_of_its_own(box: Machine) -> None:
    written, errors, code = talk(box, said, "pwd; ls -A; echo x > made; ls -A", workspace=False)

    assert (written, errors, code) == (b"/workspace\nmade\n", b"", 0)
    assert not (box.workspace / "made").exists()


def test_its_variables_and_paths_are_its_own(box: Machine, tmp_path: Path) -> None:
    script = 'echo "$TOKEN"; own; tr "\\0" "\\n" < /proc/1/cmdline | grep -c "s3[c]ret"'
    programs = box.data.parent / "own-programs" / "bin"
    programs.mkdir(parents=True)
    (programs / "own").write_text("#!/bin/sh\necho own program\n")
    (programs / "own").chmod(0o755)
    for path in (programs.parent, programs):
        path.chmod(0o755)

    written, _, _ = talk(box, said, script, env={"TOKEN": "s3cret"}, paths=[programs.parent])

    assert written == b"s3cret\nown program\n0\n"


@pytest.mark.parametrize("workspace", [True, False])
def test_the_data_folder_stays_hidden_in_a_path_that_is_shown(box: Machine, workspace: bool) -> None:
    async def work() -> tuple[bytes, bytes, int]:
        from turnwire.sandboxes.bubblewrap import Bubblewrap

        sandbox = Bubblewrap(Limits(), programs=[(box.bwrap, "a copy")], hidden=[box.data])
        where = box.workspace if workspace else None
        what = command(where, f"ls -A {box.data}; cat {box.data}/key", paths=[box.data.parent])
        try:
            return await talking(sandbox, what, said)
        finally:
            await sandbox.aclose()

    written, errors, _ = box.as_user(work)

    assert written == b""
    assert b"No such file" in errors


def test_what_nobody_reads_waits_in_the_program(box: Machine) -> None:
    async def work(conversation: Conversation, errors: bytearray) -> tuple[int, int]:
        await asyncio.sleep(0.3)
        before = int(bytes(errors).split()[-1])
        got = len(await rest(conversation))
        return before, got

    script = "for n in {1..64}; do head -c 65536 /dev/zero; echo $n >&2; done"
    before, got = talk(box, work, script)

    assert before <= 16
    assert got == 64 * 65536


def test_what_the_program_does_not_read_waits_here(box: Machine) -> None:
    async def work(conversation: Conversation, errors: bytearray) -> bytes:
        writing = asyncio.ensure_future(conversation.write(bytes(4 * 1024 * 1024)))
        await asyncio.sleep(0.3)
        assert not writing.done()
        await asyncio.gather(writing, asyncio.to_thread(lambda: None))
        conversation.close_input()
        return await rest(conversation)

    assert talk(box, work, "sleep 0.6; wc -c").strip() == str(4 * 1024 * 1024).encode()


def test_its_end_is_told_to_who_reads_and_to_who_writes(box: Machine) -> None:
    async def work(conversation: Conversation, errors: bytearray) -> tuple[bytes, str]:
        reading = asyncio.ensure_future(conversation.read())
        writing = asyncio.ensure_future(conversation.write(bytes(4 * 1024 * 1024)))
        await asyncio.sleep(0.2)
        conversation.kill()
        with pytest.raises(SandboxError) as refused:
            await writing
        with pytest.raises(SandboxError):
            await conversation.write(b"more")
        return await reading, str(refused.value)

    assert talk(box, work, "sleep 30")[0] == b""


def test_what_it_wrote_last_is_read_after_its_end(box: Machine) -> None:
    async def work(conversation: Conversation, errors: bytearray) -> bytes:
        await conversation.wait()
        return await rest(conversation)

    assert talk(box, work, "head -c 60000 /dev/zero") == bytes(60000)


def test_cpu_time_is_not_limited_but_memory_and_file_size_are(box: Machine) -> None:
    limited = {"cpu_s": 1, "memory_bytes": 256 * limits.MiB, "file_bytes": limits.MiB, "processes": 30}

    assert talk(box, said, "ulimit -t; ulimit -d; ulimit -f; ulimit -u", **limited)[0].split() == [
        b"unlimited",
        b"262144",
        b"1024",
        b"30",
    ]


def test_it_ends_with_its_session_and_apart_from_commands_in_number(box: Machine) -> None:
    async def work() -> tuple[int, str]:
        sandbox = box.sandbox()
        what = command(box.workspace, "cat")
        started = [await sandbox.converse(what, bytearray().extend) for _ in range(limits.SESSION_CONVERSATIONS_MAX)]
        with pytest.raises(SandboxError) as refused:
            await sandbox.converse(what, bytearray().extend)
        (await sandbox.start(command(box.workspace, "true", wall_s=5), bytearray().extend)).kill()
        await sandbox.end_session("sess_000000000001")
        ended = sum(one.ending is not None for one in started)
        await sandbox.aclose()
        return ended, str(refused.value)

    assert box.as_user(work) == (
        limits.SESSION_CONVERSATIONS_MAX,
        "Too many programs of this session run at once: wait for some, or stop them.",
    )


async def test_without_a_sandbox_it_is_the_same_but_for_what_it_sees(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    sandbox = NoSandbox(Limits(cpu_s=7))
    try:
        there = await talking(
            sandbox, command(tmp_path, 'cat file; ulimit -t; echo "$TOKEN"', env={"TOKEN": "t"}), said
        )
        where, _, _ = await talking(sandbox, command(None, "pwd; ls -A"), said)
    finally:
        await sandbox.aclose()

    assert there == (b"mineunlimited\nt\n", b"", 0)
    assert not Path(where.decode().strip()).exists()
