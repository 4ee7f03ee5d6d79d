"""The command line. Results go to stdout, everything else to stderr.

Exit codes: 0 done or stopped as asked, 1 failed, 2 wrong usage or settings, 130 a turn that Ctrl-C stopped. A failure
that can be foreseen is one sentence, never a traceback. Each command imports what it needs when it runs, so that none
waits for the others' parts.
"""

import io
import os
import sys
from typing import NoReturn


class Failed(Exception):
    """A command could not do what it was asked to: one sentence that says why and what to do."""

    exit_code = 1


FOREIGN_ERRORS = (
    ("turnwire.stores.common", "StoreRefused"),
    ("turnwire.models.errors", "ModelError"),
    ("turnwire.protocol.errors", "TurnwireError"),
    ("turnwire.protocol.errors", "RemoteProtocolError"),
)


def main() -> NoReturn:
    """The program `turnwire`."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        # A folder's name that the terminal can't show is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    from turnwire.cli.app import app

    try:
        try:
            app(prog_name="turnwire")
        finally:
            _flush()
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == "turnwire":
            raise
        _stop(1, f"This command needs the server's parts ({exc.name} is missing): pip install 'turnwire[server]'.")
    except Exception as exc:
        # Settings, data folder, store and models each have errors of their own; those for people say so.
        code = exit_code(exc)
        if code is None:
            raise
        _stop(code, str(exc))
    raise AssertionError("typer ends the program")


def exit_code(exc: Exception) -> int | None:
    """The exit code of an error that is a sentence for people; None: it is none, but a bug."""
    code = getattr(exc, "exit_code", None)
    if isinstance(code, int):
        return code
    # Of parts that know nothing of a command line; they are imported only when a command has imported them.
    for module, name in FOREIGN_ERRORS:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(exc, kind):
            return 1
    return None


def _open_closed() -> None:
    """In the place of a stream that was closed by who started us: what reads has its end, what writes is lost."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def _flush() -> None:
    """Write what is left; where nobody reads on (`| head`), quietly not. Python itself would complain at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _stop(code: int, sentence: str) -> NoReturn:
    from turnwire.chat.plain import plain

    print(f"turnwire: {plain(sentence)}", file=sys.stderr)  # a server may have written it
    sys.exit(code)
