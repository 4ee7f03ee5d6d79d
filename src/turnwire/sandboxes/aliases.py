"""Other names for folders, seen by one thread alone: how a root server's bwrap, which runs as another user, gets to a
workspace that lies where this user can't go (root's data folder is closed to others, as it has to be).

bwrap looks up even an open handle by its path. So a thread takes a mount namespace of its own, where a copy of each
handle's mount (open_tree) is put below a folder that everybody may pass (move_mount), and starts bwrap there. What is
mounted is what the handle is of, whatever its name leads to by now; nobody but root can change the other names. The
thread lives as long as the sandbox: the kernel ends what a thread has started with that thread.

Needs Linux 5.2 and CAP_SYS_ADMIN. Sources: mount_namespaces(7), mount(2), unshare(2), prctl(2), open_tree(2),
move_mount(2).
"""

import asyncio
import contextlib
import ctypes
import itertools
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x20000
_MS_NOSUID, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x2, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT = 428, 429  # the same on all architectures
_OPEN_TREE_CLONE, _AT_EMPTY_PATH, _AT_RECURSIVE = 0x1, 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH, _AT_FDCWD = 0x4, -100

_TUN = Path("/dev/net/tun")
_PLACES = ("/mnt", "/media", "/srv", "/run", "/tmp")
"""Folders to mount on, the first that exists: no sandbox shows any of them under its own name."""


class Aliases:
    """A thread with mounts of its own. Raises OSError when this process may not have one.

    With `tun`, whoever is started there may open /dev/net/tun, which is root's alone on some machines.
    """

    def __init__(self, *, tun: bool = False) -> None:
        self._tun = tun
        self._names = itertools.count(1)
        self._base = Path(next(place for place in _PLACES if Path(place).is_dir()))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandboxes")
        try:
            self._thread.submit(self._enter).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def mounted(
        self, handles: Sequence[int], work: Callable[[list[str]], Result]
    ) -> "asyncio.Future[tuple[Result, str]]":
        """Do `work` in the thread, with the other names of the handles; the names stay until `release` is given what
        comes back beside the result. When `work` fails they are gone already."""
        return asyncio.wrap_future(self._thread.submit(self._mounted, _copies(handles), work))

    def do(self, handles: Sequence[int], work: Callable[[list[str]], Result]) -> tuple[Result, str]:
        """The same at once. Blocks."""
        return self._thread.submit(self._mounted, _copies(handles), work).result()

    def release(self, name: str) -> None:
        """Returns at once."""
        with contextlib.suppress(RuntimeError):  # closed: all names go with the thread
            self._thread.submit(self._remove, Path(name))

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    # In the thread

    def _enter(self) -> None:
        _call("unshare", ctypes.c_int(_CLONE_NEWNS))
        _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
        # Only root makes anything there, so it may hold a device.
        _mount("tmpfs", str(self._base), "tmpfs", _MS_NOSUID, "mode=0711,size=1m")
        if self._tun:
            with contextlib.suppress(OSError):
                self._open_tun()

    def _open_tun(self) -> None:
        """The trial of the network tells when this did not work."""
        copy = self._base / "tun"
        os.mknod(copy, stat.S_IFCHR, _TUN.stat().st_rdev)
        copy.chmod(0o666)
        _mount(str(copy), str(_TUN), None, _MS_BIND)

    def _mounted(self, trees: Sequence[int], work: Callable[[list[str]], Result]) -> tuple[Result, str]:
        folder = self._base / str(next(self._names))
        folder.mkdir(mode=0o711)
        try:
            names: list[str] = []
            for number, tree in enumerate(trees):
                name = folder / str(number)
                if stat.S_ISDIR(os.fstat(tree).st_mode):
                    name.mkdir()
                else:
                    name.touch()
                _move_mount(tree, name)
                names.append(str(name))
            return work(names), str(folder)
        except BaseException:
            self._remove(folder)
            raise
        finally:
            for tree in trees:
                os.close(tree)

    def _remove(self, folder: Path) -> None:
        for name in list(folder.iterdir()):
            with contextlib.suppress(OSError):
                _call("umount2", ctypes.c_char_p(os.fsencode(name)), ctypes.c_int(_MNT_DETACH))
            # Never what is mounted: these two fail on anything but the empty place of a mount.
            with contextlib.suppress(OSError):
                name.rmdir() if name.is_dir() else name.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


def _copies(handles: Sequence[int]) -> list[int]:
    """A copy of each handle's mount, attached to nothing yet. Made in the namespace that the handles are of."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    copies: list[int] = []
    try:
        for handle in handles:
            arguments = ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_int(handle), ctypes.c_char_p(b""), ctypes.c_uint(flags)
            copies.append(_call("syscall", *arguments))
    except BaseException:
        for copy in copies:
            os.close(copy)
        raise
    return copies


def _move_mount(tree: int, name: Path) -> None:
    _call(
        "syscall",
        ctypes.c_long(_SYS_MOVE_MOUNT),
        ctypes.c_int(tree),
        ctypes.c_char_p(b""),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(name)),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
    )


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [ctypes.c_char_p(text if text is None else os.fsencode(text)) for text in (source, target, kind, data)]
    _call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3])


def _call(name: str, *arguments: object) -> int:
    function = getattr(_LIBC, name)
    result: int = function(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
