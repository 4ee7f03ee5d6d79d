"""The conversation: a line from the person, a turn on the screen, again."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from prompt_toolkit.input import create_input

from turnwire import __version__
from turnwire.chat.keys import Keyboard
from turnwire.chat.options import ChatOptions, ServerAccess, find_session, open_session, turn_settings
from turnwire.chat.plain import one_line, plain
from turnwire.chat.prompt import Prompt
from turnwire.chat.screen import Screen, make_console, styled
from turnwire.chat.view import Fold, TurnView
from turnwire.chat.watch import Detach, Dropped, Leave, Watch
from turnwire.client import (
    AsyncClient,
    AsyncSession,
    AsyncTurn,
    MessageCompleted,
    NotFound,
    ProtocolError,
    TurnwireError,
    Unreachable,
    Waiting,
)

GOODBYE_S = 3.0
"""How long leaving waits for a turn to be cancelled."""


class Talk:
    """One run of the chat. `client` and `session` are there once they are needed."""

    def __init__(self, access: ServerAccess, options: ChatOptions) -> None:
        from turnwire.chat.commands import COMMANDS

        self.access, self.options = access, options
        self.screen = Screen(make_console())
        self.folds: list[Fold] = []
        self.session: AsyncSession | None = None
        self.view: TurnView | None = None
        self.default = ""
        """What stands in the next line already; `ready`: it is to be sent as it is."""
        self.ready = False
        self.words = ""
        self._input = create_input()
        self._connecting: asyncio.Task[AsyncClient] | None = None
        self._shown_folds = 0
        self.prompt = Prompt(
            self.screen.marks,
            options.history,
            self._input,
            commands=sorted(COMMANDS),
            status=self._status,
            unfold=self.unfold,
        )

    async def run(self) -> int:
        """Until the person leaves; the exit code."""
        self.words = self.access.start()
        marks = self.screen.marks
        self.screen.print(styled((f"turnwire {__version__} {marks.dot} {self.words} {marks.dot} /help", "dim")))
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        self._connecting = asyncio.create_task(self._connect())
        try:
            # All the while: keys that are pressed between two lines are for the next one.
            with self._input.raw_mode():
                if self.options.session_id is not None or self.options.last:
                    await self._go_on()
                await self._converse()
        except Leave:
            pass
        finally:
            await self._close()
        return 0

    async def client(self) -> AsyncClient:
        assert self._connecting is not None
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> AsyncClient:
        client = await self.access.connect(self._on_wait)
        with suppress(NotFound):  # a server of the founding contract
            models = await client.models()
            default = next((model.id for model in models if model.default), "")
            self.model_words = one_line(self.options.model or default, 60)
        return client

    model_words = ""

    def _on_wait(self, waiting: Waiting) -> None:
        if self.view is not None:
            self.view.waits(waiting)

    async def _close(self) -> None:
        try:
            if self._connecting is not None:
                self._connecting.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await (await self._connecting).close()
            with suppress(OSError):  # the terminal is gone
                self.screen.clear()
                if self.session is not None:
                    self.screen.print(styled((f"To go on: turnwire chat --session {self.session.id}", "dim")))
        finally:
            await self.access.close()

    def _status(self) -> str:
        assert self._connecting is not None
        if self.prompt.just_interrupted:
            return "Ctrl-C again leaves, and so does Ctrl-D"
        if not self._connecting.done():
            return "starting the server" if self.access.started else "connecting"
        dot = f" {self.screen.marks.dot} "
        session = self.session.id if self.session is not None else "new session"
        return dot.join(filter(None, [self.model_words, session]))

    # Lines and turns

    async def _converse(self) -> None:
        from turnwire.chat.commands import is_command, run_command

        while True:
            text = await self._ask()
            if text is None:
                return
            if is_command(text):
                await self._interruptible(run_command(self, text))
            else:
                await self.say(text[1:] if text.startswith("//") else text)

    async def _interruptible(self, what: Coroutine[Any, Any, None]) -> None:
        """Until it is done, or Ctrl-C."""
        task = asyncio.create_task(what)

        def on_interrupt() -> None:
            task.cancel()

        keyboard = Keyboard(self._input, on_interrupt)
        with keyboard:
            await asyncio.wait([task])
        self.default, self.ready = keyboard.typed, keyboard.ready
        if task.cancelled():
            self.screen.print(styled(("stopped", "yellow")))
        else:
            task.result()

    async def _ask(self) -> str | None:
        """The next line. What keeps the server from being reached is not waited for."""
        assert self._connecting is not None
        default, self.default = self.default, ""
        if self.ready and default.strip():
            self.ready = False
            self.screen.print(styled((f"{self.screen.marks.prompt} ", "bold cyan"), plain(default)))
            return default
        asking = asyncio.create_task(self.prompt.ask(default))
        try:
            if not self._connecting.done():
                await asyncio.wait([asking, self._connecting], return_when=asyncio.FIRST_COMPLETED)
                if self._connecting.done():
                    self._connecting.result()
                    self.prompt.session.app.invalidate()
            return await asking
        except EOFError:  # the terminal is gone
            return None
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def say(self, text: str) -> None:
        """Send a message, and show its turn."""

        async def turn() -> AsyncTurn:
            client = await self.client()
            if self.session is None:
                self.session = await open_session(client, self.options, text)
            model = self.options.model if self.session.record.model != self.options.model else None
            return self.session.send(text, model=model, **turn_settings(self.options))

        self.screen.print("")
        view = TurnView(self.screen, self.folds, show_thinking=self.options.show_thinking)
        if not await self._watch(view, turn):
            self.default = text

    async def follow(self, session: AsyncSession) -> None:
        """Show the turn that runs."""
        response_id = session.record.response_id
        until = -1
        if isinstance(response_id, str):
            with suppress(NotFound):
                until = (await session.response(response_id)).last_sequence_number
        self.screen.print(styled(("A turn is running: this is it from its beginning.", "dim")))

        async def turn() -> AsyncTurn:
            return session.follow()

        await self._watch(
            TurnView(self.screen, self.folds, show_thinking=self.options.show_thinking, history_until=until), turn
        )

    async def _watch(self, view: TurnView, turn: Callable[[], Awaitable[AsyncTurn]]) -> bool:
        """Whether the turn has begun: else the message may be sent again."""
        self.view = view
        watch = Watch(view, turn, keyboard_input=self._input, unfold=self.unfold, edit=self.prompt.edit)
        try:
            await watch.run()
        except Dropped:
            view.say(f"{self.screen.marks.stopped} not sent", "yellow")
            return False
        except Leave:
            await self._goodbye(watch.turn)
            raise
        except Detach:
            if watch.turn is not None and not watch.turn.ended:
                self.screen.print(styled(("The turn goes on.", "dim")))
            raise Leave from None
        except (TurnwireError, ProtocolError) as exc:
            self._show_error(exc)
            return watch.turn is not None and watch.turn.response_id is not None
        finally:
            self.view = None
            self.default = watch.typed
            self.ready = watch.typed_ready and isinstance(view.ending, MessageCompleted)
            self.screen.print("")
        return True

    async def _goodbye(self, turn: AsyncTurn | None) -> None:
        if turn is not None and not turn.ended:
            with suppress(TurnwireError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await turn.cancel()

    def _show_error(self, exc: Exception) -> None:
        self.screen.print(styled((f"{self.screen.marks.failed} {plain(str(exc))}", "red")))
        if isinstance(exc, Unreachable) and self.session is not None:
            self.screen.print(styled((f"The turn goes on there: /open {self.session.id} shows it.", "dim")))

    # A session that was there before

    async def _go_on(self) -> None:
        client = await self.client()
        session = await find_session(client, self.options)
        if session is None:
            self.screen.print(styled(("There is no session yet: this begins one.", "dim")))
            return
        await self.enter(session)

    async def enter(self, session: AsyncSession) -> None:
        """Go on in a session: its last exchange, and the turn that runs in it."""
        from turnwire.chat.commands import show_messages

        self.session = session
        messages = []
        with suppress(NotFound):
            messages = await session.messages()
        if session.record.busy and messages and messages[-1].role == "assistant":
            messages.pop()  # the running turn is shown by itself
        start = max((number for number, m in enumerate(messages) if m.role == "user"), default=0)
        if start:
            self.screen.print(styled((f"{start} messages before: /history shows all.", "dim")))
        show_messages(self, messages[start:])
        if session.record.busy:
            await self.follow(session)

    def unfold(self) -> None:
        """Print the last thing that was shown shortened; called again, the one before it."""
        waiting = len(self.folds) - self._shown_folds
        if not self.folds:
            return
        if waiting <= 0:
            self._shown_folds, waiting = 0, len(self.folds)
        fold = self.folds[waiting - 1]
        self._shown_folds += 1
        self.screen.print(
            styled((f"{self.screen.marks.unfolded} {one_line(fold.title, self.screen.width - 4)}", "dim bold")),
            *(styled((f"  {line}", "dim")) for line in plain(fold.text).split("\n")),
        )
