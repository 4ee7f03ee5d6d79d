"""The client's logic without I/O: driven by a simulated server, in virtual time, with breaks anywhere."""

import json
import random
from typing import Any

import pytest

from turnwire.client.answering import Answerer
from turnwire.client.api import Api, Options, Patience
from turnwire.client.errors import Unreachable
from turnwire.client.records import SessionRecord
from turnwire.client.state import SessionState
from turnwire.client.steps import Broken, Course, Hangup, Read, Reply, Run, Send, Step, Wait
from turnwire.client.turns import TurnFlow
from turnwire.protocol.codec import encode_frames, number
from turnwire.protocol.errors import SessionBusy, Unavailable
from turnwire.protocol.events import (
    Event,
    MessageCompleted,
    MessageCreated,
    TextDelta,
    TextStart,
    TextStop,
    ToolResult,
    ToolUseExecuting,
    ToolUseInputDelta,
    ToolUseStart,
    ToolUseStop,
    Usage,
)

EVENTS: list[Event] = [
    MessageCreated("msg_1", "sess_1"),
    TextStart(),
    *[TextDelta(f"{n} \u2028é👍") for n in range(8)],
    TextStop(),
    ToolUseStart("ls", "call_1"),
    ToolUseInputDelta("{}"),
    ToolUseExecuting("ls", "call_1", {}),
    ToolUseStop(),
    ToolResult("call_1", "", False),
    MessageCompleted("msg_1", usage=Usage(requests=2)),
]
STREAM = {"content-type": "text/event-stream", "x-response-id": "msg_1"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def turn_of(clock: Clock, record: SessionRecord | None = None, **options: Any) -> TurnFlow:
    api = Api("http://x", Options(**options), clock)
    api.reached = True  # it made the session
    state = SessionState(api, record or SessionRecord("sess_1", response_id=None), Answerer())
    return TurnFlow(state, body={"message": "hi"})


class Simulated:
    """A server whose connections break, answers are refused, and bytes come in pieces, as chance has it."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.random = random.Random(seed)
        self.clock = clock
        self.keys: set[str] = set()
        self.begun = 0
        self.left = b""
        self.frames = [number(encode_frames([event]), seq) for seq, event in enumerate(EVENTS)]

    def perform(self, step: Step) -> Any:
        match step:
            case Send(request):
                return self._answer(request)
            case Read():
                if self.random.random() < 0.2:
                    raise Broken("reset", sent=True)
                size = self.random.randrange(1, 200)
                piece, self.left = self.left[:size], self.left[size:]
                return piece
            case Wait(seconds):
                assert seconds > 0
                self.clock.now += seconds
            case _:
                assert isinstance(step, Hangup)
        return None

    def _answer(self, request: Any) -> Reply:
        chance = self.random.random()
        if chance < 0.1:
            raise Broken("refused", sent=False)
        if chance < 0.2:
            return Reply(self.random.choice([502, 503, 504, 429]), {"retry-after": "1"}, b"")
        if request.method == "POST":
            self.keys.add(request.headers["Idempotency-Key"])
            self.begun += len(self.keys) > self.begun
            after = -1
        else:
            assert request.path == "/v1/sessions/sess_1/responses/msg_1/events"
            after = int(request.headers.get("Last-Event-ID", -1))
        if self.random.random() < 0.2:
            raise Broken("it came there, and no answer came back", sent=True)
        again = self.random.randrange(0, 3)  # a careless server repeats some
        self.left = b"".join(self.frames[max(0, after + 1 - again) :])
        return Reply(200, STREAM)


def drive(course: Course[Any], server: Any) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            out = course.next()
        except StopIteration:
            return found
        if not isinstance(out, Step):
            found.append(out)
            continue
        try:
            course.done(server.perform(out))
        except Broken as exc:
            course.broke(exc)


@pytest.mark.parametrize("seed", range(300))
def test_whatever_breaks_each_event_comes_once_and_in_order(seed: int) -> None:
    clock = Clock()
    turn, server = turn_of(clock), Simulated(seed, clock)

    assert drive(Course(turn.events()), server) == EVENTS
    assert server.begun == len(server.keys) == 1
    assert turn.result().usage.requests == 2


@pytest.mark.parametrize("seed", range(100))
def test_a_driver_that_is_stopped_anywhere_goes_on(seed: int) -> None:
    clock, chance = Clock(), random.Random(seed)
    turn, server = turn_of(clock), Simulated(seed, clock)
    course = Course(turn.events())
    found: list[Any] = []
    while True:
        try:
            out = course.next()
        except StopIteration:
            break
        if not isinstance(out, Step):
            found.append(out)
        elif chance.random() > 0.1:  # else it was interrupted, and is simply asked for the next step
            try:
                course.done(server.perform(out))
            except Broken as exc:
                course.broke(exc)

    assert found == EVENTS


class Dead:
    """A server that answered once, and never again."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.waits = clock, []

    def perform(self, step: Step) -> Any:
        if isinstance(step, Wait):
            self.waits.append(step.seconds)
            self.clock.now += step.seconds
            return None
        if isinstance(step, Hangup):
            return None
        raise Broken("refused", sent=False)


def test_waits_double_to_a_bound_and_end_in_time() -> None:
    clock = Clock()
    turn = turn_of(clock, retry_timeout_s=60)
    server = Dead(clock)

    with pytest.raises(Unreachable):
        drive(Course(turn.events()), server)
    assert sum(server.waits) == pytest.approx(60)
    for wait, most in zip(server.waits, [0.25, 0.5, 1, 2, 4, 8, 8, 8, 8], strict=False):
        assert 0.75 * most <= wait <= most
    with pytest.raises(Unreachable):
        turn.result()


def waits_of(patience: Patience, clock: Clock, count: int, told_s: float | None = None) -> list[float]:
    waits = []
    for _ in range(count):
        for wait in patience.wait("refused", Unavailable(), told_s):
            waits.append(wait.seconds)
            clock.now += wait.seconds
    return waits


def test_what_is_told_is_waited_for_and_never_less() -> None:
    clock = Clock()

    assert waits_of(Patience(100, clock), clock, 3, told_s=5) == [5, 5, 5]
    assert max(waits_of(Patience(100, clock), clock, 6, told_s=0)) > 2


def test_getting_on_begins_patience_anew() -> None:
    clock = Clock()
    patience = Patience(10, clock)
    waits_of(patience, clock, 4)
    clock.now += 100
    patience.got_on()

    assert waits_of(patience, clock, 1) == []
    clock.now += 11
    with pytest.raises(Unavailable):
        waits_of(patience, clock, 1)


def test_a_busy_session_is_asked_after_at_short_intervals() -> None:
    clock = Clock()
    busy = json.dumps({"id": "sess_1", "busy": True, "response_id": "msg_0"}).encode()

    class Busy(Dead):
        def perform(self, step: Step) -> Any:
            if not isinstance(step, Send):
                return super().perform(step)
            if step.request.method == "POST":
                return Reply(409, {"x-response-id": "msg_0"}, b'{"error":"session_busy","message":"Busy."}')
            return Reply(200, {}, busy)

    server = Busy(clock)
    with pytest.raises(SessionBusy) as caught:
        drive(Course(turn_of(clock, busy_timeout_s=30).events()), server)
    assert caught.value.response_id == "msg_0"
    assert max(server.waits) <= 2
    assert sum(server.waits) == pytest.approx(30)


def test_a_long_silence_between_breaks_is_not_one_outage() -> None:
    """A server with heartbeats rarer than the client's patience: each connection lives, and is no failure."""
    clock = Clock()

    class Quiet(Dead):
        reads = 0

        def perform(self, step: Step) -> Any:
            match step:
                case Send():
                    return Reply(200, STREAM)
                case Read(timeout_s):
                    self.reads += 1
                    if self.reads < 30:
                        self.clock.now += timeout_s
                        raise Broken("silent", sent=True)
                    return number(encode_frames(EVENTS), 0)
                case _:
                    return super().perform(step)

    assert drive(Course(turn_of(clock, retry_timeout_s=60).events()), Quiet(clock)) == EVENTS


def test_a_function_that_was_interrupted_is_answered_as_failed() -> None:
    def flow() -> Any:
        return (yield Run([lambda: 1, lambda: 2]))

    course = Course(flow())
    course.next()
    with pytest.raises(StopIteration) as stop:
        course.next()
    assert [str(outcome.error) for outcome in stop.value.value] == ["the call was interrupted"] * 2
