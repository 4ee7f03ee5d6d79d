"""A real terminal: tmux, with a program in it."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT_S = 20.0


class Terminal:
    """A window of `columns` by `rows`, in which `command` runs; it stays when that has ended."""

    def __init__(self, folder: Path, command: list[str], env: dict[str, str], columns: int, rows: int) -> None:
        # Its own, also where the one before was in the same folder: a tmux that is ending still answers at its socket.
        folder = Path(tempfile.mkdtemp(dir=folder))
        self._socket = folder / "tmux"
        self._ended = folder / "exit-code"
        script = folder / "script"
        words = " ".join(f"'{word}'" for word in command)
        script.write_text(f"trap : INT\n{words}\necho $? > {self._ended}\nexec cat\n")
        variables = [f"{name}={value}" for name, value in env.items()]
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows),
            "env", "-i", *variables, "TERM=tmux-256color", "sh", str(script),
        )  # fmt: skip

    def _tmux(self, *words: str) -> str:
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        done = subprocess.run(
            ["tmux", "-u", "-S", self._socket, *words], capture_output=True, text=True, timeout=10, env=env
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """By tmux's names: Enter, C-c, M-Enter, Up."""
        self._tmux("send-keys", *keys)

    def send(self, *lines: str) -> None:
        """A message, of several lines by Alt-Enter."""
        for number, line in enumerate(lines):
            if number:
                self.press("M-Enter")
            self.type(line)
        self.press("Enter")

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def colored(self) -> str:
        """What is on the screen, with its colours as the terminal would be told them."""
        return self._tmux("capture-pane", "-p", "-e")

    def everything(self) -> str:
        """The screen, and what has scrolled away; wrapped lines are one."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-")

    def until(self, text: str, *, gone: bool = False, timeout_s: float = TIMEOUT_S) -> str:
        """What is on the screen once the text is there, or there no more."""
        deadline = time.monotonic() + timeout_s
        while (text in (screen := self.screen())) == gone:
            assert time.monotonic() < deadline, f"{text!r} did not {'go' if gone else 'come'}:\n{self.everything()}"
            time.sleep(0.03)
        return screen

    def at_rest(self) -> str:
        """What is on the screen once no turn runs: what is sent earlier waits for its end."""
        return self.until("Ctrl-C stops", gone=True)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def exit_code(self) -> int:
        """Once the program has ended."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (self._ended.exists() and self._ended.read_text().strip()):
            assert time.monotonic() < deadline, self.everything()
            time.sleep(0.03)
        return int(self._ended.read_text())

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, timeout=10)


@contextmanager
def terminal(
    folder: Path, command: list[str], env: dict[str, str], *, columns: int = 80, rows: int = 24
) -> Iterator[Terminal]:
    folder.mkdir(parents=True, exist_ok=True)
    opened = Terminal(folder, command, env, columns, rows)
    try:
        yield opened
    finally:
        opened.close()
