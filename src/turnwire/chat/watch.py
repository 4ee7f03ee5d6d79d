"""One turn, watched: its events into the view, the view onto the screen, the keyboard to whom it concerns."""

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from prompt_toolkit.input import Input

from turnwire.chat.keys import Keyboard
from turnwire.chat.plain import one_line
from turnwire.chat.screen import styled
from turnwire.chat.view import TurnView
from turnwire.client import AsyncTurn, Conflict, NotFound, ToolCallRequested, TurnwireError

FRAME_S = 0.08
"""Between two drawings: a dozen a second look fluent, and cost little."""

REST_FACTOR = 3
"""After a drawing that took t the screen rests for 3 t: at most a quarter of the time goes into drawing."""

DEAD_S = 0.4
"""What is typed in the first moment of a question was meant for something else."""

QUIET_S = 0.15
"""A question is put when nothing has come for so long: in a replay its answer may be right behind it."""

EVENTS_AT_ONCE = 200
"""Then others have their turn: a replay comes faster than the loop would look elsewhere."""


class Leave(Exception):
    """The person wants to leave now."""


class Detach(Exception):
    """The person wants to leave, and the turn to go on."""


class Dropped(Exception):
    """Ctrl-C came before the turn had begun, as far as is known here."""


Edit = Callable[[str], Awaitable[str | None]]
"""Lets a person edit a text; None: they don't want to any more."""


