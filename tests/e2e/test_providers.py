"""Providers over their true wire formats: what they send well, what they send badly, and what they are sent back.

The fakes refuse, as the real ones do, a history in which a call has no result, a result no call, a text is empty or
signed thinking is missing. So that "the next message works" says that the history is valid.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from clients.strict import Event
from e2e import wire
from e2e.conftest import Loop
from e2e.harness import Api, Server, Turn
from fakes import (
    Answer,
    Comment,
    Cut,
    ErrorEvent,
    FakeAnthropic,
    FakeOpenAIChat,
    FakeOpenAIResponses,
    Fault,
    Finish,
    Ping,
    Raw,
    Stall,
    Text,
    Thinking,
    ToolCall,
    ToolCalls,
    Usage,
)
from fakes.base import Fake

SECRET = "sk-secret-of-the-operator"
SILENCE_S = 0.8
GOOD = Answer.of("Hello", " there", "!", Usage(10, 5))


class Vendor(NamedTuple):
    """A provider, by the model that is asked of it."""

    name: str
    model: str
    fake: Fake

    def play(self, *answers: Answer | Fault) -> None:
        self.fake.script = answers
        self.fake._served = 0
        self.fake.requests.clear()

    @property
    def sent(self) -> list[Any]:
        """The bodies of the requests so far."""
        return [request.body for request in self.fake.requests]


class Servers(NamedTuple):
    """`patient` tries again; `strict` has STEP_RETRIES=0. Both give up on a silent model soon."""

    patient: Server
    strict: Server
    vendors: dict[str, Vendor]


@pytest.fixture(scope="module")
def servers(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    anthropic, chat, responses = map(loop.start, (FakeAnthropic(), FakeOpenAIChat(), FakeOpenAIResponses()))
    env = {
        "ANTHROPIC_BASE_URL": anthropic.base_url,
        "ANTHROPIC_API_KEY": SECRET,
        "OPENAI_BASE_URL": responses.base_url,
        "OPENAI_API_KEY": SECRET,
        "VLLM_BASE_URL": chat.base_url,
        "VLLM_API_KEY": SECRET,
    }
    vendors = {
        "anthropic": Vendor("anthropic", "anthropic:claude-sonnet-4-5", anthropic),
        "responses": Vendor("responses", "openai:gpt-5", responses),
        "chat": Vendor("chat", "vllm:fake-model", chat),
    }
    model, patience = "vllm:fake-model", {"FIRST_TOKEN_TIMEOUT_S": SILENCE_S, "NEXT_TOKEN_TIMEOUT_S": SILENCE_S}
    folder = tmp_path_factory.mktemp
    with Server(folder("patient"), model=model, env=env, **patience) as patient:
        with Server(folder("strict"), model=model, env=env, STEP_RETRIES=0, **patience) as strict:
            yield Servers(patient, strict, vendors)
    for server in (patient, strict):
        assert SECRET not in server.log


@pytest.fixture(params=["anthropic", "responses", "chat"])
def vendor(request: pytest.FixtureRequest, servers: Servers) -> Vendor:
    return servers.vendors[request.param]


@pytest.fixture
def patient(servers: Servers) -> Api:
    return servers.patient.api()


@pytest.fixture
def strict(servers: Servers) -> Api:
    return servers.strict.api()


def start(api: Api, vendor: Vendor) -> str:
    return api.create(model=vendor.model)["id"]


def goes_on(api: Api, session: str, vendor: Vendor) -> str:
    """The session is free, and its history one that the provider takes; what the provider was sent, as JSON."""
    assert api.session(session)["busy"] is False
    vendor.play(GOOD)
    turn = api.send(session, "And now?")
    assert turn.text == "Hello there!", turn.events[-1]
    [body] = vendor.sent
    check_roles(body)
    return json.dumps(body)


def check_roles(body: dict[str, Any]) -> None:
    """Never two messages of the user in a row."""
    messages = body.get("messages", body.get("input"))
    roles = [item.get("role", item.get("type")) for item in messages]
    assert ("user", "user") not in pairwise(roles), roles
    assert roles[-1] == "user"


def shape(events: list[Event]) -> list[Any]:
    """The events without the ids that differ from turn to turn."""
    return [(event, {k: v for k, v in data.items() if k not in ("id", "session_id")}) for event, data in events]


def fails(api: Api, session: str, *, before: list[str] | None = None) -> Turn:
    """A turn that ends in one `message.error`; `before`: the events up to it."""
    turn = api.send(session, "Say hello.")
    assert turn.kinds == ["message.created", *(before or []), "message.error"]
    assert SECRET not in turn.error
    assert turn.id not in turn.error, "a bug of the server's own"
    response = api.get(f"/v1/sessions/{session}/responses/{turn.id}")
    assert (response["status"], response["error"]) == ("error", turn.error)
    return turn


# What comes well


def test_thinking_text_and_usage_are_the_same_from_each_vendor(patient: Api, vendor: Vendor) -> None:
    usage = Usage(100, 20, cached=30, cache_write=10 if vendor.name == "anthropic" else 0)
    vendor.play(Answer.of(Thinking("Let "), Thinking("me see"), Comment(), Ping(), "One", " two", "\u2028", usage))

    turn = patient.send(start(patient, vendor), "Count.", settings={"thinking": "low"})

    assert shape(turn.events[:-1]) == [
        ("message.created", {"status": "in_progress"}),
        ("thinking.start", {}),
        ("thinking.delta", {"content": "Let "}),
        ("thinking.delta", {"content": "me see"}),
        ("thinking.stop", {}),
        ("text.start", {}),
        ("text.delta", {"content": "One"}),
        ("text.delta", {"content": " two"}),
        ("text.delta", {"content": "\u2028"}),
        ("text.stop", {}),
    ]
    assert turn.usage == {
        "input_tokens": 100,
        "output_tokens": 20,
        "total_tokens": 120,
        "cache_read_tokens": 30,
        "cache_write_tokens": usage.cache_write,
        "requests": 1,
        "tool_calls": 0,
    }


@pytest.mark.parametrize("chunk_size", [0, 1, 7])
def test_the_bytes_may_come_cut_anywhere(patient: Api, vendor: Vendor, chunk_size: int) -> None:
    steps = ["Grüße ", "👩‍👩‍👧", ToolCall("list_files", ('{"pa', 'th": ""}'))]
    vendor.play(Answer.of(*steps, chunk_size=chunk_size), Answer.of("done", chunk_size=chunk_size))

    turn = patient.send(start(patient, vendor), "Go.")

    assert turn.text == "Grüße 👩‍👩‍👧done"
    assert [data["content"] for data in turn.data("tool_use.input_delta")] == ['{"pa', 'th": ""}']


def test_streamed_input_runs_a_tool_and_its_result_goes_back(patient: Api, vendor: Vendor) -> None:
    pieces = ('{"path": "a/', 'b.txt", ', '"content": "12"}')
    vendor.play(
        Answer.of("I write.", ToolCall("write_file", pieces), Usage(10, 5)), Answer.of("Written.", Usage(20, 3))
    )
    session = patient.create(model=vendor.model, workspace="private")["id"]

    turn = patient.send(session, "Write.")

    assert turn.kinds == [
        "message.created",
        *("text.start", "text.delta", "text.stop"),
        *("tool_use.start", "tool_use.input_delta", "tool_use.executing", "tool_use.stop", "tool_result"),
        *("text.start", "text.delta", "text.stop"),
        "message.completed",
    ]
    assert [data["content"] for data in turn.data("tool_use.input_delta")] == list(pieces)
    [executing] = turn.data("tool_use.executing")
    assert executing["input"] == {"path": "a/b.txt", "content": "12"}
    [result] = turn.data("tool_result")
    assert result["is_error"] is False
    assert result["content"] in str(vendor.sent[1])
    assert (turn.usage["input_tokens"], turn.usage["requests"], turn.usage["tool_calls"]) == (30, 2, 1)
    goes_on(patient, session, vendor)


def test_parallel_calls_are_blocks_one_after_another(patient: Api, vendor: Vendor) -> None:
    calls = [ToolCall("write_file", (f'{{"path": "{n}.txt", ', f'"content": "{n}"}}')) for n in range(3)]
    vendor.play(Answer.of(ToolCalls(calls)), Answer.of("All written."))
    session = patient.create(model=vendor.model, workspace="private")["id"]

    turn = patient.send(session, "Write three.")

    block = ["tool_use.start", "tool_use.input_delta", "tool_use.executing", "tool_use.stop"]
    assert turn.kinds[1:16] == block * 3 + ["tool_result"] * 3
    assert {data["id"] for data in turn.data("tool_use.start")} == {data["id"] for data in turn.data("tool_result")}
    assert [data["input"]["path"] for data in turn.data("tool_use.executing")] == ["0.txt", "1.txt", "2.txt"]
    goes_on(patient, session, vendor)


def test_interleaved_calls_are_blocks_one_after_another(patient: Api, servers: Servers) -> None:
    vendor = servers.vendors["chat"]
    calls = [ToolCall("list_files", ('{"pa', f'th": "{n}', '"}')) for n in range(3)]
    vendor.play(Answer.of(ToolCalls(calls, interleaved=True)), Answer.of("Done."))
    session = start(patient, vendor)

    turn = patient.send(session, "List three.")

    assert [data["input"] for data in turn.data("tool_use.executing")] == [{"path": str(n)} for n in range(3)]
    assert ["".join(d["content"] for d in turn.data("tool_use.input_delta"))] == [
        '{"path": "0"}{"path": "1"}{"path": "2"}'
    ]
    goes_on(patient, session, vendor)


def test_signed_thinking_goes_back_before_a_tool_result(patient: Api, servers: Servers) -> None:
    """The fake answers 400 when it doesn't."""
    vendor = servers.vendors["anthropic"]
    vendor.play(
        Answer.of(Thinking("I should look."), ToolCall("list_files")),
        Answer.of(Thinking("And once more."), "Looking.", ToolCall("list_files")),
        Answer.of("Nothing there."),
    )
    session = start(patient, vendor)

    turn = patient.send(session, "Look.", settings={"thinking": "high"})

    assert turn.ending == "message.completed", turn.last
    assert [data["content"] for data in turn.data("thinking.delta")] == ["I should look.", "And once more."]
    assert "signature" in goes_on(patient, session, vendor)


