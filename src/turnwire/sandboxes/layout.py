"""What the inside of a sandbox looks like, as bwrap's arguments: everything that is the same for every command."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from turnwire.sandboxes.limits import SHM_BYTES, Limits
from turnwire.seams.workspace import INSIDE_NAMES

INSIDE_UID = 1000
"""What a command sees as its own user and group."""

WORKSPACE, OTHER_NAME = INSIDE_NAMES

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
ETC_FOLDERS = (
    *("alternatives", "crypto-policies", "fonts", "ImageMagick-6", "ImageMagick-7", "java-17-openjdk"),
    *("java-21-openjdk", "pki/ca-trust", "pki/tls/certs", "R", "ssl/certs"),
)
ETC_FILES = ("ld.so.cache", "localtime", "matplotlibrc", "mime.types", "protocols", "services", "ssl/openssl.cnf")
"""What of /etc programs need to find their parts, and nothing that tells of people, keys or the network. Files are
copied: a mount takes the kernel a tenth of a millisecond, and there is one for each folder and command."""

ETC_FILE_BYTES_MAX = 1024 * 1024
"""A larger file is left out: none of these is."""

ETC_MADE = {
    "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{INSIDE_UID}:{INSIDE_UID}:agent:/tmp:/bin/bash\n",
    "group": f"root:x:0:\nagent:x:{INSIDE_UID}:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

PATH_INSIDE = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def base_arguments(limits: Limits, paths: Sequence[Path]) -> list[str]:
    """What is the same for every command."""
    arguments = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
        *("--disable-userns", "--die-with-parent", "--new-session", "--hostname", "sandbox"),
        *("--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID)),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--perms", "1777", "--size", str(limits.tmp_bytes), "--tmpfs", "/tmp"),
        *("--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/var", "--symlink", "/tmp", "/var/tmp"),
        *("--dir", WORKSPACE, "--dir", str(Path(OTHER_NAME).parent), "--symlink", WORKSPACE, OTHER_NAME),
    ]
    for text in SYSTEM_FOLDERS:
        folder = Path(text)
        if folder.is_symlink():
            arguments += ["--symlink", str(folder.readlink()), text]
        elif folder.is_dir():
            arguments += ["--ro-bind", text, text]
    for name in ETC_FOLDERS:
        if Path("/etc", name).is_dir():
            arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    path = [str(folder / "bin") for folder in paths if _is_folder(folder / "bin")]
    variables = {
        "PATH": ":".join([*path, PATH_INSIDE]),
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "agent",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONUNBUFFERED": "1",
    }
    arguments += ["--clearenv"]
    for name, value in variables.items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--chdir", WORKSPACE]


def _is_folder(path: Path) -> bool:
    """False also where this server's user can't look."""
    try:
        return path.is_dir()
    except OSError:
        return False


def etc_files() -> dict[str, bytes]:
    """The files of a sandbox's /etc: made-up ones, and copies of the machine's, as they are now."""
    files = {name: text.encode() for name, text in ETC_MADE.items()}
    for name in ETC_FILES:
        with contextlib.suppress(OSError), Path("/etc", name).open("rb") as file:
            content = file.read(ETC_FILE_BYTES_MAX + 1)
            if len(content) <= ETC_FILE_BYTES_MAX:
                files[name] = content
    return files


def hiding_arguments(paths: Sequence[Path], hidden: Sequence[Path]) -> list[str]:
    """An empty folder over each hidden one that lies in a folder that is shown."""
    shown = [Path(text).resolve() for text in (*SYSTEM_FOLDERS, *paths)]
    arguments: list[str] = []
    for folder in hidden:
        real = folder.resolve()
        for text, above in zip((*SYSTEM_FOLDERS, *paths), shown, strict=True):
            if real.is_relative_to(above) and not Path(text).is_symlink():
                arguments += ["--size", "4096", "--tmpfs", str(Path(text, real.relative_to(above)))]
    return arguments
