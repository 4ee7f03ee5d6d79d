"""Directories as workspaces, by `openat2` and by the walk that stands in for it: the same promises."""

import contextlib
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from turnwire.seams.workspace import (
    AccessDenied,
    Changed,
    FileAccess,
    InvalidPath,
    NotAFile,
    NotAFolder,
    NotEmpty,
    NotFound,
    OutsideWorkspace,
    Parts,
    Scope,
    TooLarge,
    WorkspaceError,
    lexical,
    parse_path,
    show,
)
from turnwire.workspaces import resolve
from turnwire.workspaces.directory import DirectoryWorkspace, DirectoryWorkspaces

Make = Callable[..., DirectoryWorkspace]


@pytest.fixture(params=["openat2", "walk"])
def fast(request: pytest.FixtureRequest) -> bool:
    if request.param == "openat2" and resolve.openat2 is None:
        pytest.skip("openat2: this kernel has no such call")
    return request.param == "openat2"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    return root


@pytest.fixture
def make(root: Path, fast: bool) -> Make:
    def make(read: list[str] | None = None, write: list[str] | None = None) -> DirectoryWorkspace:
        lists = {key: value for key, value in (("read", read), ("write", write)) if value is not None}
        return DirectoryWorkspace(root, FileAccess.parse(lists or None), openat2=fast)

    return make


@pytest.fixture
def files(make: Make) -> DirectoryWorkspace:
    return make()


@pytest.fixture(autouse=True)
def no_handle_leaks() -> Iterator[None]:
    if not Path("/proc/self/fd").exists():
        yield
        return
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    yield
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def read(files: DirectoryWorkspace, path: str) -> bytes:
    with files.open(path) as file:
        return file.stream.read()


def write(files: DirectoryWorkspace, path: str, data: bytes = b"new", bytes_max: int = 1000) -> bool:
    with files.put(path, bytes_max=bytes_max) as upload:
        upload.write(data)
        return upload.commit()[1]


def names(files: DirectoryWorkspace, path: str = "") -> list[str]:
    return [entry.name for entry in files.list(path, entries_max=100).entries]


# ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_made_with_its_folders_described_listed_replaced_and_deleted(files: DirectoryWorkspace) -> None:
    with files.put("a/b/c.txt", bytes_max=10) as upload:
        upload.write(b"01234")
        upload.write(memoryview(b"56789"))
        entry, new = upload.commit()

    assert (entry.path, entry.name, entry.type, entry.size, new) == ("a/b/c.txt", "c.txt", "file", 10, True)
    assert abs(entry.modified - time.time()) < 60
    assert files.stat("a/b/c.txt") == entry
    assert files.list("a/b", entries_max=10).entries == [entry]
    assert files.stat("a").type == "directory"
    assert files.stat("").path == ""
    assert read(files, "./a//b/../b/c.txt") == b"0123456789"
    assert write(files, "a/b/c.txt", b"other") is False
    assert files.stat("a/b/c.txt").etag != entry.etag
    files.delete("a/b/c.txt")
    with pytest.raises(NotFound):
        files.open("a/b/c.txt")
    files.delete("a/b")
    files.delete("a")
    assert names(files) == []


def test_what_was_opened_stays_what_it_was_while_it_is_replaced(files: DirectoryWorkspace) -> None:
    write(files, "a", b"before")

    with files.open("a") as file:
        write(files, "a", b"after!")
        assert file.stream.read() == b"before"
    assert read(files, "a") == b"after!"


def test_nobody_sees_a_file_before_it_is_whole(root: Path, files: DirectoryWorkspace) -> None:
    with files.put("a", bytes_max=10) as upload:
        upload.write(b"half")
        assert names(files) == []
        assert len(list(root.iterdir())) == 1
        with pytest.raises(NotFound):
            files.open("a")
        upload.commit()

    assert names(files) == ["a"]