def test_thinking_that_is_off_is_neither_asked_for_nor_shown(patient: Api, vendor: Vendor) -> None:
    vendor.play(Answer.of(Thinking("hm"), "Hello"))

    turn = patient.send(start(patient, vendor), "Hi.", settings={"thinking": "off"})

    assert turn.kinds == ["message.created", "text.start", "text.delta", "text.stop", "message.completed"]
    assert (vendor.sent[0].get("thinking") or {"type": "disabled"})["type"] == "disabled"


def test_settings_and_instructions_reach_the_provider(patient: Api, vendor: Vendor) -> None:
    session = patient.create(model=vendor.model, instructions="Speak like a duck.")["id"]
    vendor.play(GOOD)

    patient.send(session, "Hi.", settings={"temperature": 0.25, "max_output_tokens": 77})

    [body] = vendor.sent
    if vendor.name != "responses":  # gpt-5 takes no temperature, so none is sent
        assert body["temperature"] == 0.25
    assert 77 in (body.get("max_tokens"), body.get("max_output_tokens"), body.get("max_completion_tokens"))
    assert "Speak like a duck." in json.dumps(body)
    tools = {tool.get("name") or tool["function"]["name"] for tool in body["tools"]}
    assert tools >= {"read_file", "write_file", "edit_file", "list_files", "search_files"}