class Watch:
    """`turn()` makes the turn; what it raises comes out of `run()`. `interrupts` counts Ctrl-C."""

    def __init__(
        self,
        view: TurnView,
        turn: Callable[[], Awaitable[AsyncTurn]],
        *,
        keyboard_input: Input | None = None,
        unfold: Callable[[], None] | None = None,
        edit: Edit | None = None,
    ) -> None:
        self._view, self._make = view, turn
        self._edit = edit
        self._keyboard = (
            Keyboard(keyboard_input, self.interrupt, self._detach, unfold) if keyboard_input is not None else None
        )
        self._reading: asyncio.Task[None] | None = None
        self._helpers: set[asyncio.Task[Any]] = set()
        self._last_event = 0.0
        self._left = asyncio.Event()
        self._detached = False
        self.turn: AsyncTurn | None = None
        self.interrupts = 0

    async def run(self) -> None:
        """Until the turn has ended.

        Raises:
            Leave: Ctrl-C was pressed twice.
            Detach: Ctrl-D was pressed.
            Dropped: it was pressed before there was a turn.
            TurnwireError: from the turn.
        """
        self._reading = asyncio.create_task(self._read())
        drawing = asyncio.create_task(self._draw())
        asking = asyncio.create_task(self._ask())
        leaving = asyncio.create_task(self._left.wait())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        if self._keyboard is not None:
            self._keyboard.start()
        try:
            await asyncio.wait([self._reading, drawing, asking, leaving], return_when=asyncio.FIRST_COMPLETED)
            if self._reading.cancelled():
                raise Dropped
            for task in (self._reading, drawing, asking):
                if task.done():
                    task.result()
            if self._detached:
                raise Detach
            if not self._reading.done():
                raise Leave
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            if self._keyboard is not None:
                self._keyboard.stop()
            tasks: list[asyncio.Task[Any]] = [self._reading, drawing, asking, leaving, *self._helpers]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._view.question = []
            self._view.draw()
            self._view.screen.clear()

    @property
    def typed(self) -> str:
        return self._keyboard.typed if self._keyboard is not None else ""

    @property
    def typed_ready(self) -> bool:
        """Whether what was typed is to be sent."""
        return self._keyboard is not None and self._keyboard.ready

    def _detach(self) -> None:
        self._detached = True
        self._left.set()

    def interrupt(self) -> None:
        self.interrupts += 1
        if self.interrupts > 1:
            self._left.set()
        elif self.turn is not None and self.turn.response_id is not None:
            self._view.stopping = True
            self._start(self._cancel(self.turn))
        elif self._reading is not None:
            self._reading.cancel()

    async def _cancel(self, turn: AsyncTurn) -> None:
        with suppress(TurnwireError):  # the stream says how it ends
            await turn.cancel()

    def _start(self, what: Any) -> None:
        task = asyncio.create_task(what)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    async def _read(self) -> None:
        self.turn = await self._make()
        count = 0
        async for event in self.turn:
            self._last_event = time.monotonic()
            self._view.take(event, self.turn.sequence_number)
            count += 1
            if count % EVENTS_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _draw(self) -> None:
        while True:
            began = time.perf_counter()
            self._view.typed, self._view.typed_ready = self.typed, self.typed_ready
            self._view.draw()
            took = time.perf_counter() - began
            await asyncio.sleep(max(FRAME_S, REST_FACTOR * took))

    # Approvals

    async def _ask(self) -> None:
        """Put the calls that wait to the person, one after another."""
        view = self._view
        while True:
            await asyncio.sleep(FRAME_S)
            call = next(iter(view.asked.values()), None)
            if call is not None and time.monotonic() - self._last_event > QUIET_S:
                await self._ask_for(call)

    async def _ask_for(self, call: ToolCallRequested) -> None:
        view = self._view
        if self._keyboard is None:
            view.say(f"{call.name} needs an approval, and there is nobody here to ask: it is refused.", "yellow")
            await self._answer(call, (False, "There is nobody to ask."))
            return
        view.ask(call)
        view.screen.ring()
        while call.id in view.asked:
            letter = await self._letter(call)
            if letter == "e" and self._edit is not None:
                said = await self._edited(call)
                if said is None:
                    continue
            elif letter in ("y", "n"):
                said = letter == "y"
            else:
                continue
            await self._answer(call, said)
            return
        view.question = []

    async def _letter(self, call: ToolCallRequested) -> str | None:
        """The next key; None when the call waits no more."""
        assert self._keyboard is not None
        keyboard, view = self._keyboard, self._view
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        alive_at = time.monotonic() + DEAD_S

        def press(text: str) -> None:
            if time.monotonic() >= alive_at and not answer.done():
                answer.set_result(text.lower())

        keyboard.on_answer = press
        words = " [e]dit" if self._edit is not None else ""
        try:
            while call.id in view.asked:
                left = max(0, call.deadline - time.time())
                until = f"  {left / 60:.0f} min left" if left >= 90 else f"  {left:.0f} s left"
                view.question = [
                    styled(
                        ("? ", "bold yellow"), one_line(call.name, 40), (f"  [y]es [n]o{words}", "bold"), (until, "dim")
                    )
                ]
                done, _ = await asyncio.wait([answer], timeout=0.2)
                if done:
                    return answer.result()
            return None
        finally:
            keyboard.on_answer = None
            view.question = []

    async def _edited(self, call: ToolCallRequested) -> dict[str, Any] | None:
        """The input as the person has changed it; None: not at all."""
        assert self._edit is not None and self._keyboard is not None
        view, text = self._view, json.dumps(call.input, ensure_ascii=False, indent=2)
        self._keyboard.stop()
        view.screen.pause()
        try:
            edited = await self._edit(text)
        finally:
            view.screen.resume()
            self._keyboard.start()
        if edited is None:
            return None
        try:
            value = json.loads(edited)
        except ValueError as exc:
            view.say(f"This is no JSON: {exc}.", "red")
            return None
        if not isinstance(value, dict):
            view.say("The input must be a JSON object.", "red")
            return None
        return cast("dict[str, Any]", value)

    async def _answer(self, call: ToolCallRequested, said: Any) -> None:
        self._view.asked.pop(call.id, None)
        assert self.turn is not None
        try:
            await self.turn.session.approve(call.id, said)
        except (Conflict, NotFound):
            self._view.say("It was answered elsewhere, or too late.")
        except TurnwireError as exc:
            self._view.say(str(exc), "red")
            self._view.asked.setdefault(call.id, call)
