"""Servers with one fault each, as what goes wrong on the way from a real one; and the case that must catch it."""

import json
import re
from dataclasses import replace
from typing import Any

from conformance.faulty_proxy import Answer, Fault

ZEROS = "0" * 24


def when(type_: str, change: Any) -> Any:
    """A function of frames that changes those of one event."""
    return lambda frame: change(frame) if f"event: {type_}\n".encode() in frame else frame


def in_json(change: Any, method: str = "", path: str = "", status: int = 200) -> Any:
    """A function of answers that changes the JSON of some."""

    def changed(answer: Answer) -> Answer:
        if answer.status != status or method not in ("", answer.method) or not re.fullmatch(path or ".*", answer.path):
            return answer
        value = json.loads(answer.body)
        return replace(answer, body=json.dumps(change(value)).encode())

    return changed


def without_key(frame: bytes) -> bytes:
    return frame.replace(b',"cache_write_tokens":0', b"")


def ten_percent_more(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "extra": 1}


def ok_when_busy(answer: Answer) -> Answer:
    if answer.status != 409 or answer.path.endswith("tool_results"):
        return answer
    return replace(answer, status=200, body=b'{"status":"queued"}')


def own_error_body(answer: Answer) -> Answer:
    return (
        answer if answer.status < 400 else replace(answer, body=b'{"detail":"Something is wrong with this request."}')
    )


def as_text(answer: Answer) -> Answer:
    return answer if answer.status < 400 else answer.having(content_type="text/plain")


def completed_instead(frame: bytes) -> bytes:
    return frame.replace(b"message.cancelled", b"message.completed").replace(b'"cancelled"', b'"completed"')


def never_missing(answer: Answer) -> Answer:
    return replace(answer, status=204, body=b"") if (answer.method, answer.status) == ("DELETE", 404) else answer


def second_ending(answer: Answer) -> bytes:
    data = {"id": answer.headers["x-response-id"], "error": "Something went wrong behind the end of the turn."}
    return f"event: message.error\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def newest_last(answer: Answer) -> Answer:
    if answer.status == 200 and answer.path.endswith("/responses"):
        return replace(answer, body=json.dumps(json.loads(answer.body)[::-1]).encode())
    return answer


def never_busy(answer: Answer) -> Answer:
    return replace(answer, body=answer.body.replace(b'"busy":true', b'"busy":false'))


def drop(pattern: bytes) -> Any:
    """A function of requests without what matches."""
    return lambda raw: re.sub(pattern, b"", raw)


def from_the_one_before(raw: bytes) -> bytes:
    return re.sub(rb"Last-Event-ID: (\d+)", lambda n: b"Last-Event-ID: %d" % max(int(n[1]) - 1, 0), raw)


