"""A filter of system calls, as bwrap's --seccomp takes it: a program of classic BPF.

Namespaces hide what has a name. This closes what has none, or is not of a namespace:

- memory that no limit of ours sees: memfd_create, memfd_secret, and System V shared memory and queues;
- the kernel's keyrings, which are per user, and other users' sandboxes run as the same one;
- sockets of families that network namespaces don't separate (AF_VSOCK reaches the hypervisor) or that are only attack
  surface: all but UNIX, IPv4, IPv6 and netlink;
- calls that sandboxes have been left by, and no ordinary program needs: bpf, perf_event_open, userfaultfd, io_uring;
- writing into a terminal's input (TIOCSTI, TIOCLINUX).

Refused calls fail with EPERM, and those of a foreign architecture (32-bit programs) with ENOSYS. Sources: seccomp(2),
linux/bpf_common.h, the tables syscall_64.tbl and asm-generic/unistd.h.
"""

import errno
import platform
import socket
import struct

_NUMBERS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41,
            "ioctl": 16,
            "shmget": 29,
            "shmat": 30,
            "msgget": 68,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "perf_event_open": 298,
            "memfd_create": 319,
            "bpf": 321,
            "userfaultfd": 323,
            "io_uring_setup": 425,
            "io_uring_enter": 426,
            "io_uring_register": 427,
            "memfd_secret": 447,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198,
            "ioctl": 29,
            "shmget": 194,
            "shmat": 196,
            "msgget": 186,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "perf_event_open": 241,
            "memfd_create": 279,
            "bpf": 280,
            "userfaultfd": 282,
            "io_uring_setup": 425,
            "io_uring_enter": 426,
            "io_uring_register": 427,
            "memfd_secret": 447,
        },
    ),
}
_X32_BIT = 0x40000000
"""Set in the numbers of x86-64's third ABI, which would be a way around every number here."""

_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, 16)  # 16: AF_NETLINK, which macOS's Python doesn't name
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

_LOAD, _JEQ, _JGE, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def program(machine: str | None = None) -> bytes | None:
    """The filter for an architecture (by default this one); None where its numbers are not known."""
    known = _NUMBERS.get(machine or platform.machine())
    if known is None:
        return None
    arch, numbers = known
    refused = [number for name, number in numbers.items() if name not in ("socket", "ioctl")]
    code = [
        _instruction(_LOAD, _ARCH),
        _instruction(_JEQ, arch, true=1),
        _instruction(_RETURN, _UNKNOWN),
        _instruction(_LOAD, _NUMBER),
        _instruction(_JGE, _X32_BIT, false=1),
        _instruction(_RETURN, _UNKNOWN),
    ]
    for number in refused:
        code += [_instruction(_JEQ, number, false=1), _instruction(_RETURN, _REFUSE)]
    code += _by_argument(numbers["socket"], _ARG0, _FAMILIES, found=_ALLOW, else_=_REFUSE)
    code += _by_argument(numbers["ioctl"], _ARG1, _TERMINAL_INPUT, found=_REFUSE, else_=_ALLOW)
    code.append(_instruction(_RETURN, _ALLOW))
    return b"".join(code)


def _by_argument(number: int, offset: int, values: tuple[int, ...], *, found: int, else_: int) -> list[bytes]:
    """For one call: what is answered when the low half of an argument is one of the values, and when it is none. The
    kernel, too, takes only that half of these two arguments."""
    checks: list[bytes] = [_instruction(_LOAD, offset)]
    for value in values:
        checks += [_instruction(_JEQ, value, false=1), _instruction(_RETURN, found)]
    checks.append(_instruction(_RETURN, else_))
    return [_instruction(_JEQ, number, false=len(checks)), *checks]


def _instruction(code: int, value: int, *, true: int = 0, false: int = 0) -> bytes:
    """struct sock_filter: 16-bit code, how many to skip when true and when false, 32-bit value."""
    return struct.pack("=HBBI", code, true, false, value)
