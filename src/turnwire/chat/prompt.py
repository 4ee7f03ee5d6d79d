"""The line that a person writes: history, Alt-Enter, Ctrl-C, Ctrl-D, Ctrl-O."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.styles import Style

from turnwire.chat.screen import Marks

HISTORY_BYTES_MAX = 1_000_000
TWICE_S = 2.0
"""Two Ctrl-C within this time leave."""

STYLE = Style.from_dict(
    {"prompt": "ansicyan bold", "bottom-toolbar": "noreverse", "bottom-toolbar.text": "ansibrightblack"}
)


class Prompt:
    """`ask()` gives the next message; None: leave."""

    def __init__(
        self,
        marks: Marks,
        history: Path | None,
        source: Input,
        *,
        commands: list[str],
        status: Callable[[], str],
        unfold: Callable[[], None],
    ) -> None:
        self._marks = marks
        self._interrupted_at = float("-inf")
        self._unfold = unfold
        self.session: PromptSession[str | None] = PromptSession(
            history=open_history(history),
            input=source,
            multiline=True,
            key_bindings=self._bindings(),
            prompt_continuation="  ",
            completer=_Commands(commands),
            complete_while_typing=False,
            enable_history_search=False,
            style=STYLE,
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            bottom_toolbar=lambda: [("class:bottom-toolbar.text", status())],
            reserve_space_for_menu=0,
        )

    async def ask(self, default: str = "") -> str | None:
        return await self.session.prompt_async([("class:prompt", f"{self._marks.prompt} ")], default=default)

    async def edit(self, text: str) -> str | None:
        """Edit another text: Enter takes it, Ctrl-C doesn't."""
        bindings = KeyBindings()
        bindings.add("enter")(_accept)
        bindings.add("escape", "enter")(_newline)
        bindings.add("c-c")(_give_up)
        bindings.add("c-d")(_give_up)
        bindings.add(Keys.Vt100MouseEvent)(_nothing)
        editor: PromptSession[str | None] = PromptSession(
            history=InMemoryHistory(),
            input=self.session.input,
            multiline=True,
            key_bindings=bindings,
            bottom_toolbar="Enter allows it so, Ctrl-C goes back",
            style=STYLE,
            color_depth=self.session.color_depth,
        )
        return await editor.prompt_async("  ", default=text, prompt_continuation="  ")

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()

        @bindings.add("enter")
        def _send(event: KeyPressEvent) -> None:  # pyright: ignore[reportUnusedFunction]
            if event.current_buffer.text.strip():
                event.current_buffer.validate_and_handle()

        bindings.add("escape", "enter")(_newline)
        bindings.add(Keys.Vt100MouseEvent)(_nothing)

        @bindings.add("c-c")
        def _interrupt(event: KeyPressEvent) -> None:  # pyright: ignore[reportUnusedFunction]
            now = time.monotonic()
            if event.current_buffer.text:
                event.current_buffer.reset()
            elif now - self._interrupted_at < TWICE_S:
                event.app.exit(result=None)
            self._interrupted_at = now

        @bindings.add("c-d")
        def _leave(event: KeyPressEvent) -> None:  # pyright: ignore[reportUnusedFunction]
            if event.current_buffer.text:
                event.current_buffer.delete()
            else:
                event.app.exit(result=None)

        @bindings.add("c-o")
        def _show(event: KeyPressEvent) -> None:  # pyright: ignore[reportUnusedFunction]
            from prompt_toolkit.application import run_in_terminal

            del event
            run_in_terminal(self._unfold)

        return bindings

    @property
    def just_interrupted(self) -> bool:
        return time.monotonic() - self._interrupted_at < TWICE_S


def _accept(event: KeyPressEvent) -> None:
    event.current_buffer.validate_and_handle()


def _newline(event: KeyPressEvent) -> None:
    event.current_buffer.insert_text("\n")


def _nothing(event: KeyPressEvent) -> None:
    """No mouse is asked for; what looks like one is a colour in a text that was pasted, at which the library's own
    binding fails."""
    del event


def _give_up(event: KeyPressEvent) -> None:
    event.app.exit(result=None)


class _Commands(Completer):
    """Completes the commands of the chat."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        del complete_event
        text = document.text_before_cursor
        if text.startswith("/") and " " not in text and "\n" not in text:
            for name in self._names:
                if name.startswith(text):
                    yield Completion(name, -len(text))


def open_history(path: Path | None) -> History:
    """In a file that only its owner can read; in memory when there can't be one."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.fchmod(fd, 0o600)
            _shorten(fd)
        finally:
            os.close(fd)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def _shorten(fd: int) -> None:
    """Keep the newer half of a history that has grown long."""
    size = os.fstat(fd).st_size
    if size <= HISTORY_BYTES_MAX:
        return
    newer = os.pread(fd, HISTORY_BYTES_MAX // 2, size - HISTORY_BYTES_MAX // 2)
    kept = newer[max(newer.find(b"\n# "), 0) :]
    os.pwrite(fd, kept, 0)
    os.ftruncate(fd, len(kept))