def test_an_upload_that_fails_leaves_no_trace(root: Path, files: DirectoryWorkspace) -> None:
    write(files, "kept/a", b"old")

    with pytest.raises(TooLarge), files.put("kept/a", bytes_max=5) as upload:
        upload.write(b"123")
        upload.write(b"456")
    with pytest.raises(ZeroDivisionError), files.put("made/by/it/a", bytes_max=5) as upload:
        raise ZeroDivisionError
    files.put("dropped/a", bytes_max=5).abort()

    assert [path.name for path in root.rglob("*")] == ["kept", "a"]
    assert read(files, "kept/a") == b"old"


def test_a_write_that_expects_a_version_is_refused_when_it_is_another(files: DirectoryWorkspace) -> None:
    write(files, "a", b"1")
    seen = files.stat("a").etag

    with pytest.raises(Changed), files.put("a", bytes_max=9, expected_etag="") as upload:
        upload.commit()
    with files.put("a", bytes_max=9, expected_etag=seen) as upload:
        upload.write(b"22")
        upload.commit()
    with pytest.raises(Changed), files.put("a", bytes_max=9, expected_etag=seen) as upload:
        upload.commit()
    assert read(files, "a") == b"22"


@pytest.mark.slow
def test_of_changes_at_once_that_expect_the_same_version_one_is_made(files: DirectoryWorkspace) -> None:
    for round in range(150):
        write(files, "a", b"%d" % round)
        seen, start, made = files.stat("a").etag, threading.Barrier(5), list[int]()

        def change(number: int, seen: str = seen, start: threading.Barrier = start, made: list[int] = made) -> None:
            with contextlib.suppress(Changed, NotFound), files.put("a", bytes_max=9, expected_etag=seen) as upload:
                upload.write(b"by %d" % number)
                start.wait()
                if number:
                    upload.commit()
                else:
                    files.delete("a", expected_etag=seen)
                made.append(number)

        threads = [threading.Thread(target=change, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(made) == 1
        assert made == [0] or read(files, "a") == b"by %d" % made[0]


def test_permissions_are_kept_but_for_set_user_id(root: Path, files: DirectoryWorkspace) -> None:
    (root / "a").touch()
    (root / "a").chmod(0o4741)

    write(files, "a")

    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o741


@pytest.mark.skipif(os.geteuid() != 0, reason="root: only root can give files away")
def test_what_root_makes_belongs_to_whom_the_folder_belongs_to(root: Path, files: DirectoryWorkspace) -> None:
    os.chown(root, 64999, 64998)

    write(files, "a/b")

    for path in ("a", "a/b"):
        status = (root / path).stat()
        assert (status.st_uid, status.st_gid) == (64999, 64998)


def test_fsync_writes_the_same(root: Path) -> None:
    write(DirectoryWorkspace(root, FileAccess(), fsync=True), "a/b", b"durable")

    assert (root / "a/b").read_bytes() == b"durable"


def test_a_listing_stops_at_its_limit(files: DirectoryWorkspace) -> None:
    for name in "dbac":
        write(files, name)

    assert names(files) == ["a", "b", "c", "d"]
    assert files.list("", entries_max=4).complete
    listing = files.list("", entries_max=3)
    assert (len(listing.entries), listing.complete) == (3, False)


def test_links_that_stay_inside_are_followed(root: Path, files: DirectoryWorkspace) -> None:
    write(files, "d/e/a", b"a")
    for link, target in {
        "to_file": "d/e/a",
        "to_folder": "d/e",
        "d/up": "../d/e/a",
        "d/here": ".",
        "to_link": "d/up",
        "from_root": "/workspace/d/e",
        "from_other_root": "/opt/sandbox/workspace/d",
        "dangling": "d/new/file",
    }.items():
        (root / link).symlink_to(target)

    for path in (
        "to_file",
        "to_folder/a",
        "d/up",
        "d/here/e/a",
        "d/here/here/e/a",
        "to_link",
        "from_root/a",
        "from_other_root/e/a",
        "to_folder/../e/a",
    ):
        assert read(files, path) == b"a"
        assert files.stat(path).path == "d/e/a"
    assert names(files, "to_folder") == ["a"]
    assert names(files, "d/here") == ["e"]
    assert names(files) == ["d"]
    write(files, "to_file", b"through")
    assert (root / "to_file").is_symlink()
    assert read(files, "d/e/a") == b"through"
    write(files, "dangling", b"made")
    assert read(files, "d/new/file") == b"made"


def test_deleting_a_link_leaves_what_it_leads_to(root: Path, files: DirectoryWorkspace) -> None:
    write(files, "d/a")
    (root / "file").symlink_to("d/a")
    (root / "folder").symlink_to("d")
    (root / "dangling").symlink_to("nothing")

    for link in ("file", "folder", "dangling"):
        files.delete(link)

    assert [path.name for path in root.iterdir()] == ["d"]
    assert read(files, "d/a") == b"new"


def test_a_hard_link_is_a_file_like_any_other(root: Path, files: DirectoryWorkspace) -> None:
    write(files, "a", b"one")
    (root / "b").hardlink_to(root / "a")

    write(files, "b", b"two")

    assert (read(files, "a"), read(files, "b")) == (b"one", b"two")


# ── Not inside ─────────────────────────────────────────────────────────────────────────────────────────────────────

ESCAPES = [
    "..",
    "../outside/secret",
    "d/../../outside/secret",
    "/etc/passwd",
    "/workspace/../outside/secret",
    "//workspace/d",
    "/proc/self/root/etc/passwd",
    "etc/passwd",
    "file",
    "folder/secret",
    "absolute/secret",
    "chain1",
    "d/up/outside/secret",
    "up/outside/secret",
    "proc/self/root/etc/passwd",
    "proc/self/cwd",
    "fd",
    "inside_then_up/../../outside/secret",
    "from_root_up",
]


@pytest.fixture
def traps(root: Path) -> None:
    (root / "d/e").mkdir(parents=True)
    for link, target in {
        "etc": "/etc",
        "file": "../outside/secret",
        "folder": "../outside",
        "absolute": str(root.parent / "outside"),
        "chain1": "d/chain2",
        "d/chain2": "../d/e/chain3",
        "d/e/chain3": "../../folder/secret",
        "d/up": "../..",
        "up": "..",
        "proc": "/proc",
        "fd": "/proc/self/fd/0",
        "inside_then_up": "d/e",
        "from_root_up": "/workspace/../outside/secret",
    }.items():
        (root / link).symlink_to(target)


@pytest.mark.usefixtures("traps")
@pytest.mark.parametrize("path", ESCAPES)
def test_no_verb_leads_outside(root: Path, files: DirectoryWorkspace, path: str) -> None:
    for verb in (files.stat, files.open, files.delete):
        with pytest.raises(OutsideWorkspace):
            verb(path)
    with pytest.raises(OutsideWorkspace):
        files.list(path, entries_max=10)
    with pytest.raises(OutsideWorkspace):
        files.put(path, bytes_max=10)
    with pytest.raises(OutsideWorkspace):
        files.put(f"{path}/made/here", bytes_max=10)

    assert [path.name for path in (root.parent / "outside").iterdir()] == ["secret"]
    assert sorted(path.name for path in root.parent.iterdir()) == ["outside", "workspace"]


def test_links_in_a_circle_end(root: Path, files: DirectoryWorkspace) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    (root / "self").symlink_to("self/x")
    (root / "wide").symlink_to("/".join(["d/.."] * 600) + "/wide")
    (root / "d").mkdir()
    began = time.monotonic()

    for path in ("a", "self", "wide", "a/x"):
        with pytest.raises(NotFound):
            files.open(path)
        with pytest.raises(NotFound):
            files.put(path, bytes_max=1)
    assert time.monotonic() - began < 2


def test_what_is_no_file_is_never_opened_nor_listed(root: Path, files: DirectoryWorkspace) -> None:
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to("fifo")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root)  # A socket's path has to be short.
    try:
        listener.bind("socket")
    finally:
        os.chdir(here)
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero, which never ends
    specials = {path.name for path in root.iterdir()}

    for name in specials:
        with pytest.raises(NotAFile):
            files.open(name)
        with pytest.raises(NotAFile):
            files.stat(name)
        with pytest.raises(NotAFile):
            files.put(name, bytes_max=1)
        with pytest.raises(NotAFolder):
            files.list(name, entries_max=1)
    assert names(files) == []
    for name in specials:
        files.delete(name)
    assert list(root.iterdir()) == []
    listener.close()


@pytest.mark.parametrize(
    ("verb", "path", "error"),
    [
        ("open", "d", NotAFile),
        ("open", "", NotAFile),
        ("open", "none", NotFound),
        ("open", "none/deeper", NotFound),
        ("open", "a/below", NotAFolder),
        ("list", "a", NotAFolder),
        ("list", "none", NotFound),
        ("put", "d", NotAFile),
        ("put", "a/below", NotAFolder),
        ("put", "", InvalidPath),
        ("put", ".", InvalidPath),
        ("put", "d/..", InvalidPath),
        ("put", "new/", InvalidPath),
        ("delete", "", InvalidPath),
        ("delete", "/workspace", InvalidPath),
        ("delete", "d/..", InvalidPath),
        ("delete", "none", NotFound),
        ("delete", "none/x", NotFound),
        ("delete", "d", NotEmpty),
        ("open", "a\0", InvalidPath),
        ("open", "x" * 256, InvalidPath),
        ("put", "x" * 256, InvalidPath),
        ("put", "x" * 240, None),
        ("open", "x/" * 3000, InvalidPath),
        ("open", "\udcff", InvalidPath),
        ("open", "\\x00", InvalidPath),
        ("open", "\\x2e\\x2e/outside/secret", InvalidPath),
        ("open", "\\x2fetc", InvalidPath),
    ],
)
def test_each_verb_says_what_is_wrong(
    root: Path, files: DirectoryWorkspace, verb: str, path: str, error: type[WorkspaceError] | None
) -> None:
    (root / "d/e").mkdir(parents=True)
    (root / "a").write_text("a")
    extra = {"list": {"entries_max": 1}, "put": {"bytes_max": 1}}.get(verb, {})

    with contextlib.nullcontext() if error is None else pytest.raises(error) as caught:
        result = getattr(files, verb)(path, **extra)
        if verb == "put":
            result.abort()

    if error is not None:
        assert caught is not None
        assert caught.type is error
        assert str(caught.value).endswith(".")
    assert sorted(path.name for path in root.rglob("*")) == ["a", "d", "e"]


def test_permissions_forbid(fast: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:  # Others may enter it, unlike tmp_path.
        Path(directory).chmod(0o755)
        (Path(directory) / "a").touch(mode=0o000)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # Permissions don't bind root.
        try:
            with pytest.raises(AccessDenied):
                DirectoryWorkspace(Path(directory), FileAccess(), openat2=fast).open("a")
        finally:
            os.seteuid(user)


# ── Swapped meanwhile ──────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def swapping(path: Path, target: str) -> Iterator[None]:
    """Something real and a link take turns at `path`, as fast as a thread can; between turns there is nothing."""
    real, link, over = path.with_name("real"), path.with_name("link"), threading.Event()
    path.rename(real)
    link.symlink_to(target)

    def swap() -> None:
        while not over.is_set():
            real.rename(path)
            path.rename(real)
            link.rename(path)
            path.rename(link)

    yield from _meanwhile(swap, over)


@contextlib.contextmanager
def swapping_links(path: Path, targets: list[str]) -> Iterator[None]:
    """Links to several targets take turns at `path`; there is always one."""
    next_link, over = path.with_name("next"), threading.Event()

    def swap() -> None:
        while not over.is_set():
            for target in targets:
                next_link.symlink_to(target)
                next_link.rename(path)

    yield from _meanwhile(swap, over)


def _meanwhile(work: Callable[[], None], over: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def outcomes(action: Callable[[], object], *wanted: object, time_s: float = 0.5, most_s: float = 30) -> set[object]:
    """What an action gives or raises, over and over for a while; on a busy machine until what is `wanted` was seen."""
    seen: set[object] = set()
    began = time.monotonic()
    while (passed := time.monotonic() - began) < time_s or (passed < most_s and not seen.issuperset(wanted)):
        try:
            seen.add(action())
        except WorkspaceError as error:
            seen.add(type(error))
    return seen


@pytest.mark.parametrize("what", ["folder", "folder/secret"])
def test_a_component_swapped_for_a_link_outside_is_never_read_through(
    root: Path, files: DirectoryWorkspace, what: str
) -> None:
    write(files, "x/folder/secret", b"inside")
    outside = root.parent / "outside"
    with swapping(root / "x" / what, str(outside if what == "folder" else outside / "secret")):
        seen = outcomes(lambda: read(files, "x/folder/secret"), b"inside")

    assert b"inside" in seen
    assert seen <= {b"inside", OutsideWorkspace, NotFound}


@pytest.mark.parametrize("what", ["folder", "secret"])
@pytest.mark.parametrize(("swap", "error"), [("link", OutsideWorkspace), ("fifo", NotAFile), ("nothing", NotFound)])
def test_what_is_swapped_between_a_look_and_the_opening_is_not_opened(
    root: Path,
    files: DirectoryWorkspace,
    fast: bool,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    swap: str,
    error: type[Exception],
) -> None:
    write(files, "x/folder/secret", b"inside")
    look = resolve.lstat
    path = root / ("x/folder" if what == "folder" else "x/folder/secret")

    def look_then_swap(folder: int, name: bytes) -> os.stat_result | None:
        status = look(folder, name)
        if name == what.encode() and not (root / "x/moved").exists():
            path.rename(root / "x/moved")
            if swap == "link":
                path.symlink_to(root.parent / ("outside" if what == "folder" else "outside/secret"))
            elif swap == "fifo":
                os.mkfifo(path)
        return status

    # By openat2 the folder is opened before anything is looked at; then there is nothing to swap it for.
    by_openat2 = what == "folder" and fast
    monkeypatch.setattr(resolve, "lstat", look_then_swap)

    if by_openat2:
        assert read(files, "x/folder/secret") == b"inside"
        return
    with pytest.raises(NotAFolder if (what, swap) == ("folder", "fifo") else error):
        files.open("x/folder/secret")


def test_a_link_swapped_for_one_outside_is_never_used_by_any_verb(root: Path, files: DirectoryWorkspace) -> None:
    write(files, "x/real/secret", b"inside")
    (root / "x/folder").symlink_to("real")

    def all_verbs() -> tuple[bytes, int]:
        content, size = read(files, "x/folder/secret"), files.stat("x/folder/secret").size
        write(files, "x/folder/planted")
        assert set(names(files, "x/folder")) <= {"secret", "planted"}
        files.delete("x/folder/planted")
        return content, size

    with swapping_links(root / "x/folder", ["real", "../../outside", str(root.parent / "outside")]):
        seen = outcomes(all_verbs, (b"inside", 6), OutsideWorkspace)

    assert seen <= {(b"inside", 6), OutsideWorkspace}
    assert OutsideWorkspace in seen
    assert [path.name for path in (root.parent / "outside").iterdir()] == ["secret"]
    assert (root.parent / "outside/secret").read_text() == "secret"


def test_a_link_swapped_between_scopes_never_shows_what_is_out_of_scope(root: Path, make: Make) -> None:
    files = make(read=["pub"])
    for folder in ("pub/x", "hidden"):
        (root / folder).mkdir(parents=True)
        (root / folder / "a").write_text(folder)

    with swapping(root / "pub/x", "../hidden"):
        seen = outcomes(lambda: read(files, "pub/x/a"))

    assert b"pub/x" in seen
    assert seen <= {b"pub/x", OutsideWorkspace, NotFound}


# ── Scopes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reading_and_writing_keep_to_their_scopes(root: Path, make: Make) -> None:
    files = make(read=["pub", "deep/er/r"], write=["out/put"])
    for path in ("pub/a", "pub2/a", "deep/er/r/a", "deep/er/x/a", "deep/b", "secret"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    (root / "pub/link").symlink_to("../secret")
    (root / "pub/folder").symlink_to("../pub2")
    (root / "in").symlink_to("pub")

    assert read(files, "pub/a") == b"pub/a"
    assert names(files) == ["deep", "pub"]
    assert names(files, "deep") == ["er"]
    assert names(files, "deep/er") == ["r"]
    assert names(files, "deep/er/r") == ["a"]
    for path in (
        "pub2/a",
        "secret",
        "deep/b",
        "pub/link",
        "pub/folder/a",
        "in/a",
        "none",
        "out/put/x",
        "pub/../secret",
    ):
        with pytest.raises(OutsideWorkspace):
            files.open(path)
    for path in ("pub2", "deep/er/x", "pub/folder", "in"):
        with pytest.raises(OutsideWorkspace):
            files.list(path, entries_max=10)
    with pytest.raises(OutsideWorkspace):
        files.stat("deep/b")

    write(files, "out/put/new/a")
    (root / "out/put/link").symlink_to("../../pub")
    for path in ("pub/a", "out/a", "out/put2", "out/put/link/a", "out/put/link/made/a", "out/put/../a"):
        with pytest.raises(OutsideWorkspace):
            files.put(path, bytes_max=1)
        with pytest.raises(OutsideWorkspace):
            files.delete(path)
    assert sorted(path.name for path in (root / "pub").iterdir()) == ["a", "folder", "link"]


def test_a_scope_of_one_file_is_that_file(root: Path, make: Make) -> None:
    (root / "d").mkdir()
    (root / "d/a").write_text("a")
    (root / "d/b").write_text("b")
    files = make(read=["d/a"], write=[])

    assert names(files, "d") == ["a"]
    assert read(files, "d/a") == b"a"
    with pytest.raises(OutsideWorkspace):
        files.put("d/a", bytes_max=1)


@pytest.mark.parametrize(
    ("lists", "read", "write"),
    [
        (None, ((),), ((),)),
        ({}, (), ()),
        ({"read": [""]}, ((),), ()),
        ({"read": ["a/b/", "c"], "write": []}, ((b"a", b"b"), (b"c",)), ()),
    ],
)
def test_file_access_is_parsed(
    lists: dict[str, list[str]] | None, read: tuple[Parts, ...], write: tuple[Parts, ...]
) -> None:
    assert FileAccess.parse(lists) == FileAccess(read=Scope(read), write=Scope(write))


@pytest.mark.parametrize("prefix", [".", "..", "a/../b", "./a", "/a", "/workspace/a", "a\0", "/"])
@pytest.mark.parametrize("key", ["read", "write"])
def test_a_prefix_that_is_not_plain_is_refused(key: str, prefix: str) -> None:
    with pytest.raises(InvalidPath):
        FileAccess.parse({key: ["fine", prefix]})


# ── Names and random paths ─────────────────────────────────────────────────────────────────────────────────────────

COMPONENT = st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name)


@given(st.lists(COMPONENT.filter(lambda name: name not in (b".", b"..")), max_size=5).map(tuple))
@example((b"\\x41",))
@example((b"\\x5cx41", b"\\", b"\\x"))
@example(("a\u2028\u202e\x85".encode(),))
def test_every_name_is_shown_printably_and_parses_back(parts: Parts) -> None:
    text = show(parts)

    assert parse_path(text) == parts
    assert not any(character in "\n\r\x1b\u2028\u202e" or "\ud800" <= character <= "\udfff" for character in text)


PATHS = st.lists(
    st.sampled_from(
        ["..", ".", "", "a", "b", "link", "up", "abs", "root", "secret", "outside", "etc", "\\x2e\\x2e", "proc"]
    ),
    max_size=8,
).map("/".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.one_of(PATHS, PATHS.map("/".__add__), st.text(max_size=20)), target=PATHS)
def test_no_path_reads_or_writes_outside(root: Path, files: DirectoryWorkspace, path: str, target: str) -> None:
    for link, leads_to in {"link": target or ".", "up": "..", "abs": str(root.parent), "root": "/workspace"}.items():
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(leads_to)
    (root / "a").mkdir(exist_ok=True)

    with contextlib.suppress(WorkspaceError):
        assert read(files, path) != b"secret"
    with contextlib.suppress(WorkspaceError):
        files.list(path, entries_max=10)
    with contextlib.suppress(WorkspaceError):
        write(files, path)
    with contextlib.suppress(WorkspaceError):
        files.delete(path)

    assert (root.parent / "outside/secret").read_bytes() == b"secret"
    assert sorted(path.name for path in root.parent.iterdir()) == ["outside", "workspace"]
    assert [path.name for path in (root.parent / "outside").iterdir()] == ["secret"]


@given(PATHS)
def test_a_lexical_path_has_no_dots(path: str) -> None:
    with contextlib.suppress(WorkspaceError):
        assert b".." not in lexical(parse_path(path))


# ── Workspaces of tenants and sessions ─────────────────────────────────────────────────────────────────────────────


def test_tenants_and_sessions_have_directories_of_their_own(tmp_path: Path, fast: bool) -> None:
    workspaces = DirectoryWorkspaces(tmp_path / "files", openat2=fast)
    ours = workspaces.shared("ours", FileAccess())
    theirs = workspaces.shared("theirs", FileAccess())
    private = workspaces.private("ours", "sess_0123456789ab", FileAccess())

    for workspace, text in ((ours, b"ours"), (theirs, b"theirs"), (private, b"private")):
        with workspace.put("a", bytes_max=10) as upload:
            upload.write(text)
            upload.commit()

    assert (tmp_path / "files/ours/shared/a").read_bytes() == b"ours"
    assert (tmp_path / "files/theirs/shared/a").read_bytes() == b"theirs"
    assert (tmp_path / "files/ours/private/sess_0123456789ab/a").read_bytes() == b"private"
    workspaces.remove_private("ours", "sess_0123456789ab")
    workspaces.remove_private("ours", "sess_0123456789ab")
    workspaces.remove_private("nobody", "sess_0123456789ab")
    assert list((tmp_path / "files/ours/private").iterdir()) == []
    assert (tmp_path / "files/ours/shared/a").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\0", ".hidden", "x" * 200])
def test_a_tenant_or_session_that_is_no_plain_name_is_a_bug(tmp_path: Path, name: str) -> None:
    workspaces = DirectoryWorkspaces(tmp_path)

    with pytest.raises(ValueError, match="can't name"):
        workspaces.shared(name, FileAccess())
    with pytest.raises(ValueError, match="can't name"):
        workspaces.remove_private("default", name)


def test_a_private_workspace_is_removed_whatever_is_in_it(root: Path, tmp_path: Path) -> None:
    workspaces = DirectoryWorkspaces(tmp_path / "files")
    workspaces.private("t", "s", FileAccess())
    top = workspaces.private_directory("t", "s")
    (top / "link").symlink_to(root.parent / "outside")
    (top / "d/link").parent.mkdir()
    (top / "d/link").symlink_to(root.parent / "outside/secret")
    os.mkfifo(top / "d/fifo")
    (top / "locked/in").mkdir(parents=True)
    (top / "locked/in/a").write_text("a")
    (top / "locked/in").chmod(0)
    (top / "locked").chmod(0)
    deepest = os.open(top, os.O_RDONLY)
    for _ in range(1500):  # Far beyond what a path, a recursion or the open files of a process can reach.
        os.mkdir("deep", dir_fd=deepest)
        deeper = os.open("deep", os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = deeper
    os.close(deepest)

    workspaces.remove_private("t", "s")

    assert not top.exists()
    assert (root.parent / "outside/secret").read_text() == "secret"