def test_a_conversation_goes_on_over_many_turns(patient: Api, vendor: Vendor) -> None:
    session = start(patient, vendor)
    vendor.play(
        *(Answer.of(f"Step {n}.", ToolCall("list_files")) if n % 2 == 0 else Answer.of("ok") for n in range(20))
    )

    for n in range(10):
        assert patient.send(session, f"Question {n}.").ending == "message.completed"

    said = goes_on(patient, session, vendor)
    assert all(f"Question {n}." in said and f"Step {2 * n}." in said for n in range(10))


def test_an_empty_answer_is_a_completed_turn_and_leaves_a_valid_history(patient: Api, servers: Servers) -> None:
    for name in ("anthropic", "chat"):
        vendor = servers.vendors[name]
        session = start(patient, vendor)
        vendor.play(Answer.of(Usage(3, 0)), GOOD)

        turn = patient.send(session, "Say nothing.")

        assert turn.kinds[0] == "message.created"
        assert turn.ending in ("message.completed", "message.error"), turn.kinds
        goes_on(patient, session, vendor)


def test_an_image_reaches_the_provider_from_the_body_and_from_the_workspace(patient: Api, servers: Servers) -> None:
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    vendor = servers.vendors["anthropic"]
    session = patient.create(model=vendor.model)["id"]
    folder = servers.patient.data_dir / "workspaces"
    vendor.play(Answer.of(ToolCall("write_file", ('{"path": "x.txt", "content": "x"}',))), GOOD, GOOD, GOOD)
    patient.send(session, "Make the workspace.")
    [made] = folder.rglob("x.txt")
    made.with_name("dot.png").write_bytes(base64.b64decode(png))

    for part in ({"data": png, "media_type": "image/png"}, {"path": "dot.png"}):
        message = [{"type": "text", "text": "What is this?"}, {"type": "image", **part}]
        assert patient.send(session, message).ending == "message.completed"
        images = [b for b in vendor.sent[-1]["messages"][-1]["content"] if b["type"] == "image"]
        assert images[0]["source"]["data"] == png
        user = patient.messages(session)[-2]
        assert user["content"] == [
            {"type": "text", "text": "What is this?"},
            {"type": "image", "path": part.get("path"), "media_type": "image/png"},
        ]


