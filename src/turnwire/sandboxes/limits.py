"""The limits of a command, and of all commands together. Each has its unit in its name, and its reason."""

import msgspec

MiB = 1024 * 1024

OUTPUT_BYTES_MAX = 64 * MiB
"""Bytes of output of one command, after which it is ended: far more than any result shows; reading endless output
costs the server a core."""

OPEN_FILES_MAX = 1024
"""Open files of a process: the usual soft limit of a login."""

SHM_BYTES = 64 * MiB
"""Size of /dev/shm, as in containers: it is memory."""

TMP_FILES_MAX = 200_000
"""Files and folders in /tmp and /dev/shm together: an empty one takes a kilobyte of the kernel's memory, so some
200 MB; more than the largest trees of dependencies."""

ADDRESS_SPACE_BYTES = 64 * 1024 * MiB
"""Address space of a process. JavaScript and Java engines reserve tens of gigabytes that they never touch; what bounds
memory is RLIMIT_DATA and the sum over all processes."""

COMMANDS_MAX = 64
"""Commands that run at once, in all: together with the limits of each it bounds what agents can take of a machine."""

SESSION_COMMANDS_MAX = 16
"""Commands of one session that run at once, background tasks included."""

CONVERSATIONS_MAX = 64
"""Programs that are talked with, such as MCP servers, at once, in all; apart from commands, which they outlive."""

SESSION_CONVERSATIONS_MAX = 16
"""Of one session."""

DISK_FREE_BYTES_MIN = 512 * MiB
"""Commands are ended when the workspaces' disk has less left than this: the database is often on the same one."""

WATCH_INTERVAL_S = 0.25
"""Seconds between two looks at memory and disk: what a command can take beyond a limit is what it gets in that time."""

QUOTA_INTERVAL_S = 0.5
"""Seconds between two looks at workspaces' quotas; most of them find that it is too early for a walk."""

NICE = 10
"""Priority of commands from the first look on: behind the server, so that its streams go on when commands take all
there is. Not from their start, so that short ones are quick on a busy machine, too."""

END_TIME_S = 5.0
"""Seconds to wait for a killed command's end. It takes milliseconds, but for a process that waits for a dead disk."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one command may take; the server's settings."""

    memory_bytes: int = 2048 * MiB
    """Of a process, hard (RLIMIT_DATA), and of all processes of a command together, by watching."""
    processes: int = 256
    """Processes and threads of a command."""
    file_bytes: int = 1024 * MiB
    """The largest file that can be written."""
    tmp_bytes: int = 512 * MiB
    """Size of /tmp, which is memory."""
    cpu_s: int | None = 1800
    """CPU seconds of a process; None: no limit."""
