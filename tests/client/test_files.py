"""Files and skills through the client, against a real server."""

import io
import os
import threading
import zipfile
from pathlib import Path

import pytest

from turnwire import (
    AsyncClient,
    Client,
    ClientError,
    Conflict,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    Session,
)

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def session(tw: Client) -> Session:
    return tw.sessions.create(workspace="private")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "here.bin"
    path.write_bytes(CONTENT)
    return path


def test_a_local_file_goes_up_and_comes_down(session: Session, local: Path, tmp_path: Path) -> None:
    up: list[tuple[int, int | None]] = []
    down: list[tuple[int, int | None]] = []

    written = session.files.upload(local, progress=lambda *told: up.append(told))
    target = session.files.download("here.bin", tmp_path / "copy.bin", progress=lambda *told: down.append(told))

    assert (written.path, written.size) == ("here.bin", len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert up[-1] == down[-1] == (len(CONTENT), len(CONTENT))
    assert len(up) > 2 < len(down)


def test_bytes_and_open_files_are_uploaded(session: Session, local: Path) -> None:
    session.files.upload(b"abc", "notes/ä b%2F#?.txt")
    with local.open("rb") as file:
        file.seek(1000)
        assert session.files.upload(file, "rest.bin").size == len(CONTENT) - 1000
        assert not file.closed
    session.files.upload(io.BytesIO(b"xyz"), "memory.bin")

    assert session.files.read("notes/ä b%2F#?.txt") == b"abc"
    assert session.files.read("memory.bin") == b"xyz"
    assert [(file.type, file.name) for file in session.files.list()] == [
        ("file", "memory.bin"),
        ("directory", "notes"),
        ("file", "rest.bin"),
    ]
    assert [file.name for file in session.files.list("notes")] == ["ä b%2F#?.txt"]


def test_an_empty_file_is_a_file(session: Session) -> None:
    session.files.upload(b"", "empty")

    assert session.files.read("empty") == b""


def test_bytes_need_a_name(session: Session) -> None:
    with pytest.raises(ValueError, match="say where"):
        session.files.upload(b"abc")


def test_a_file_can_be_kept_from_being_overwritten(session: Session) -> None:
    session.files.upload(b"1", "a")

    with pytest.raises(PreconditionFailed):
        session.files.upload(b"2", "a", overwrite=False)
    session.files.upload(b"3", "a")
    assert session.files.read("a") == b"3"


def test_a_download_goes_into_a_folder_by_its_name(session: Session, tmp_path: Path) -> None:
    session.files.upload(b"1", "deep/a.txt")

    assert session.files.download("deep/a.txt", tmp_path) == tmp_path / "a.txt"


def test_a_download_that_fails_leaves_the_old_file(session: Session, tmp_path: Path) -> None:
    old = tmp_path / "a.txt"
    old.write_text("old")

    with pytest.raises(NotFound):
        session.files.download("a.txt", old)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert old.read_text() == "old"


def test_a_progress_hook_may_stop_a_transfer(session: Session, local: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        session.files.upload(local, "stopped.bin", progress=stop)
    session.files.upload(local)
    with pytest.raises(InterruptedError):
        session.files.download("here.bin", tmp_path / "copy.bin", progress=stop)

    assert [file.name for file in session.files.list()] == ["here.bin"]
    assert [path.name for path in tmp_path.iterdir()] == ["here.bin"]


def test_a_folder_is_no_file_to_read(session: Session, tmp_path: Path) -> None:
    session.files.upload(b"1", "deep/a.txt")

    with pytest.raises(ClientError, match="'deep' is a folder"):
        session.files.download("deep", tmp_path / "deep")


def test_a_file_that_holds_json_is_read(session: Session) -> None:
    session.files.upload(b'[{"name": "x"}]', "list.json")

    assert session.files.read("list.json") == b'[{"name": "x"}]'


def test_a_folder_and_the_workspace_come_as_zips(session: Session, tmp_path: Path) -> None:
    session.files.upload(b"1", "deep/a.txt")

    folder = session.files.zip("deep", tmp_path)
    whole = session.files.zip(to=tmp_path)
    assert (folder.name, whole.name) == ("deep.zip", "workspace.zip")
    assert zipfile.ZipFile(whole).read("deep/a.txt") == b"1"


def test_files_are_deleted(session: Session) -> None:
    session.files.upload(b"1", "deep/a.txt")

    with pytest.raises(Conflict):
        session.files.delete("deep")
    session.files.delete("deep/a.txt")
    session.files.delete("deep")
    assert list(session.files.list()) == []
    with pytest.raises(NotFound):
        session.files.delete("deep")


@pytest.mark.parametrize("path", ["", "/", ".", "..", "a/../../b", "a/./b", "../../../skills"])
def test_paths_that_an_http_library_would_fold_are_refused(session: Session, path: str) -> None:
    for use in (session.files.delete, session.files.read):
        with pytest.raises(ValueError, match="no path of a file"):
            use(path)


@pytest.mark.parametrize("session_id", ["", ".", "..", "../x", "a/b", "sess_1?x", "ä"])
def test_ids_that_are_none_are_refused(tw: Client, session_id: str) -> None:
    for use in (tw.sessions.get, tw.sessions.delete):
        with pytest.raises(ValueError, match="no id of a session"):
            use(session_id)


@pytest.mark.parametrize("name", ["", ".", "..", "../sessions"])
def test_skills_without_a_name_are_refused(tw: Client, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a skill"):
        tw.skills.remove(name)


def test_transfers_of_many_threads_do_not_mix(session: Session) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        content = bytes([number]) * 300_000
        session.files.upload(content, f"{number}.bin")
        if session.files.read(f"{number}.bin") != content:
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


async def test_the_asynchronous_client_transfers_too(atw: AsyncClient, local: Path, tmp_path: Path) -> None:
    session = await atw.sessions.create(workspace="private")
    told: list[int] = []

    await session.files.upload(local, progress=lambda done, total: told.append(done))
    await session.files.upload(io.BytesIO(b"xyz"), "deep/memory.bin")
    target = await session.files.download("here.bin", tmp_path / "copy.bin")

    assert target.read_bytes() == CONTENT
    assert told[-1] == len(CONTENT)
    assert [file.name async for file in session.files.list()] == ["deep", "here.bin"]
    assert await session.files.read("deep/memory.bin") == b"xyz"
    assert (await session.files.zip("deep", tmp_path)).name == "deep.zip"
    assert b"".join([piece async for piece in session.files.stream("here.bin")]) == CONTENT
    await session.files.delete("here.bin")


SKILL = "---\nname: greeting\ndescription: How to greet.\n---\nSay hello.\n"


def skill_zip(text: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("SKILL.md", text)
    return made.getvalue()


def test_skills_are_installed_listed_and_removed(tw: Client) -> None:
    installed = tw.skills.install("greeting", skill_zip(SKILL))

    assert (installed.name, installed.description) == ("greeting", "How to greet.")
    assert "greeting" in [skill.name for skill in tw.skills.list()]
    with pytest.raises(InvalidRequest):
        tw.skills.install("greeting", skill_zip("nothing"))
    tw.skills.remove("greeting")
    with pytest.raises(NotFound):
        tw.skills.remove("greeting")


async def test_skills_are_installed_asynchronously(atw: AsyncClient) -> None:
    assert (await atw.skills.install("greeting", skill_zip(SKILL))).size > 0
    assert "greeting" in [skill.name for skill in await atw.skills.list()]
    await atw.skills.remove("greeting")


def test_sessions_are_made_changed_and_deleted(tw: Client) -> None:
    session = tw.sessions.create(
        persistent=True,
        ttl=1000,
        metadata={"a": 1, "b": {"c": None}},
        file_access={"read": ["pub"], "write": []},
        model="demo",
        instructions="Be brief.",
    )
    record = session.record
    assert (record.persistent, record.ttl, record.model) == (True, 1000, "demo")
    assert record.file_access == {"read": ["pub"], "write": []}

    session.update(metadata={"a": None, "d": 2}, ttl=2000, model=None)
    assert session.refresh().metadata == {"b": {"c": None}, "d": 2}
    assert (session.record.ttl, session.record.model) == (2000, None)
    session.delete()
    with pytest.raises(NotFound):
        session.refresh()
    tw.sessions.delete(tw.sessions.create().id)


def test_idle_sessions_are_deleted_in_one(tw: Client) -> None:
    session = tw.sessions.create()

    assert tw.sessions.delete_many(status="idle") > 0
    with pytest.raises(NotFound):
        session.refresh()


def test_a_file_that_is_open_as_text_is_refused(session: Session, local: Path) -> None:
    with local.open() as file, pytest.raises(TypeError, match="binary mode"):
        session.files.upload(file, "a")  # type: ignore[arg-type]


def test_a_pipe_is_uploaded(session: Session) -> None:
    reader, writer = os.pipe()
    threading.Thread(target=lambda: (os.write(writer, b"from a pipe"), os.close(writer))).start()
    with open(reader, "rb") as file:  # noqa: PTH123
        session.files.upload(file, "piped")

    assert session.files.read("piped") == b"from a pipe"


def test_a_file_that_shrinks_while_it_is_sent_is_said(session: Session, local: Path) -> None:
    def shrink(done: int, total: int | None) -> None:
        os.truncate(local, done)

    with pytest.raises(ClientError, match="was changed while it was sent: 262144 of 1024000"):
        session.files.upload(local, progress=shrink)
    assert list(session.files.list()) == []


def test_a_file_that_grows_while_it_is_sent_is_sent_as_it_was(session: Session, local: Path) -> None:
    def grow(done: int, total: int | None) -> None:
        with local.open("ab") as file:
            file.write(b"more" * 1000)

    assert session.files.upload(local, progress=grow).size == len(CONTENT)
    assert session.files.read("here.bin") == CONTENT
