"""What hostile commands try, and what comes of it. Each runs in the real bubblewrap, against a machine whose database,
key, environment and neighbours hold a secret: it is in no output. All are small and end by themselves or by a limit."""

import asyncio
import errno
import os
import platform
import socket
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest

from sandboxes.helpers import Machine, listener
from turnwire.sandboxes import limits
from turnwire.seams.sandbox import Command, Stopped
from turnwire.seams.workspace import FileAccess, WorkspaceError
from turnwire.workspaces.directory import DirectoryWorkspace

pytestmark = [pytest.mark.tool("bwrap", "perl")]

PTRACE, SOCKET, MEMFD, KEYCTL, SHMGET, MOUNT, VM_READ, OPEN_HANDLE = {
    "x86_64": (101, 41, 319, 250, 29, 165, 310, 304),
    "aarch64": (117, 198, 279, 219, 194, 40, 270, 265),
}.get(platform.machine(), (0, 0, 0, 0, 0, 0, 0, 0))
PERL_ERRNO = 'print "errno ", $!+0, "\\n"'


class Attempt(NamedTuple):
    """`script` may use %(data)s and what else is of the machine; `says` is in its output; `stopped` by what."""

    name: str
    script: str
    says: str
    status: int | None = None
    stopped: Stopped | None = None
    limits: Mapping[str, int] = MappingProxyType({})
    wall_s: float = 15.0


GONE = "No such file or directory"
READ_ONLY = "Read-only file system"

