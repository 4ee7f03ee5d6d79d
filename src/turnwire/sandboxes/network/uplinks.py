"""What carries a sandbox's packets to the machine's sockets, without any rights: pasta or slirp4netns."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from turnwire.sandboxes.network.gate import RESOLVER

RESOLV_CONF = f"nameserver {RESOLVER}\n".encode()
"""The /etc/resolv.conf of a command with network."""

NONE_THERE = "Neither pasta nor slirp4netns is there."
INSTALL = "install one (`apt install passt`, or `apt install slirp4netns`)."

_START = (
    "import sys; sys.path.append(sys.argv[1]); from turnwire.sandboxes.network.gate import main; main(sys.argv[2:])"
)
SOURCES = Path(__file__).resolve().parents[3]
"""What the gate is imported from."""


class Uplink(NamedTuple):
    kind: Literal["pasta", "slirp4netns"]
    path: Path


def uplinks_here() -> Iterator[Uplink]:
    """Those on this machine, the better first: pasta has no TCP stack of its own that could be attacked."""
    for kind in ("pasta", "slirp4netns"):
        path = shutil.which(kind)
        if path is not None:
            yield Uplink(kind, Path(path))


def through_gate(uplink: Uplink, line: Sequence[str], *, user: int | None, preload: str) -> list[str]:
    """The command line that runs bwrap's command line behind a gate, as `user`, with `preload` in its LD_PRELOAD."""
    who = "" if user is None else str(user)
    # Not a virtual environment's: it needs nothing but the standard library.
    python = [str(Path(sys.executable).resolve()), "-I", "-S", "-c", _START, str(SOURCES)]
    return [*python, str(os.getpid()), who, uplink.kind, str(uplink.path), preload, *line]


def what_to_do(said: str) -> str:
    """About a trial that failed with these words."""
    if "tun" in said.lower():
        return (
            "let the server's user open /dev/net/tun (`modprobe tun`; `chmod 666 /dev/net/tun`, as most distributions "
            "have it; in a container `--device /dev/net/tun`)."
        )
    return "see to that."
