"""One message, for scripts and pipes: `--message`, or standard input.

On a terminal the answer is shown as in the conversation. Elsewhere stdout gets the text of the answer, and stderr what
else there is to say. The text comes a step at a time, when it can't be superseded any more: a pipe can take nothing
back. With `--json` stdout gets the events instead, as they come, one a line.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from turnwire.chat.options import ChatOptions, ServerAccess, find_session, open_session, turn_settings
from turnwire.chat.plain import plain
from turnwire.chat.screen import Screen, make_console
from turnwire.chat.view import TurnView
from turnwire.chat.watch import Detach, Dropped, Leave, Watch
from turnwire.client import (
    AsyncClient,
    AsyncTurn,
    Conflict,
    Event,
    MessageCancelled,
    MessageError,
    MessageResumed,
    NotFound,
    ProtocolError,
    TextDelta,
    TextStart,
    ToolCallRequested,
    ToolResult,
    TurnwireError,
    Waiting,
)

MakeTurn = Callable[[], Awaitable[AsyncTurn]]

INTERRUPTED = 130  # as shells have it: 128 + SIGINT
CANCEL_S = 10.0
"""How long Ctrl-C waits for the turn's ending; a second one doesn't."""


class Script:
    """`yes`: approvals are given; else they are refused, as there is nobody to ask."""

    def __init__(self, access: ServerAccess, options: ChatOptions, *, as_json: bool = False, yes: bool = False) -> None:
        self._access, self._options = access, options
        self._json, self._yes = as_json, yes
        self._view: TurnView | None = None
        self._turn: AsyncTurn | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._pending: list[tuple[int, str]] = []
        """Text that may be superseded yet, with the numbers of its events."""
        self._texts = 0

    async def run(self, message: str) -> int:
        """Send the message, show its turn; the exit code."""
        words = self._access.start()
        if self._access.started:
            _note(words[:1].upper() + words[1:] + ".")
        try:
            return await self._run(message)
        finally:
            await self._access.close()

    async def _run(self, message: str) -> int:
        client: AsyncClient | None = None

        async def turn() -> AsyncTurn:
            nonlocal client
            client = await self._access.connect(self._on_wait)
            session = await find_session(client, self._options)
            begun = session or await open_session(client, self._options, message)
            return begun.send(message, model=self._options.model, **turn_settings(self._options))

        shown = sys.stdout.isatty() and not self._json
        try:
            code = await (self._show(turn) if shown else self._print(turn))
        except (TurnwireError, ProtocolError) as exc:
            _note(str(exc))
            code = 1
        finally:
            if client is not None:
                await client.close()
        return code

    def _on_wait(self, waiting: Waiting) -> None:
        if self._view is not None:
            self._view.waits(waiting)
        elif waiting.why == "disconnected" and waiting.tries == 1:
            _note("Connection lost. The turn goes on. Reconnecting …")

    async def _show(self, make: MakeTurn) -> int:
        """On a terminal."""
        from prompt_toolkit.input import create_input

        source = create_input() if sys.stdin.isatty() else None
        self._view = TurnView(Screen(make_console()), [], show_thinking=self._options.show_thinking)
        watch = Watch(self._view, make, keyboard_input=source)
        try:
            await watch.run()
        except (Dropped, Leave):
            return INTERRUPTED
        except Detach:
            return 0
        finally:
            _hint(watch.turn)
        if isinstance(self._view.ending, MessageCancelled):
            return INTERRUPTED if watch.interrupts else 1
        return 1 if isinstance(self._view.ending, MessageError) else 0

    async def _print(self, make: MakeTurn) -> int:
        """In a pipe."""
        interrupts = 0
        reading = asyncio.create_task(self._read(make))

        def interrupt() -> None:
            nonlocal interrupts
            interrupts += 1
            turn = self._turn
            if interrupts > 1 or turn is None or turn.response_id is None:
                reading.cancel()
            else:
                self._cancelling = asyncio.create_task(self._cancel(turn, reading))

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            ending = await reading
        except asyncio.CancelledError:
            if not interrupts:
                raise
            return INTERRUPTED
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            _hint(self._turn)
        if interrupts:
            return INTERRUPTED
        if isinstance(ending, MessageError):
            _note(ending.error)
        elif isinstance(ending, MessageCancelled):
            _note("The turn was cancelled.")
        return 1 if isinstance(ending, MessageError | MessageCancelled) else 0

    async def _cancel(self, turn: AsyncTurn, reading: "asyncio.Task[Event | None]") -> None:
        try:
            async with asyncio.timeout(CANCEL_S):
                await turn.cancel()
                await asyncio.wait([reading])
        except (TurnwireError, TimeoutError):
            reading.cancel()

    async def _read(self, make: MakeTurn) -> Event | None:
        """Read the turn to its ending."""
        turn = self._turn = await make()
        event: Event | None = None
        async for event in turn:
            if self._json:
                _line(event, turn.sequence_number)
            else:
                self._text(event, turn.sequence_number)
            if isinstance(event, ToolCallRequested) and event.kind == "approval":
                await self._answer(turn, event)
        self._flush()
        if self._texts:
            _out("\n")
        return event

    async def _answer(self, turn: AsyncTurn, call: ToolCallRequested) -> None:
        if not self._yes:
            _note(f"{call.name} is refused, as there is nobody to ask: --yes allows all.")
        with suppress(Conflict, NotFound):  # somebody else was first
            await turn.session.approve(call.id, True if self._yes else (False, "There is nobody to ask."))

    def _text(self, event: Event, seq: int) -> None:
        match event:
            case TextStart():
                self._pending.append((seq, ""))
            case TextDelta(content=content):
                self._pending.append((seq, plain(content)))
            case MessageResumed(superseded_from=superseded_from):
                self._pending = [piece for piece in self._pending if piece[0] < superseded_from]
            case ToolResult():
                self._flush()
            case _:
                pass

    def _flush(self) -> None:
        """Print the text; blank lines part its blocks."""
        pending, self._pending = self._pending, []
        for _, text in pending:
            if text:
                _out(text)
            else:
                _out("\n\n" * bool(self._texts))
                self._texts += 1


def _line(event: Event, seq: int) -> None:
    fields = msgspec.to_builtins(event)
    _out(json.dumps({"seq": seq, "type": event.type, **fields}) + "\n")


def _out(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _note(text: str) -> None:
    sys.stderr.write(f"turnwire: {plain(text)}\n")


def _hint(turn: AsyncTurn | None) -> None:
    """How to go on; to a person only."""
    if turn is not None and sys.stderr.isatty():
        sys.stderr.write(f"To go on: turnwire chat --session {turn.session.id}\n")