ATTEMPTS = [
    # Reading what isn't the agent's
    Attempt("read /etc/shadow", "cat /etc/shadow", GONE, 1),
    Attempt("read the database", "cat %(data)s/turnwire.db", GONE, 1),
    Attempt("read the key", "cat %(data)s/key", GONE, 1),
    Attempt("read another tenant's file", "cat %(other)s/theirs", GONE, 1),
    Attempt("find the data folder anywhere", "find / -name turnwire.db 2>/dev/null; echo done", "done", 0),
    Attempt("read home folders", "ls /root /home", GONE, 2),
    Attempt("climb by ..", "cat ../../../../../../../..%(data)s/key", GONE, 1),
    Attempt("climb by %%2e%%2e", "cat %%2e%%2e/%%2e%%2e/etc/shadow", GONE, 1),
    Attempt("by a symbolic link", "ln -s %(data)s/key link; cat link", GONE, 1),
    Attempt("by a hard link", "ln %(data)s/key link", GONE, 1),
    Attempt("hard link of a system file", "ln /usr/bin/env link", "cross-device", 1),
    Attempt("by /proc/self/root", "cat /proc/self/root%(data)s/key", GONE, 1),
    Attempt("by /proc/1/root", "cat /proc/1/root%(data)s/key", GONE, 1),
    Attempt("by /proc/1/cwd", "cat /proc/1/cwd/../../..%(data)s/key", GONE, 1),
    Attempt("by open descriptors", "for p in /proc/*/fd/*; do timeout 0.1 cat $p/../key $p; done 2>/dev/null </dev/null; echo -", "-"),
    Attempt("descriptors that were left open", "cd /proc/self/fd; echo *", "0 1 2 3\n", 0),
    Attempt("a file by its handle", "perl -e '$h = pack(q(Iia8), 8, 1, q()); "
            f"syscall({OPEN_HANDLE}, -100, $h, 0); {PERL_ERRNO}'", f"errno {errno.EPERM}"),
    Attempt("other tenants beside the workspace", "ls /workspace/.. /workspace/../.. | grep -c -e other -e default", "0\n", 1),
    Attempt("descriptors of bwrap", "ls /proc/1/fd 2>&1 | grep -c -v -e Permission -e '^[0-9]*$'", "0\n", 1),
    Attempt("the file that sets its limits", "echo \"${BASH_ENV-unset}\"; env | grep -c BASH; ulimit -H -u", "unset\n0\n", 0),
    # The server's process
    Attempt("the environments of all processes", "cat /proc/*/environ | tr '\\0' '\\n'", "PATH=/usr/local/bin:", 0),
    Attempt("its own environment", "env | sort | cut -d= -f1 | xargs", "HOME LANG PATH PWD PYTHONUNBUFFERED SHLVL", 0),
    Attempt("the command line of bwrap", "tr '\\0' ' ' < /proc/1/cmdline | grep -c '[b]ind-fd'", "0\n", 1),
    Attempt("read the server's memory", "cat /proc/%(pid)s/mem", GONE, 1),
    Attempt("read the server's memory by its number",
            "perl -e '$b = q(x) x 8; $i = pack(q(QQ), unpack(q(Q), pack(q(P), $b)), 8); "
            f"syscall({VM_READ}, %(pid)s, $i, 1, $i, 1, 0); {PERL_ERRNO}'", f"errno {errno.ESRCH}"),
    Attempt("kill the server", "kill -9 %(pid)s", "No such process", 1),
    Attempt("kill the server's group", "kill -9 -%(pid)s", "No such process", 1),
    Attempt("kill everybody", "sleep 9 & kill -9 -1; echo alone", "alone\n", 0),
    Attempt("see other processes", "ls /proc | grep -c '^[0-9]'", "", 0),
    Attempt("ptrace the server", f"perl -e 'syscall({PTRACE}, 16, %(pid)s, 0, 0); {PERL_ERRNO}'", f"errno {errno.ESRCH}"),
    # Leaving the namespaces
    Attempt("a user namespace of its own", "unshare -U id; unshare -r id", "unshare failed"),
    Attempt("a mount", f"perl -e '@s = (\"x\", \"/tmp\", \"tmpfs\"); syscall({MOUNT}, @s, 0, 0); {PERL_ERRNO}'", f"errno {errno.EPERM}"),
    Attempt("making its root writable", f"perl -e '@s = (\"x\", \"/\", \"x\"); syscall({MOUNT}, @s, 32, 0); {PERL_ERRNO}'", f"errno {errno.EPERM}"),
    Attempt("chroot", "chroot /workspace /bin/true", "Operation not permitted", 125),
    Attempt("another host name", "hostname elsewhere || perl -e 'syscall(170, \"x\", 1)'; cat /proc/sys/kernel/hostname", "sandbox"),
    Attempt("capabilities", "grep -h -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | xargs",
            "CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2", 0),
    Attempt("setuid", "cp /usr/bin/id me; chmod 6755 me; ./me -u", "1000\n", 0),
    Attempt("setgid and sticky", "cp /usr/bin/id me; chmod 2755 me; ./me -g", "1000\n", 0),
    Attempt("another user", "perl -e '$> = 0; $< = 0; print \"$< $>\n\"'", "1000 1000\n", 0),
    Attempt("giving a file away", "touch f; chown 0:0 f", "Invalid argument", 1),
    Attempt("setuid of the system", "su -c id root </dev/null", "", 1),
    Attempt("a device", "mknod disk b 8 0", "Operation not permitted", 1),
    Attempt("the machine's disks", "ls /dev | xargs", "core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n", 0),
    Attempt("kernel settings", "echo 1 > /proc/sys/vm/drop_caches", "Permission denied", 1),
    Attempt("core_pattern", "echo '|/bin/x' > /proc/sys/kernel/core_pattern", "Permission denied", 1),
    Attempt("write to /usr", "touch /usr/bin/x", READ_ONLY, 1),
    Attempt("write to /", "touch /x", READ_ONLY, 1),
    Attempt("write to /etc", "echo x >> /etc/passwd", READ_ONLY, 1),
    Attempt("write to /dev", "touch /dev/x", READ_ONLY, 1),
    Attempt("keyrings", f"perl -e 'syscall({KEYCTL}, 0, -3, 0); {PERL_ERRNO}'", f"errno {errno.EPERM}"),
    # Network
    Attempt("the host's loopback", "echo > /dev/tcp/127.0.0.1/%(port)s", "Connection refused", 1),
    Attempt("the network outside", "echo > /dev/tcp/1.1.1.1/53", "Network is unreachable", 1),
    Attempt("a socket without a name", "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); "
            f"connect(S, pack(\"Sa*\", AF_UNIX, \"\\0%(abstract)s\")); {PERL_ERRNO}'", f"errno {errno.ECONNREFUSED}"),
    Attempt("the hypervisor (vsock)", f"perl -e 'syscall({SOCKET}, 40, 1, 0); {PERL_ERRNO}'", f"errno {errno.EPERM}"),
    Attempt("raw packets", f"perl -e 'syscall({SOCKET}, 17, 3, 0); {PERL_ERRNO}'", f"errno {errno.EPERM}"),
    # Terminal tricks
    Attempt("the terminal", "echo x > /dev/tty", "No such device or address", 1),
    Attempt("typing into the terminal", f"perl -e '$x = \"x\"; ioctl(STDIN, 0x5412, $x); {PERL_ERRNO}'", f"errno {errno.EPERM}"),
    # Taking too much
    Attempt("a fork bomb",
            "perl -e 'for (1..300) { $p = fork; if (!defined $p) { print qq($!\n); last } if (!$p) { sleep 3; exit } }'",
            "Resource temporarily unavailable\n", 0, limits={"processes": 24}),
    Attempt("a fork bomb that goes on", "bomb() { bomb | bomb & }; bomb; while :; do :; done", "", 137, "time",
            limits={"processes": 24}, wall_s=0.7),
    Attempt("raising its limits", "ulimit -u 100000; ulimit -d unlimited", "Operation not permitted", 1),
    Attempt("memory of one process", "perl -e '$n = 300_000_000; $x = q(a) x $n; print length $x'", "Out of memory", 1,
            limits={"memory_bytes": 100 << 20}),
    Attempt("memory of many processes",
            "for i in 1 2 3 4 5 6; do { head -c 70M /dev/zero; sleep 9; } | tail -c 69M >/dev/null & done; wait",
            "", 137, "memory", limits={"memory_bytes": 150 << 20}),
    Attempt("memory by /tmp", "head -c 30M /dev/zero > /tmp/x", "No space left", 1, limits={"tmp_bytes": 4 << 20}),
    Attempt("memory by /dev/shm", "head -c 100M /dev/zero > /dev/shm/x", "No space left", 1),
    Attempt("memory by empty files in /tmp",
            "perl -e 'for (1..400_000) { open F, q(>), qq(/tmp/$_) or last }'; sleep 9", "", 137, "memory"),
    Attempt("memory by memfd", f"perl -e '$n = \"x\"; syscall({MEMFD}, $n, 0); {PERL_ERRNO}'", f"errno {errno.EPERM}"),
    Attempt("memory by System V", f"perl -e 'syscall({SHMGET}, 0, 1 << 30, 0600); {PERL_ERRNO}'", f"errno {errno.EPERM}"),
    Attempt("a large file", "trap '' XFSZ; head -c 5M /dev/zero > big; wc -c < big", "1048576\n",
            limits={"file_bytes": 1 << 20}),
    Attempt("a sparse file", "trap '' XFSZ; truncate -s 1T big", "File too large", limits={"file_bytes": 1 << 20}),
    Attempt("a core dump", "ulimit -c; sleep 9 & kill -SEGV $!; wait; ls", "0\n", 0),
    Attempt("endless output", "yes", "", 137, "output"),
    Attempt("endless computing", "while :; do :; done", "", 137, limits={"cpu_s": 1}),
    Attempt("endless waiting", "trap '' TERM INT HUP; while :; do sleep 1; done", "", 137, "time", wall_s=0.5),
]  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name.replace("%%", "%"))
def test_attempt(attempt: Attempt, box: Machine) -> None:
    abstract = f"turnwire-{box.secret[-8:]}"
    with (
        listener(socket.AF_INET, ("127.0.0.1", 0)) as server,
        listener(socket.AF_UNIX, f"\0{abstract}"),
    ):
        values = {
            "data": box.data,
            "other": box.other,
            "pid": os.getpid(),
            "port": server.getsockname()[1],
            "abstract": abstract,
        }
        begun = time.monotonic()
        ran = box.run(attempt.script % values, wall_s=attempt.wall_s, **attempt.limits)
        took_s = time.monotonic() - begun

    assert box.secret not in ran.output
    assert attempt.says in ran.output
    assert ran.ending.stopped == attempt.stopped, ran
    if attempt.status is not None:
        assert ran.ending.exit_code == attempt.status, ran
    assert took_s < 12.0