FAULTS: dict[str, Fault] = {
    "a key of usage is dropped": Fault("frames", "P-2.17", frame=without_key),
    "a key is dropped": Fault("call", "P-1.6", frame=lambda f: f.replace(b',"is_error":false', b"")),
    "a key is added": Fault("frames", "P-1.6", frame=lambda f: f.replace(b'{"content"', b'{"index":0,"content"')),
    "an event is doubled": Fault("resume", "P-1.5", frame=when("text.delta", lambda f: f * 2)),
    "an un-numbered event is doubled": Fault("frames", "P-1.1", frame=when("text.delta", lambda f: f * 2)),
    "an event is lost": Fault("numbered", "P-1.5", frame=when("thinking.delta", lambda f: b"")),
    "CRLF": Fault("frames", "P-1.2", frame=lambda f: f.replace(b"\n", b"\r\n")),
    "a stop is lost": Fault("frames", "P-2.2", frame=when("text.stop", lambda f: b"")),
    "an empty delta": Fault("frames", "P-2.3", frame=lambda f: re.sub(rb'"content":"[^"]*"', b'"content":""', f)),
    "a result is lost": Fault("parallel-calls", "P-2.9", frame=when("tool_result", lambda f: b"")),
    "a blank line is missing": Fault("frames", "P-1.1", frame=when("text.start", lambda f: f[:-1])),
    "a blank line too many": Fault("frames", "P-1.1", frame=lambda f: f + b"\n"),
    "two data lines": Fault("frames", "P-1.3", frame=when("text.delta", lambda f: f[:-1] + b"data: \n\n")),
    "JSON with spaces": Fault("frames", "P-1.3", frame=lambda f: f.replace(b'":', b'": ')),
    "a raw line separator": Fault("frames-awkward", "P-1.4", frame=lambda f: f.replace(b"\\u2028", b"\xe2\x80\xa8")),
    "ids on an un-numbered stream": Fault("frames", "P-1.6", frame=lambda f: b"id: 1\n" + f),
    "no ids on a replay": Fault("resume", "P-1.7", frame=lambda f: re.sub(rb"^id: \d+\n", b"", f)),
    "no sequence_number": Fault("numbered", "P-1.7", frame=lambda f: re.sub(rb',?"sequence_number":\d+', b"", f)),
    "a wrong content type": Fault("frames", "P-1.10", head=lambda a: a.having(content_type="text/plain")),
    "a cache in between": Fault("frames", "P-1.10", head=lambda a: a.having(cache_control="max-age=60")),
    "no X-Response-Id": Fault("frames", "P-1.10", head=lambda a: a.without("x-response-id")),
    "no X-Request-Id": Fault("health", "P-3.4", answer=lambda a: a.without("x-request-id")),
    "a second ending": Fault("frames", "P-2.1", ending=second_ending),
    "no ending": Fault("frames", "P-5.3", frame=when("message.completed", lambda f: b"")),
    "the body is cut off": Fault("frames", "P-1.12", cut=True),
    "the connection stays open": Fault("frames", "P-1.12", keep_open=True),
    "no heartbeats": Fault("heartbeat", "P-1.9", comment=lambda c: b""),
    "heartbeats that end an event": Fault("heartbeat-numbered", "P-1.9", comment=lambda c: b":\n\n"),
    "200 instead of 409": Fault("busy", "P-5.1", answer=ok_when_busy),
    "a 409 that does not name the turn": Fault("busy", "P-3.5", answer=lambda a: a.without("x-response-id")),
    "a wrong error body": Fault("not-found", "P-3.3", answer=own_error_body),
    "an error as text": Fault("not-found", "P-3.3", answer=as_text),
    "a 401 without a challenge": Fault("no-key", "P-3.5", answer=lambda a: a.without("www-authenticate")),
    "no key is needed": Fault("no-key", "P-3.1", answer=lambda a: replace(a, status=200) if a.status == 401 else a),
    "a record with another key": Fault(
        "session-record", "P-4.1", answer=in_json(ten_percent_more, "GET", "/v1/sessions/sess_[0-9a-f]+")
    ),
    "a session that is never busy": Fault("busy", "P-5.1", answer=never_busy),
    "a conversation that says something else": Fault(
        "thinking", "P-2.15", answer=lambda a: replace(a, body=a.body.replace(b"Done.", b"Gone."))
    ),
    "a replay from the wrong number": Fault("resume", "P-1.5", request=from_the_one_before),
    "a replay that ignores where it should begin": Fault("resume", "P-1.5", request=drop(rb"Last-Event-ID: .*\r\n")),
    "a replay in which a text is another": Fault(
        "resume", "P-5.5", frame=lambda f: f.replace(b"Done.", b"Gone.") if f.startswith(b"id: ") else f
    ),
    "idempotency keys are ignored": Fault("idempotency", "P-5.12", request=drop(rb"Idempotency-Key: .*\r\n")),
    "a cancelled turn says that it completed": Fault("cancel", "P-5.11", frame=completed_instead),
    "deleting twice is fine": Fault("session-delete", "P-4.7", answer=never_missing),
    "the list has the newest last": Fault("responses", "P-4.17", answer=newest_last),
    "a turn's id is of another form": Fault(
        "frames", "P-2.12", frame=lambda f: re.sub(rb"msg_[0-9a-f]{24}", b"resp-1", f)
    ),
    "input that its pieces don't make": Fault(
        "call", "P-2.5", frame=when("tool_use.executing", lambda f: f.replace(b'"one"', b'"two"'))
    ),
    "a call that never ran succeeds": Fault(
        "unknown-tool", "P-2.6", frame=when("tool_result", lambda f: f.replace(b"true", b"false"))
    ),
    "a superseded step that is another": Fault(
        "resumed", "P-2.18", frame=lambda f: f.replace(b'"superseded_from":1', b'"superseded_from":2')
    ),
    "a traceback as the error": Fault(
        "provider-fails",
        "P-2.16",
        frame=lambda f: re.sub(rb'"error":"[^"]*"', b'"error":"ValueError: invalid literal for int()"', f),
    ),
}
