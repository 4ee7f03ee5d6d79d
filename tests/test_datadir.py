"""The data folder: made, held, and home of the key."""

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from turnwire.datadir import DataDir, StartRefused, holder

HOLD = """
import sys, time
from pathlib import Path
from turnwire.datadir import DataDir
data = DataDir.open(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_and_the_key_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with DataDir.open(tmp_path / "a" / "b") as data:
            data.key()
    finally:
        os.umask(old)

    assert mode(tmp_path / "a" / "b") == 0o700
    assert mode(data.key_file) == 0o600
    assert sorted(path.name for path in data.path.iterdir()) == ["key", "lock"]


def test_the_key_is_made_once(tmp_path: Path) -> None:
    with DataDir.open(tmp_path / "d") as data:
        assert data.read_key() is None
        first, was_new = data.key()
    with DataDir.open(tmp_path / "d") as data:
        again = data.key()

    assert re.fullmatch(r"tw_default_[A-Za-z0-9_-]{43}", first) and was_new
    assert again == (first, False)


def test_a_folder_that_is_held_is_refused_with_the_holders_pid(tmp_path: Path) -> None:
    with DataDir.open(tmp_path / "d"):
        with pytest.raises(StartRefused, match=rf"in use by another server \(pid {os.getpid()}\)") as caught:
            DataDir.open(tmp_path / "d")
        assert holder(tmp_path / "d") == os.getpid()

    assert caught.value.exit_code == 1
    assert holder(tmp_path / "d") is None
    DataDir.open(tmp_path / "d").close()


def test_a_server_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "d"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert holder(tmp_path / "d") == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()

        with DataDir.open(tmp_path / "d"):
            assert holder(tmp_path / "d") == os.getpid()


def test_a_child_that_outlives_the_server_does_not_hold_the_folder(tmp_path: Path) -> None:
    data = DataDir.open(tmp_path / "d")
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            data.close()

            assert holder(tmp_path / "d") is None
        finally:
            child.kill()


def test_looking_for_the_holder_makes_nothing(tmp_path: Path) -> None:
    assert holder(tmp_path / "d") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["file/d", "file", "/proc/turnwire"])
def test_a_folder_that_cannot_be_made_is_one_sentence(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartRefused, match=r"The data folder .* can't be used .*: choose another with --data-dir"):
        DataDir.open(tmp_path / path)


@pytest.fixture
def somebody() -> Iterator[Path]:
    """A folder of one who is not root, whom the test runs as."""
    uid = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        if uid == 0:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(uid)


def test_a_folder_that_cannot_be_written_is_refused(somebody: Path) -> None:
    (somebody / "d").mkdir(mode=0o500)

    with pytest.raises(StartRefused, match="Permission denied"):
        DataDir.open(somebody / "d")


def test_a_key_file_that_cannot_be_read_is_refused(somebody: Path) -> None:
    with DataDir.open(somebody / "d") as data:
        data.key()
        data.key_file.chmod(0)

        with pytest.raises(StartRefused, match=r"can't be read, .* \(Permission denied\)"):
            data.key()


def test_others_rights_to_the_key_file_are_taken_away(tmp_path: Path) -> None:
    with DataDir.open(tmp_path / "d") as data:
        text, _ = data.key()
        data.key_file.chmod(0o644)

        assert data.key() == (text, False)
        assert mode(data.key_file) == 0o600


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"two\nlines", b"x" * 5000])
def test_a_key_file_without_a_key_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    with DataDir.open(tmp_path / "d") as data:
        data.key_file.write_bytes(content)

        with pytest.raises(StartRefused, match="remove it, then a new"):
            data.key()
        assert data.key_file.read_bytes() == content


def test_a_folder_in_place_of_the_key_file_is_refused(tmp_path: Path) -> None:
    with DataDir.open(tmp_path / "d") as data:
        data.key_file.mkdir()

        with pytest.raises(StartRefused, match="key"):
            data.key()


def test_a_key_of_ones_own_in_the_file_is_taken(tmp_path: Path) -> None:
    with DataDir.open(tmp_path / "d") as data:
        data.key_file.write_text("my own key\n")

        assert data.key() == ("my own key", False)


def test_a_folder_on_a_full_disk_is_held_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)

    with DataDir.open(tmp_path), pytest.raises(StartRefused, match="in use by another server"):
        DataDir.open(tmp_path)