def test_a_command_that_renames_without_rest_leads_no_reader_and_no_writer_out(box: Machine) -> None:
    """A folder and a link to the other tenant's change places while the server reads and writes below that name."""

    async def race() -> tuple[int, int, list[str]]:
        workspace = DirectoryWorkspace(box.workspace, FileAccess())
        sandbox = box.sandbox()
        script = (
            f"mkdir d; echo mine > d/theirs; ln -s {box.other} link; echo ready; "
            "while :; do mv -T d x && mv -T link d; mv -T d link && mv -T x d; done"
        )
        output = bytearray()
        command = Command(argv=("bash", "-c", script), tenant="t", session_id="s", workspace=workspace, wall_s=3.0)
        running = await sandbox.start(command, output.extend)
        while not output:
            await asyncio.sleep(0.01)
        mine, refused, seen = 0, 0, list[str]()
        while running.ending is None:
            for verb in (_read, _write):
                try:
                    seen.append(verb(workspace))
                    mine += 1
                except WorkspaceError:
                    refused += 1
            await asyncio.sleep(0)
        await sandbox.aclose()
        return mine, refused, seen

    mine, refused, seen = box.as_user(race)

    assert mine > 10 and refused > 10, "they did not meet"
    assert box.secret not in "".join(seen)
    assert [path.name for path in box.other.iterdir()] == ["theirs"]
    assert (box.other / "theirs").read_text() == box.secret


def _read(workspace: DirectoryWorkspace) -> str:
    with workspace.open("d/theirs") as file:
        return file.stream.read().decode()


def _write(workspace: DirectoryWorkspace) -> str:
    with workspace.put("d/written", bytes_max=10) as upload:
        upload.write(b"x")
        upload.commit()
    return ""


def test_a_disk_that_gets_full_ends_commands(box: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    left = os.statvfs(box.workspace)
    monkeypatch.setattr(limits, "DISK_FREE_BYTES_MIN", left.f_bavail * left.f_frsize + (1 << 40))

    ran = box.run("echo begun; sleep 9; echo never")

    assert (ran.output, ran.ending.stopped, ran.ending.exit_code) == ("begun\n", "disk", 137)


def test_there_are_enough_attempts() -> None:
    assert len(ATTEMPTS) > 50
    assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS)
