"""The data folder: made at the first start, held by one server at a time, home of the key, database and workspaces.

<data_dir>/lock         held (flock) by the server that uses the folder; says its process id, and its address
<data_dir>/key          the generated key, mode 0600
<data_dir>/turnwire.db  the embedded store
<data_dir>/workspaces/  the tenants' files
<data_dir>/skills/      their skills
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

KEY_BYTES = 32
"""Random bytes in a key: nobody guesses one, and it still fits on a line."""

NOTE_BYTES_MAX = 512
"""Of the lock file: a process id, and an address."""

KEY_CHARACTERS_MAX = 4096
"""A longer key file is some other file."""


class StartRefused(Exception):
    """The server can't start: one sentence that says why and what to do."""

    exit_code = 1


class DataDir:
    """A data folder. `open()` takes it for a server; `DataDir(path)` alone only knows where its parts are."""

    def __init__(self, path: Path, lock_fd: int | None = None) -> None:
        self.path = path
        self._lock_fd = lock_fd

    @classmethod
    def open(cls, path: Path) -> "DataDir":
        """Make the folder if it isn't there, check that it can be written, and hold it until `close()`.

        The lock goes with the process, however that ends: there is nothing to clean up after a crash.

        Raises:
            StartRefused: it can't be made or written, or another server holds it.
        """
        try:
            _make(path)
            with tempfile.TemporaryFile(dir=path):
                pass
            # Not inherited by children (PEP 446): one that outlives the server must not hold the folder.
            fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise StartRefused(
                f"The data folder {path} can't be used ({_reason(exc)}): "
                "choose another with --data-dir, or see to its owner and mode."
            ) from exc
        try:
            _lock(fd, path)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd)

    def announce(self, url: str) -> None:
        """Note the server's address for programs on this machine; it goes with the lock."""
        if self._lock_fd is not None:
            text = f"{os.getpid()}\n{url}\n".encode()
            with contextlib.suppress(OSError):  # of a full disk: the lock is what matters
                os.ftruncate(self._lock_fd, os.pwrite(self._lock_fd, text, 0))

    @property
    def database(self) -> Path:
        return self.path / "turnwire.db"

    @property
    def workspaces(self) -> Path:
        return self.path / "workspaces"

    @property
    def skills(self) -> Path:
        return self.path / "skills"

    @property
    def key_file(self) -> Path:
        return self.path / "key"

    def key(self) -> tuple[str, bool]:
        """The folder's own key for the tenant `default`, and whether it was made just now.

        Raises:
            StartRefused: the file is there but can't be read, or holds no key.
        """
        text = self.read_key()
        if text is not None:
            return text, False
        text = new_key("default")
        try:
            _write_key(self.key_file, text)
        except OSError as exc:
            raise StartRefused(f"The key file {self.key_file} can't be written: {_reason(exc)}.") from exc
        return text, True

    def read_key(self) -> str | None:
        """The key in the file; None when no server has made one yet. Others' rights to the file are taken away."""
        try:
            with self.key_file.open("rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise StartRefused(f"{self.key_file} is not a file: remove it, then a new key is made.")
                if status.st_mode & 0o077:
                    os.fchmod(file.fileno(), 0o600)
                text = file.read(KEY_CHARACTERS_MAX + 1).decode("utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise StartRefused(
                f"The key file {self.key_file} can't be read, or made readable by you alone ({_reason(exc)}): "
                "see to its owner and mode (0600), or remove it, then a new key is made."
            ) from exc
        if not text or len(text) > KEY_CHARACTERS_MAX or not text.isprintable():
            raise StartRefused(f"The key file {self.key_file} holds no key: remove it, then a new one is made.")
        return text

    def close(self) -> None:
        """Let go of the folder. The lock file stays: removing it would let two servers lock two files."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> "DataDir":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def new_key(tenant: str) -> str:
    """A key that nobody has: `tw_<tenant>_<token>`. The tenant in it is for people; look-ups go by its hash."""
    return f"tw_{tenant}_{secrets.token_urlsafe(KEY_BYTES)}"


class Holder(NamedTuple):
    """Who holds a data folder. `pid`: 0 when it isn't known. `url`: None until the server listens."""

    pid: int
    url: str | None


def served(path: Path) -> Holder | None:
    """Who holds the folder; None when nobody does."""
    try:
        fd = os.open(path / "lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _noted(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    return None


def holder(path: Path) -> int | None:
    """The process id of the server that holds the folder; None when nobody does. 0: somebody, but who isn't known."""
    found = served(path)
    return None if found is None else found.pid


def default_data_dir() -> Path:
    """`$XDG_DATA_HOME/turnwire`, by default `~/.local/share/turnwire`. A relative XDG_DATA_HOME is ignored, as the
    XDG Base Directory Specification asks."""
    home = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "share") / "turnwire"


def _make(path: Path) -> None:
    """The folder with mode 0700: keys and conversations are in it. One that is there keeps its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _noted(fd).pid
        who = f"another server (pid {pid})" if pid else "another server"
        raise StartRefused(
            f"The data folder {path} is in use by {who}: stop that one, or choose another with --data-dir."
        ) from None
    except OSError as exc:
        raise StartRefused(
            f"The data folder {path} can't be locked ({_reason(exc)}): keep it on a local file system."
        ) from exc
    with contextlib.suppress(OSError):  # on a full disk the folder is held all the same
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def _noted(fd: int) -> Holder:
    pid, _, rest = os.pread(fd, NOTE_BYTES_MAX, 0).decode("ascii", "replace").partition("\n")
    url = rest.partition("\n")[0].strip()
    return Holder(int(pid) if pid.strip().isdecimal() else 0, url if url.startswith("http") else None)


def _write_key(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # mode 0600
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise


def _reason(exc: Exception) -> str:
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else "it is not UTF-8 text"
