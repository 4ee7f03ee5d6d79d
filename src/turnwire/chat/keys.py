"""The keyboard while a turn runs, when no line is being edited."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from prompt_toolkit.input import Input
from prompt_toolkit.keys import Keys

TYPED_CHARACTERS_MAX = 10_000


class Keyboard:
    """Reads keys one by one. Ctrl-C, Ctrl-D, Ctrl-O and, while `on_answer` is set, single letters go to whom they are
    meant for; other text is kept in `typed`, for the next line, which Enter makes `ready` to be sent."""

    def __init__(
        self,
        source: Input,
        on_interrupt: Callable[[], None],
        on_leave: Callable[[], None] | None = None,
        on_unfold: Callable[[], None] | None = None,
    ) -> None:
        self._source = source
        self._on_interrupt, self._on_leave, self._on_unfold = on_interrupt, on_leave, on_unfold
        self.on_answer: Callable[[str], None] | None = None
        self.typed = ""
        self.ready = False
        self._open: ExitStack | None = None

    def start(self) -> None:
        if self._open is None:
            self._open = ExitStack()
            self._open.enter_context(self._source.raw_mode())
            self._open.enter_context(self._source.attach(self._ready))

    def stop(self) -> None:
        stack, self._open = self._open, None
        if stack is not None:
            stack.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ready(self) -> None:
        for press in self._source.read_keys():
            match press.key:
                case Keys.ControlC:
                    self._on_interrupt()
                case Keys.ControlD if self._on_leave is not None and not self.typed:
                    self._on_leave()
                case Keys.ControlO if self._on_unfold is not None:
                    self._on_unfold()
                case Keys.ControlM if self.typed.strip():
                    self.ready = True
                case Keys.Backspace:
                    self.typed, self.ready = self.typed if self.ready else self.typed[:-1], False
                case Keys.ControlU:
                    self.typed, self.ready = "", False
                case Keys.BracketedPaste:
                    self._text(press.data)
                case Keys():
                    pass
                case text:
                    if self.on_answer is not None:
                        self.on_answer(text)
                    else:
                        self._text(text)
        if self._source.closed:  # the terminal is gone
            asyncio.get_running_loop().call_soon(self.stop)

    def _text(self, text: str) -> None:
        if self.ready:  # it goes on with a further line
            self.typed, self.ready = self.typed + "\n", False
        if len(self.typed) < TYPED_CHARACTERS_MAX:
            self.typed += text.replace("\r\n", "\n").replace("\r", "\n")
