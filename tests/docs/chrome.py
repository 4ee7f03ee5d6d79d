"""A real Chromium, driven over its own pipe by the DevTools protocol: open a page, evaluate expressions in it.

with chrome(tmp_path) as browser:
    page = browser.open("http://127.0.0.1:3000")
    page.until("document.title === 'done'")
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.browser import FLAGS
from plugins.tools import CHROMIUM_NAMES

TIMEOUT_S = 30.0


class Browser:
    """`write` and `read` are the ends of the pipe: JSON texts, each with a zero byte behind it."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._rest = b""
        self._count = 0

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._read, 1 << 16)
            assert piece, "the browser has ended"
            self._rest += piece
        first, _, self._rest = self._rest.partition(b"\0")
        return json.loads(first)

    def open(self, url: str) -> "Page":
        target = self.call("Target.createTarget", url=url)["targetId"]
        return Page(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, awaited when it is a promise; AssertionError when it throws."""
        answer = self._browser.call(
            "Runtime.evaluate", self._session, expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, timeout_s: float = TIMEOUT_S) -> Any:
        """The first true value of an expression."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, (
                f"{expression} did not come true: {self.evaluate('document.body.innerText')}"
            )
            time.sleep(0.05)
        return value


@contextmanager
def chrome(folder: Path) -> Iterator[Browser]:
    program = next(path for name in CHROMIUM_NAMES if (path := shutil.which(name)))
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # The browser reads from its descriptor 3 and writes to 4.
    shell = [
        "bash",
        "-c",
        f'"$@" 3<&{to_read} 4>&{from_write}',
        "bash",
        program,
        *FLAGS,
        f"--user-data-dir={folder}/profile",
    ]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [*shell, "about:blank"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(to_read, from_write)
        )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Browser(to_write, from_read)
    finally:
        os.close(to_write)  # the pipe's end is the browser's
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(from_read)
