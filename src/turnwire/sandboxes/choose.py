"""From the settings to a sandbox."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from turnwire.sandboxes.bubblewrap import Bubblewrap
from turnwire.sandboxes.host import NoSandbox
from turnwire.sandboxes.limits import Limits
from turnwire.seams.sandbox import NetworkRule, Sandbox

MiB = 1024 * 1024


def choose(
    kind: Literal["auto", "bubblewrap", "none"],
    *,
    memory_mib: int,
    processes: int,
    file_mib: int,
    tmp_mib: int,
    cpu_s: int,
    network: NetworkRule,
    paths: Sequence[Path],
    hidden: Sequence[Path],
) -> Sandbox:
    """The sandbox that the settings ask for; its `status` says whether it works. It never falls back to none."""
    limits = Limits(
        memory_bytes=memory_mib * MiB,
        processes=processes,
        file_bytes=file_mib * MiB,
        tmp_bytes=tmp_mib * MiB,
        cpu_s=cpu_s,
    )
    if kind == "none":
        return NoSandbox(limits)
    return Bubblewrap(limits, paths=paths, hidden=hidden, network=network)
