"""The steps of a case, done: requests, streams, waits, clients at the same time. Each failure names its rule."""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import singledispatchmethod
from typing import Any, NoReturn, cast

import msgspec

from turnwire.conformance import cases, match
from turnwire.conformance.cases import Case, Has, StepBase, StreamStep
from turnwire.conformance.stream import Seen, StreamReader
from turnwire.conformance.wire import Exchange, Request, Target, WireError, ask
from turnwire.protocol.events import MessageCancelled, MessageError, TextDelta
from turnwire.protocol.transcript import Transcript

POLL_S = 0.05
"""Seconds between two requests of a wait."""

ERROR_SHAPE = {"error": "<string>", "message": "~.{10,2000}"}


class StepFailed(Exception):
    """What came back is not what must: `rule` is the one that is broken."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(why)
        self.rule = rule


class NotOffered(Exception):
    """The server does not have what the case is about."""


class CaseRun:
    """One run of one case. `note_session` is told of each session that it makes, and by which key."""

    def __init__(
        self,
        target: Target,
        case: Case,
        variables: dict[str, Any],
        note_session: Callable[[str, str], None],
        *,
        other_key: str | None,
        model: str | None,
    ) -> None:
        self._target = target
        self._case = case
        self._vars = variables
        self._note_session = note_session
        self._keys = {"key": target.key, "other": other_key or "", "wrong": "tw_default_wrong"}
        self._model = model
        self._streams: dict[str, StreamReader] = {}
        self._deadline = time.monotonic() + case.limit_s
        self._rule = case.rules[0]

    def run(self) -> None:
        """All steps. `StepFailed` at the first that fails; `NotOffered`."""
        try:
            if self._case.session is not False:
                self._make_session(self._case.session if isinstance(self._case.session, dict) else {})
            for step in self._case.steps:
                self._rule = step.rule or self._case.rules[0]
                self._do(step)
        except WireError as exc:
            raise StepFailed(exc.rule or self._rule, str(exc)) from exc
        except match.Mismatch as exc:
            raise StepFailed(self._rule, sentence(exc)) from exc

    def close(self) -> None:
        """End what is still open."""
        for stream in self._streams.values():
            stream.exchange.close()

    # Requests

    def _make_session(self, body: dict[str, Any]) -> None:
        self._rule = "P-4.4"
        self._do(
            cases.Send(request="POST /v1/sessions", body=body, status=201, json="@session", save={"session": "id"})
        )

    def _fill(self, pattern: Any) -> Any:
        try:
            return match.fill(pattern, self._vars)
        except KeyError as exc:
            raise NotOffered(f"The behaviours say nothing of {exc.args[0]}.") from None

    def _request(self, line: str, headers: dict[str, str], body: bytes, auth: str = "key") -> Request:
        method, _, path = self._fill(line).partition(" ")
        sent = {"Authorization": f"Bearer {self._keys[auth]}"} if auth != "none" else {}
        if body and "Content-Type" not in headers:
            sent["Content-Type"] = "application/json"
        sent |= {name: self._fill(value) for name, value in headers.items() if value}
        return Request(method, path, sent, body)

    def _body_of(self, body: Any, path: str) -> bytes:
        filled = self._fill(body)
        if self._model is not None and path == "POST /v1/sessions" and isinstance(filled, dict):
            filled = {"model": self._model, **cast("dict[str, Any]", filled)}
        return json.dumps(filled).encode("utf-8", "surrogatepass")

    @singledispatchmethod
    def _do(self, step: StepBase) -> None:
        raise AssertionError(step)

    @_do.register
    def _send(self, step: cases.Send) -> None:
        body = b""
        if step.text is not None:
            body = self._fill(step.text).encode("utf-8", "surrogateescape")
        elif step.hex is not None:
            body = bytes.fromhex(step.hex)
        elif step.body is not msgspec.UNSET:
            body = self._body_of(step.body, step.request)
        request = self._request(step.request, step.headers, body + b" " * step.padding, step.auth)
        answer = ask(self._target, replace(request, chunked=step.chunked), self._deadline)
        self._note_made(request, answer, self._keys.get(step.auth, ""))
        if step.may_be_missing and answer.status in (404, 405):
            raise NotOffered(f"{step.request.partition('?')[0]} answers {answer.status}.")
        self._check_answer(request, answer)
        statuses = step.status if isinstance(step.status, list) else [step.status]
        if answer.status not in statuses:
            self._fail(f"{request.method} {request.path} answers {answer.status}, not {step.status}: {_start(answer)}")
        self._check_content(step, answer)

    def _check_content(self, step: cases.Send, answer: Exchange) -> None:
        if step.error is not None:
            match.check({"error": step.error, "message": "*"}, answer.json())
        if step.json is not msgspec.UNSET:
            if not answer.headers.get("content-type", "").startswith("application/json"):
                self._fail(f"The Content-Type is {answer.headers.get('content-type')!r}.")
            match.check(self._fill(step.json), answer.json())
        if step.content is not None and bytes(answer.body) != self._fill(step.content).encode():
            self._fail(f"The body is {bytes(answer.body[:120])!r}.")
        for name, pattern in step.has_headers.items():
            match.check(self._fill(pattern), answer.headers.get(name.lower(), ""), f"the header {name}")
        for name, path in step.save.items():
            self._vars[name] = _at(answer.json(), path)
        for name, header in step.save_headers.items():
            self._vars[name] = answer.headers.get(header.lower(), "")

    def _check_answer(self, request: Request, answer: Exchange) -> None:
        """What every answer must be."""
        request_id = answer.headers.get("x-request-id", "")
        given = request.headers.get("X-Request-Id", "")
        if re.fullmatch(r"[A-Za-z0-9._-]{1,128}", given) and request_id != given:
            raise StepFailed("P-3.4", f"The X-Request-Id is {request_id!r}, though the request's was {given!r}.")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", request_id):
            raise StepFailed("P-3.4", f"The X-Request-Id of {request.method} {request.path} is {request_id!r}.")
        if answer.status >= 400 and request.method != "HEAD":
            check_error(answer)

    def _note_made(self, request: Request, answer: Exchange, key: str) -> None:
        if request.method == "POST" and request.path.partition("?")[0] == "/v1/sessions" and answer.status == 201:
            made = answer.json()
            if isinstance(made, dict) and isinstance(made.get("id"), str):  # pyright: ignore[reportUnknownMemberType]
                self._note_session(cast(str, made["id"]), key)

    # Streams

    @_do.register
    def _message(self, step: cases.Message) -> None:
        body = {"message": f"${{say.{step.say}}}", **step.body} if step.say else step.body
        request = self._request(f"POST {step.path}", step.headers, self._body_of(body, ""))
        self._open(step, request, numbered=body.get("event_ids") is True, first=0)

    @_do.register
    def _replay(self, step: cases.Replay) -> None:
        path, headers, first = step.path, dict[str, str](), 0
        if step.after is not None:
            after = str(self._fill(step.after))
            first = int(after) + 1
            if step.by == "header":
                headers["Last-Event-ID"] = after
            else:
                path += f"?last_event_id={after}"
        self._open(step, self._request(f"GET {path}", headers, b"", step.auth), numbered=True, first=first)

    def _open(self, step: StreamStep, request: Request, *, numbered: bool, first: int) -> None:
        exchange = Exchange(self._target, request, self._deadline)
        if exchange.status != 200:
            exchange.read_all()
            exchange.close()
            self._fail(f"{request.method} {request.path} answers {exchange.status}, not 200: {_start(exchange)}")
        self._check_answer(request, exchange)
        try:
            stream = StreamReader(exchange, numbered=numbered, first=first)
        except BaseException:
            exchange.close()
            raise
        if step.name in self._streams:
            self._streams[step.name].exchange.close()
        self._streams[step.name] = stream
        if isinstance(step, cases.Message):
            self._vars["response"] = stream.response_id
        self._read_stream(step, stream)

    @_do.register
    def _read_on(self, step: cases.Read) -> None:
        self._read_stream(step, self._streams[step.name])

    def _read_stream(self, step: StreamStep, stream: StreamReader) -> None:
        try:
            self._read_and_check(step, stream)
        except (WireError, StepFailed, match.Mismatch) as exc:
            if stream.seen and isinstance(ending := stream.seen[-1].event, MessageError):
                why = f"{sentence(exc)} The turn's error: {ending.error}"
                raise StepFailed(getattr(exc, "rule", "") or self._rule, why) from exc
            raise

    def _read_and_check(self, step: StreamStep, stream: StreamReader) -> None:
        if step.until_heartbeat:
            stream.read_until_heartbeat()
        else:
            stream.read_until(step.until)
        for index, seen in enumerate(stream.seen):
            self._vars[f"{step.name}.{index}"] = seen.seq
        if stream.seen:
            self._vars[f"{step.name}.last"] = stream.seen[-1].seq
            self._vars[f"{step.name}.before_last"] = stream.seen[-1].seq - 1
        if step.events is not None and not _in_order(step.events, stream.types):
            self._fail(f"The events are {_counted(stream.types)}, not {step.events}.")
        if step.text is not None:
            match.check(self._fill(step.text), _text(stream.seen), "the text")
        for has in step.has:
            self._check_has(has, [seen.data for seen in stream.seen if seen.type == has.event])

    def _check_has(self, has: Has, found: list[dict[str, Any]]) -> None:
        if has.count is not None and len(found) != has.count:
            self._fail(f"There are {len(found)} of {has.event}, not {has.count}.")
        if not found:
            self._fail(f"There is no {has.event}.")
        if has.data is not msgspec.UNSET:
            match.check(["some" if has.count is None else "each", self._fill(has.data)], found, has.event)
        for name, path in has.save.items():
            self._vars[name] = _at(found[0], path)

    @_do.register
    def _hang_up(self, step: cases.HangUp) -> None:
        self._streams[step.name].exchange.close()

    @_do.register
    def _cut_off(self, step: cases.CutOff) -> None:
        stream = self._streams[step.name]
        while stream.exchange.read():
            pass
        if stream.exchange.finished:
            stream.read_until(None)
            if not isinstance(stream.seen[-1].event, MessageCancelled):
                self._fail(f"The stream ended with {stream.types[-1]}.")

    # The rest

    @_do.register
    def _wait(self, step: cases.Wait) -> None:
        last = ""
        while time.monotonic() < self._deadline - POLL_S:
            answer = ask(self._target, self._request(step.request, {}, b""), self._deadline)
            try:
                match.check(self._fill(step.json), answer.json(), step.request)
            except match.Mismatch as exc:
                last = str(exc)
                time.sleep(POLL_S)
            else:
                return
        self._fail(f"It did not come about in time: {last}.")

    @_do.register
    def _parallel(self, step: cases.Parallel) -> None:
        request = self._request(step.request, step.headers, self._body_of(step.body, ""))
        answers: list[Exchange | WireError] = []
        gate = threading.Barrier(step.times)

        def ask_at_once() -> None:
            gate.wait()
            try:
                answers.append(ask(self._target, request, self._deadline))
            except WireError as exc:
                answers.append(exc)

        threads = [threading.Thread(target=ask_at_once) for _ in range(step.times)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole: list[Exchange] = []
        for answer in answers:
            if isinstance(answer, WireError):
                raise answer
            self._check_answer(request, answer)
            whole.append(answer)
        self._check_statuses(step, whole)

    def _check_statuses(self, step: cases.Parallel, answers: list[Exchange]) -> None:
        counts: dict[str, int] = {}
        for answer in answers:
            counts[str(answer.status)] = counts.get(str(answer.status), 0) + 1
        if counts != step.statuses:
            self._fail(f"Of {step.times} at once the statuses are {counts}, not {step.statuses}.")
        ids = {answer.headers.get("x-response-id") for answer in answers if answer.status == 200}
        if step.same_response and len(ids) != 1:
            self._fail(f"They are answered by {len(ids)} turns.")

    @_do.register
    def _same(self, step: cases.Same) -> None:
        first, *others = (self._streams[name] for name in step.streams)
        start = int(self._fill(step.starts_at))
        wanted = [(seen.seq, seen.type, seen.data) for seen in first.seen if seen.seq >= start]
        for name, other in zip(step.streams[1:], others, strict=True):
            found = [(seen.seq, seen.type, seen.data) for seen in other.seen]
            for one, two in zip(wanted, found, strict=False):
                if one != two:
                    self._fail(f"The event {one[0]} is {one[1]} {one[2]}, but in {name} {two[0]}, {two[1]} {two[2]}.")
            if len(wanted) != len(found):
                self._fail(f"{name} has {len(found)} events, not {len(wanted)}.")

    @_do.register
    def _fold(self, step: cases.Fold) -> None:
        stream = self._streams[step.name]
        transcript = Transcript()
        for seen in stream.seen:
            transcript.add(seen.event)
        request = self._request("GET /v1/sessions/${session}/messages", {}, b"")
        answer = ask(self._target, request, self._deadline)
        match.check(["each", {"...": True, "id": "*", "role": "~user|assistant"}], answer.json())
        found = [message for message in answer.json() if message["id"] == stream.response_id]
        if len(found) != 1:
            self._fail(f"The conversation has {len(found)} messages with the id of the response.")
        match.check("@assistant_message", found[0], "the message")
        folded = {"status": transcript.status, "content": msgspec.to_builtins(transcript.content)}
        for key, value in folded.items():
            if found[0][key] != value:
                self._fail(f"The message's {key} is {found[0][key]!r}, but the events fold to {value!r}.")

    @_do.register
    def _raw(self, step: cases.RawBytes) -> None:
        exchange = Exchange(self._target, self._fill(step.send).encode(), self._deadline)
        try:
            exchange.read_all()
        finally:
            exchange.close()
        if exchange.status != step.status:
            self._fail(f"The answer is {exchange.status}, not {step.status}.")
        check_error(exchange)
        match.check({"error": step.error, "message": "*"}, exchange.json())

    def _fail(self, why: str) -> NoReturn:
        raise StepFailed(self._rule, why)


def check_error(answer: Exchange) -> None:
    """An answer that is not 2xx: its body, and the headers that go with its status."""
    kind = answer.headers.get("content-type", "")
    if not kind.startswith("application/json"):
        raise StepFailed("P-3.3", f"The {answer.status} has the Content-Type {kind!r}.")
    try:
        match.check(ERROR_SHAPE, answer.json(), f"the {answer.status}")
    except match.Mismatch as exc:
        raise StepFailed("P-3.3", f"{exc}.") from exc
    needed = {401: "www-authenticate", 405: "allow", 429: "retry-after", 503: "retry-after"}.get(answer.status)
    if answer.json()["error"] == "session_busy":
        needed = "x-response-id"
    if needed is not None and not answer.headers.get(needed):
        raise StepFailed("P-3.5", f"The {answer.status} has no header {needed}.")


def sentence(exc: Exception) -> str:
    """What an error says, as one."""
    text = str(exc)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _start(answer: Exchange) -> str:
    return repr(bytes(answer.body[:200]).decode("utf-8", "replace"))


def _at(value: Any, path: str) -> Any:
    found: Any = value
    for name in path.split("."):
        try:
            found = found[int(name) if isinstance(found, list) else name]
        except (KeyError, IndexError, TypeError, ValueError):
            raise match.Mismatch(f"the answer has no {path}") from None
    return found


def _text(seen: list[Seen]) -> str:
    return "".join(event.content for event in (one.event for one in seen) if isinstance(event, TextDelta))


def _in_order(pattern: str, types: list[str]) -> bool:
    tokens = re.findall(r"[a-z_.]+|[()|*+?]", pattern)
    expression = "".join(f"(?:{re.escape(token)} )" if token[0].isalpha() else token for token in tokens)
    return re.fullmatch(expression, "".join(f"{type_} " for type_ in types)) is not None


def _counted(types: list[str]) -> str:
    """Types one after another, runs of the same as `TYPE ×N`."""
    runs: list[tuple[str, int]] = []
    for type_ in types:
        if runs and runs[-1][0] == type_:
            runs[-1] = (type_, runs[-1][1] + 1)
        else:
            runs.append((type_, 1))
    return " ".join(type_ if n == 1 else f"{type_} ×{n}" for type_, n in runs)
