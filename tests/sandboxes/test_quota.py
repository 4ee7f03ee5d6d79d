"""A workspace's quota while commands run in it, in the real sandbox: whoever goes over is ended, whoever deletes is
not, and looking costs little."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes.helpers import Machine, Ran
from turnwire.sandboxes.bubblewrap import Bubblewrap
from turnwire.seams.sandbox import Command
from turnwire.seams.workspace import FileAccess, NoSpace, Usage
from turnwire.workspaces.directory import DirectoryWorkspace
from turnwire.workspaces.quota import EARLY_AFTER, FRESH_FOR, Account, Quota

pytestmark = pytest.mark.tool("bwrap")

MB = 1_000_000


async def bash(sandbox: Bubblewrap, workspace: DirectoryWorkspace, script: str) -> Ran:
    output = bytearray()
    command = Command(argv=("bash", "-c", script), tenant="t", session_id="s", workspace=workspace, wall_s=15.0)
    running = await sandbox.start(command, output.extend)
    ending = await running.wait()
    return Ran(output.decode("utf-8", "replace"), ending)


def with_quota(
    box: Machine,
    quota: Quota,
    work: Callable[[Any, DirectoryWorkspace], Awaitable[Any]],
    of: type[Account] = Account,
) -> Any:
    """Do something as the server's user: `work` is given bash, and the workspace."""

    async def run() -> Any:
        sandbox = box.sandbox()
        account = of(box.workspace, quota)
        workspace = DirectoryWorkspace(box.workspace, FileAccess(), account=account)
        try:
            return await work(lambda script: bash(sandbox, workspace, script), workspace)
        finally:
            await sandbox.aclose()

    return box.as_user(run)


def test_a_command_that_fills_the_workspace_is_ended_and_deleting_is_not(box: Machine) -> None:
    async def work(bash: Any, workspace: DirectoryWorkspace) -> list[Any]:
        filled = await bash("head -c 3M /dev/zero > a; head -c 3M /dev/zero > b; sleep 10; echo never")
        with pytest.raises(NoSpace):
            workspace.put("c", bytes_max=10, bytes_expected=10)
        looked = await bash("ls; sleep 1.5; echo there")
        added = await bash("head -c 1M /dev/zero > c; sleep 10")
        deleted = await bash("rm a b c; sleep 1.5; echo gone")
        again = await bash("head -c 1M /dev/zero > a; sleep 1.5; echo fits")
        return [filled, looked, added, deleted, again]

    filled, looked, added, deleted, again = with_quota(box, Quota(bytes_max=4 * MB), work)

    assert (filled.ending.stopped, filled.ending.exit_code, filled.output) == ("quota", 137, "")
    assert (looked.ending.stopped, looked.output) == (None, "a\nb\nthere\n")
    assert added.ending.stopped == "quota"
    assert (deleted.ending.stopped, deleted.output) == (None, "gone\n")
    assert (again.ending.stopped, again.output) == (None, "fits\n")


def test_a_workspace_that_is_deleted_under_its_command_leaves_the_others_watched(box: Machine) -> None:
    async def run() -> tuple[Ran, Ran]:
        sandbox = box.sandbox()
        gone, stays = box.workspace / "gone", box.workspace / "stays"
        made: list[DirectoryWorkspace] = []
        for folder in (gone, stays):
            folder.mkdir()
            made.append(DirectoryWorkspace(folder, FileAccess(), account=Account(folder, Quota(bytes_max=MB))))
        try:
            running = asyncio.create_task(bash(sandbox, made[0], "sleep 2"))
            await asyncio.sleep(0.3)
            gone.rmdir()
            return await bash(sandbox, made[1], "sleep 1; head -c 3M /dev/zero > a; sleep 10"), await running
        finally:
            await sandbox.aclose()

    filled, left = box.as_user(run)

    assert filled.ending.stopped == "quota"
    assert left.ending.stopped is None


