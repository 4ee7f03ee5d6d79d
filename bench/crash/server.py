"""The server as it is, with two things more: tools that leave a mark for each time that they ran, and a switch that
kills the process between a commit and the sending of what was committed.

`TURNWIRE_BENCH_MARKS` names the file of marks, a line each, `begin TOKEN` and `end TOKEN`.
"""

import asyncio
import os
import signal
import sys
from typing import NoReturn

from pydantic_ai.toolsets import FunctionToolset

from turnwire import wiring
from turnwire.cli import app, main, serve  # imported before the fork  # noqa: F401
from turnwire.engine.follow import Tail
from turnwire.models.resolve import Models
from turnwire.seams.tool import REPEATABLE, ToolContext


class MarkingTools(FunctionToolset[ToolContext]):
    """`count`, which must not run twice, and `look`, which may."""

    def __init__(self) -> None:
        super().__init__(id="marks", max_retries=0)
        marks = os.open(os.environ["TURNWIRE_BENCH_MARKS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        async def run(token: str, seconds: float, pad: str = "") -> str:
            os.write(marks, f"begin {token}\n".encode())
            await asyncio.sleep(seconds)
            os.write(marks, f"end {token}\n".encode())
            return f"done {token}"

        for name, repeatable in (("count", False), ("look", True)):
            self.add_function(run, name=name, description="Leave a mark.", metadata={REPEATABLE: repeatable})


def kill_at(commit: int) -> None:
    """Die behind this commit, before anybody is told of it."""
    publish = Tail.publish
    left = commit

    def publish_or_die(tail: Tail, first_seq: int, frames: bytes, *, ended: bool) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        publish(tail, first_seq, frames, ended=ended)

    Tail.publish = publish_or_die


def nursery() -> None:
    """Imports take seconds, and are no part of what is tested: so they are made once, in a process that then forks a
    server for each line on its standard input, the number of the commit to die behind (0: none). It prints the pid,
    then what the server prints, then `gone STATUS`.
    """
    asyncio.run(Models(os.environ["TURNWIRE_MODEL"]).preload())
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _become_server(int(line))
        print("pid", pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print("gone", os.waitstatus_to_exitcode(status), flush=True)


def _become_server(commit: int) -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["turnwire", "serve"]
    if commit:
        kill_at(commit)
    wiring.FileTools = MarkingTools  # pyright: ignore
    try:
        main()
    except SystemExit as exc:
        os._exit(exc.code if isinstance(exc.code, int) else 1)
    os._exit(0)


if __name__ == "__main__":
    nursery()