# What comes badly


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_not_retried_and_says_what_to_do(patient: Api, vendor: Vendor, status: int) -> None:
    session = start(patient, vendor)
    vendor.play(Fault(status, vendor.fake.error_body(status, f"No, {SECRET}: this will not do.")), GOOD)

    turn = fails(patient, session)

    assert len(vendor.sent) == 1
    said = {400: "refused the request", 401: "key", 403: "key", 404: "name"}[status]
    assert said in turn.error
    goes_on(patient, session, vendor)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529])
def test_a_fault_of_the_moment_is_tried_again_and_shows_nothing(patient: Api, vendor: Vendor, status: int) -> None:
    vendor.play(Fault(status), GOOD)

    turn = patient.send(start(patient, vendor), "Say hello.")

    assert len(vendor.sent) == 2
    assert turn.kinds == ["message.created", "text.start", "text.delta", "text.stop", "message.completed"]


def test_a_wait_that_the_provider_asks_for_is_kept(patient: Api, vendor: Vendor) -> None:
    vendor.play(Fault(429, headers={"retry-after": "2"}), GOOD)
    began = time.monotonic()

    turn = patient.send(start(patient, vendor), "Say hello.")

    assert turn.ending == "message.completed"
    assert time.monotonic() - began >= 2


def test_a_wait_that_is_too_long_is_not_waited_for(patient: Api, vendor: Vendor) -> None:
    session = start(patient, vendor)
    vendor.play(Fault(429, headers={"retry-after": "3600"}), GOOD)
    began = time.monotonic()

    turn = fails(patient, session)

    assert time.monotonic() - began < 3
    assert "3600" in turn.error
    goes_on(patient, session, vendor)


@pytest.mark.slow
def test_a_fault_that_stays_ends_the_turn_after_some_attempts(patient: Api, vendor: Vendor) -> None:
    session = start(patient, vendor)
    vendor.play(*[Fault(500)] * 10)

    fails(patient, session)

    assert 2 <= len(vendor.sent) <= 5
    goes_on(patient, session, vendor)


