"""`turnwire chat`: a conversation in the terminal, or one message from a script."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from turnwire.chat.options import ChatOptions
from turnwire.cli.access import Access, Given, WrongUse, state_dir
from turnwire.client.operations import check_id


def chat(given: Given, options: ChatOptions, *, message: str | None, as_json: bool, yes: bool) -> int:
    """The exit code.

    Raises:
        Failed: there is no server, and none can be started.
    """
    access = Access(given)
    if options.session_id is not None:
        try:
            check_id("session", options.session_id)
        except ValueError as exc:
            raise WrongUse(str(exc)) from exc
    if message is None and not sys.stdin.isatty():
        message = "-"
    if message is not None:
        text = read_message() if message == "-" else message
        if not text.strip():
            raise WrongUse("The message is empty.")
        from turnwire.chat.script import Script

        return run(Script(access, options, as_json=as_json, yes=yes).run(text))
    if as_json or yes:
        raise WrongUse("--json and --yes go with one message: --message TEXT, or standard input.")
    if not sys.stdout.isatty():
        raise WrongUse("stdout is no terminal: say what to send, by --message TEXT or standard input.")
    from turnwire.chat.talk import Talk

    return run(Talk(access, options._replace(history=state_dir() / "history")).run())


def read_message() -> str:
    """All of standard input."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise WrongUse("What stands on standard input is no UTF-8 text.") from None


def run(what: Coroutine[Any, Any, int]) -> int:
    # What the client logs is for programs; a person is told in the view.
    logging.getLogger("turnwire.client").addHandler(logging.NullHandler())
    try:
        return asyncio.run(what)
    except BrokenPipeError:
        # Nobody reads on. Python would write the rest when it ends, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except asyncio.CancelledError:  # SIGTERM, or the terminal is gone
        return 128 + signal.SIGTERM