@pytest.mark.parametrize(
    "script", ["for i in {1..300}; do : > f$i; done; sleep 10", "truncate -s 900M sparse; sleep 10"]
)
def test_many_files_and_sparse_ones_count_too(script: str, box: Machine) -> None:
    async def work(bash: Any, workspace: DirectoryWorkspace) -> Any:
        return await bash(script)

    assert with_quota(box, Quota(bytes_max=100 * MB, files_max=100), work).ending.stopped == "quota"


class SlowAccount(Account):
    """As under load, or with many files."""

    def look(self) -> Usage:
        time.sleep(0.5)
        return super().look()


def test_what_a_command_writes_at_once_is_not_what_was_there_before_it(box: Machine) -> None:
    async def work(bash: Any, workspace: DirectoryWorkspace) -> Any:
        return await bash("truncate -s 900M sparse; sleep 10")

    assert with_quota(box, Quota(bytes_max=100 * MB), work, SlowAccount).ending.stopped == "quota"


def test_what_a_neighbour_fills_ends_nobody_here(box: Machine) -> None:
    async def work(bash: Any, workspace: DirectoryWorkspace) -> Any:
        other = box.other / "large"
        ran = asyncio.create_task(bash("echo x > y; sleep 2; echo done"))
        await asyncio.sleep(0.3)
        other.write_bytes(bytes(20 * MB))
        return await ran

    ran = with_quota(box, Quota(bytes_max=4 * MB), work)
    assert (ran.ending.stopped, ran.output) == (None, "done\n")


def test_without_a_quota_nothing_is_looked_at(box: Machine) -> None:
    async def run() -> Any:
        return await bash(box.sandbox(), DirectoryWorkspace(box.workspace, FileAccess()), "head -c 9M /dev/zero > a")

    assert box.as_user(run).ending.stopped is None


def test_looking_takes_a_small_share_of_a_thread_however_often_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
        for number in range(200):
            (tmp_path / str(folder) / str(number)).touch()
    walks: list[float] = []
    import turnwire.workspaces.quota as quota

    real = quota.measure

    def timed(*arguments: Any) -> Any:
        begun = time.monotonic()
        found = real(*arguments)
        walks.append(time.monotonic() - begun)
        return found

    monkeypatch.setattr(quota, "measure", timed)
    account = Account(tmp_path, Quota(bytes_max=10**15, files_max=10**6))
    begun = time.monotonic()
    # On a slow machine the rest behind the first walk alone may take as long.
    while (took := time.monotonic() - begun) < max(1.5, 2 * (1 + FRESH_FOR) * (walks[0] if walks else 0)):
        assert account.look().files == 4020
        time.sleep(0.001)

    # Each walk is followed by a rest of twenty times its length; the last one's may not be over yet.
    assert len(walks) >= 2
    assert sum(walks[:-1]) * (1 + FRESH_FOR) <= took * 1.05


def test_a_disk_that_has_lost_the_room_is_a_reason_to_look_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import turnwire.workspaces.quota as quota

    now, left = [1000.0], [10**9]
    monkeypatch.setattr(quota.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(quota, "_left_on_disk", lambda _: quota.Usage(left[0], 10**6))

    def walk(*_: Any) -> Any:
        now[0] += 1.0
        return quota.Usage(sum(file.stat().st_size for file in tmp_path.iterdir()), 1)

    monkeypatch.setattr(quota, "measure", walk)
    account = Account(tmp_path, Quota(bytes_max=4 * MB))
    assert account.known() is None
    assert account.look().bytes == 0
    (tmp_path / "a").write_bytes(bytes(5 * MB))

    now[0] += EARLY_AFTER + 0.5
    assert account.look().bytes == 0  # the disk says that it can't be full
    left[0] -= 5 * MB
    assert account.look().bytes == 5 * MB
    os.truncate(tmp_path / "a", 0)
    left[0] += 5 * MB
    now[0] += FRESH_FOR - 0.5
    assert account.look().bytes == 5 * MB
    now[0] += 1
    assert account.look().bytes == 0