def test_a_server_that_is_not_there_ends_the_turn(serve: Callable[..., Server]) -> None:
    server = serve(model="openai-chat:x", env={"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, STEP_RETRIES=0)
    api = server.api()

    turn = fails(api, api.create()["id"])

    assert "connection" in turn.error


@pytest.mark.parametrize("in_chunk", [False, True])
def test_a_cut_before_any_output_is_tried_again_and_shows_nothing(patient: Api, vendor: Vendor, in_chunk: bool) -> None:
    vendor.play(Answer.of(Cut(in_chunk)), GOOD)

    turn = patient.send(start(patient, vendor), "Say hello.")

    assert len(vendor.sent) == 2
    assert turn.kinds == ["message.created", "text.start", "text.delta", "text.stop", "message.completed"]


@pytest.mark.parametrize("in_chunk", [False, True])
def test_a_cut_after_output_supersedes_the_step(patient: Api, vendor: Vendor, in_chunk: bool) -> None:
    session = start(patient, vendor)
    vendor.play(Answer.of("Half of", " an", Stall(0.1), Cut(in_chunk)), GOOD)

    turn = patient.send(session, "Say hello.")

    text = ["text.start", "text.delta", "text.stop"]
    assert turn.kinds == ["message.created", *text, "message.resumed", *text, "message.completed"]
    [resumed] = turn.data("message.resumed")
    assert (resumed["reason"], resumed["superseded_from"]) == ("provider_interrupted", 1)
    assert turn.text == "Hello there!"
    assert patient.messages(session)[1]["content"] == [{"type": "text", "text": "Hello there!"}]
    assert "Half of" not in goes_on(patient, session, vendor)


def test_a_stream_that_ends_cleanly_before_its_answer_does_is_a_cut(strict: Api, vendor: Vendor) -> None:
    """As a proxy ends it that lost the provider."""
    session = start(strict, vendor)
    vendor.play(Answer.of("Half of", ending=False))

    fails(strict, session, before=["text.start", "text.delta", "text.stop"])

    assert "Half of" in goes_on(strict, session, vendor)


def test_a_cut_within_a_call_supersedes_the_step_and_answers_the_call(patient: Api, vendor: Vendor) -> None:
    session = start(patient, vendor)
    half = ToolCall("write_file", ('{"path": "x", "con',))
    steps = {"responses": Answer.of("Let me.", Stall(0.1), Cut())}.get(
        vendor.name, Answer.of("Let me.", half, Stall(0.1), Cut())
    )
    vendor.play(steps, Answer.of(ToolCall("list_files")), GOOD)

    turn = patient.send(session, "Write.")

    assert turn.ending == "message.completed"
    assert len(turn.data("message.resumed")) == 1
    assert len(turn.data("tool_use.start")) == len(turn.data("tool_result"))
    goes_on(patient, session, vendor)


@pytest.mark.parametrize("in_chunk", [False, True])
def test_a_cut_after_output_without_retries_ends_the_turn_and_keeps_the_text(
    strict: Api, vendor: Vendor, in_chunk: bool
) -> None:
    session = start(strict, vendor)
    vendor.play(Answer.of(Thinking("hm"), "Half of", " it", Stall(0.1), Cut(in_chunk)), GOOD)

    turn = strict.send(session, "Say hello.", settings={"thinking": "low"})

    assert turn.kinds[-2:] == ["text.stop", "message.error"]
    assert turn.text == "Half of it"
    said = goes_on(strict, session, vendor)
    assert "Half of it" in said
    assert "error" in said


GARBAGE: dict[str, Answer | Fault] = {
    "html": Fault.html(),
    "json": Fault(200, '{"hello": "world"}'),
    "bad-json": Answer.of(Raw(b"event: content_block_delta\ndata: {not json\n\n"), "x"),
    "bytes": Answer.of(Raw(b"\x00\xff\xfe" * 100), ending=False),
    "other-json": Answer.of(Raw(b'data: {"choices": 7, "type": "message_start"}\n\n'), ending=False),
    "array": Answer.of(Raw(b"data: [1, 2]\n\n"), ending=False),
    "nothing": Answer((), ending=False),
}


def test_garbage_ends_the_turn(strict: Api, vendor: Vendor) -> None:
    """All kinds at once, as some are tried again for seconds."""
    vendor.play()
    vendor.fake.script = lambda request: next(GARBAGE[k] for k in GARBAGE if f"Send {k}." in json.dumps(request.body))
    sessions = {kind: start(strict, vendor) for kind in GARBAGE}

    with ThreadPoolExecutor(len(GARBAGE)) as pool:
        turns = list(pool.map(lambda kind: strict.send(sessions[kind], f"Send {kind}."), GARBAGE))

    for kind, turn in zip(GARBAGE, turns, strict=True):
        assert turn.ending == "message.error", kind
        assert turn.id not in turn.error, f"{kind}: a bug of the server's own"
        assert SECRET not in turn.error
        goes_on(strict, sessions[kind], vendor)


def test_garbage_in_the_middle_ends_the_turn(strict: Api, vendor: Vendor) -> None:
    session = start(strict, vendor)
    vendor.play(Answer.of("Well", Raw(b"event: content_block_delta\ndata: {not json}\n\n"), " done"), *[Fault(400)] * 5)

    fails(strict, session, before=["text.start", "text.delta", "text.stop"])

    goes_on(strict, session, vendor)


@pytest.mark.slow
def test_silence_before_the_first_token_is_bounded(strict: Api, vendor: Vendor) -> None:
    session = start(strict, vendor)
    vendor.play(Answer.of(Stall(20), "late"), *[Fault(400)] * 5)

    began = time.monotonic()
    strict.send(session, "Say hello.")

    assert time.monotonic() - began < SILENCE_S * 4 + 6
    goes_on(strict, session, vendor)


@pytest.mark.slow
def test_silence_in_the_middle_is_bounded_and_the_connection_is_let_go(strict: Api, vendor: Vendor) -> None:
    session = start(strict, vendor)
    vendor.play(Answer.of("Well…", Stall(30), "late"), *[Fault(400)] * 5)
    began = time.monotonic()

    turn = fails(strict, session, before=["text.start", "text.delta", "text.stop"])

    assert "silent" in turn.error
    assert time.monotonic() - began < 6
    request = vendor.fake.requests[0]
    deadline = time.monotonic() + 3
    while not request.client_left:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    goes_on(strict, session, vendor)


@pytest.mark.parametrize("shown", [False, True])
def test_an_error_event_in_the_stream_is_a_fault_of_the_provider(patient: Api, vendor: Vendor, shown: bool) -> None:
    session = start(patient, vendor)
    steps = [Text("Half")] if shown else []
    vendor.play(Answer.of(*steps, ErrorEvent(f"Overloaded {SECRET}"), ending=False), GOOD)

    turn = patient.send(session, "Say hello.")

    assert turn.ending == "message.completed", turn.last
    assert len(turn.data("message.resumed")) == shown
    assert turn.text == "Hello there!"
    assert SECRET.encode() not in turn.content


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_call_that_the_length_limit_cut_off_is_answered_with_an_error(
    patient: Api, servers: Servers, reason: str
) -> None:
    vendor = servers.vendors["chat"]
    session = start(patient, vendor)
    cut = Answer.of("I write.", ToolCall("write_file", ('{"path": "x", "content": "hal',)), Finish(reason))
    vendor.play(cut, GOOD)

    turn = patient.send(session, "Write.")

    if reason == "length":
        assert turn.data("tool_use.executing") == []
        [result] = turn.data("tool_result")
        assert result["is_error"] is True
        assert turn.ending == "message.completed", turn.last
    goes_on(patient, session, vendor)


def test_an_unknown_tool_and_a_bad_input_are_answered_and_the_turn_goes_on(patient: Api, vendor: Vendor) -> None:
    session = start(patient, vendor)
    calls = [ToolCall("rm_rf"), ToolCall("read_file", ('{"path": 7}',)), ToolCall("read_file", ("[1]",))]
    vendor.play(Answer.of(ToolCalls(calls)), GOOD)

    turn = patient.send(session, "Go.")

    assert turn.ending == "message.completed", turn.last
    assert [data["is_error"] for data in turn.data("tool_result")] == [True] * 3
    assert [data["input"] for data in turn.data("tool_use.executing")] == [{"path": 7}]
    goes_on(patient, session, vendor)


def test_a_cancel_in_the_middle_leaves_a_valid_history_and_lets_the_provider_go(patient: Api, vendor: Vendor) -> None:
    session = start(patient, vendor)
    vendor.play(Answer.of("Some words", Stall(20)))

    with patient.sending(session, "Talk.") as live:
        live.until("text.delta")
        patient.request("POST", f"/v1/sessions/{session}/responses/{live.id}/cancel", status=202)
        events = live.rest()

    wire.check_turn(events)
    assert events[-1][0] == "message.cancelled"
    assert "Some words" in goes_on(patient, session, vendor)


# Over restarts


@pytest.mark.slow
def test_the_history_is_kept_over_restarts_signed_thinking_included(serve: Callable[..., Server], loop: Loop) -> None:
    fake = loop.start(FakeAnthropic())
    vendor = Vendor("anthropic", "anthropic:claude-sonnet-4-5", fake)
    env = {"ANTHROPIC_BASE_URL": fake.base_url, "ANTHROPIC_API_KEY": SECRET}
    server = serve(model=vendor.model, env=env)
    session = server.api().create(persistent=True)["id"]
    vendor.play(Answer.of(Thinking("Hm."), ToolCall("list_files")), Answer.of("First."))
    server.api().send(session, "One.", settings={"thinking": "low"})
    server.kill()
    server.restart()
    vendor.play(Answer.of(Thinking("Aha."), ToolCall("list_files")), Answer.of("Second."))
    assert server.api().send(session, "Two.", settings={"thinking": "low"}).ending == "message.completed"
    assert server.stop() == 0
    server.restart()

    said = goes_on(server.api(), session, vendor)

    assert all(word in said for word in ("One.", "First.", "Two.", "Second.", "signature"))
    assert [m["role"] for m in server.api().messages(session)] == ["user", "assistant"] * 3


def test_openai_chat_needs_no_key_where_an_address_is_given(serve: Callable[..., Server], loop: Loop) -> None:
    fake = loop.start(FakeOpenAIChat([GOOD, GOOD]))
    server = serve(model="openai-chat:some-model", env={"OPENAI_BASE_URL": fake.base_url})
    api = server.api()

    assert api.ask("Hi.").text == "Hello there!"
    assert api.ask("Hi.", model="openai-chat:another").text == "Hello there!"
    assert [request.body["model"] for request in fake.requests] == ["some-model", "another"]
    assert api.get("/v1/models")[0]["id"] == "openai-chat:some-model"
