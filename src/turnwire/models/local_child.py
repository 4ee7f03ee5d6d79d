"""The process that computes a local model: llama.cpp's own server, started by `local_process.py`.

The first line on stdin is the configuration (JSON, `local_process.Configuration`); when the model is loaded, one JSON
line on stdout: `{"port": …}`, or `{"error": …}`. Then it serves until stdin ends. Nobody writes to stdin any more, so
it ends when the parent does, however it died. On Linux the kernel also sends SIGKILL then, which matters while the
model is being loaded. Nothing of ours but this file is imported here.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Load, announce, serve, end with the parent."""
    # Its own session keeps the terminal's Ctrl-C away; this does too, where someone sends SIGINT by hand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # llama.cpp prints as it likes: stdout, the announcement's, is kept apart from what it prints.
    announce = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    configuration = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not configuration:
        return
    _die_with_parent(configuration["parent"])
    try:
        server = _load(configuration)
        line = {"port": int(server.listening_address.rsplit(":", 1)[1])}
    except Exception as error:
        line = {"error": str(error) or type(error).__name__}
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(line), file=announce, flush=True)
    if "port" in line:
        while sys.stdin.buffer.read(4096):
            pass
    # Not `sys.exit`: the server's threads are in the middle of things that nobody waits for.
    os._exit(0 if "port" in line else 1)


def _die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the thread that started us ends (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before we asked.
        os._exit(1)


def _load(configuration: dict[str, Any]) -> Any:
    xllamacpp: Any = importlib.import_module("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = configuration["path"]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [configuration["api_key"]]
    parameters.n_ctx = configuration["n_ctx"]
    parameters.n_parallel = configuration["n_parallel"]
    # One pool of context for all slots, so that a single long conversation may use all of it.
    parameters.kv_unified = True
    parameters.cpuparams.n_threads = configuration["n_threads"]
    parameters.cpuparams_batch.n_threads = configuration["n_threads"]
    parameters.sampling.penalty_repeat = configuration["repeat_penalty"]
    parameters.use_jinja = True
    # No page, no look into other callers' slots, no cache of old prompts in main memory beside the slots' own.
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.cache_ram_mib = 0
    parameters.verbosity = 1
    return xllamacpp.Server(parameters)


if __name__ == "__main__":
    main()
