"""Logs: one form for all, nothing secret, nothing done for what isn't logged."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from turnwire import observe

KEY = "tw_default_abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in observe.CHATTY}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_the_message_the_fields_and_what_is_bound() -> None:
    observe.configure(format="json", stream=(stream := io.StringIO()))

    with observe.bound(request_id="req_1"):
        observe.logger("turnwire.x").info("turn ended", response_id="msg_1", duration_s=0.5)
    observe.logger("turnwire.x").warning("after")

    first, second = lines(stream)
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "turn ended",
        "level": "info",
        "logger": "turnwire.x",
        "request_id": "req_1",
        "response_id": "msg_1",
        "duration_s": 0.5,
    }
    assert "request_id" not in second


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_lines_have_colours_on_a_terminal_that_knows_them_where_they_are_wanted(
    variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    observe.configure(stream=(stream := Terminal()))
    observe.logger("turnwire.x").info("it")

    assert ("\x1b[" in stream.getvalue()) is coloured


def test_loggers_of_the_standard_library_come_out_the_same_way() -> None:
    observe.configure(format="json", stream=(stream := io.StringIO()))

    with observe.bound(request_id="req_1"):
        logging.getLogger("uvicorn.error").info("Started %s", "it")

    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("Started it", "info", "uvicorn")
    assert line["request_id"] == "req_1"


def test_warnings_of_python_are_logged() -> None:
    observe.configure(format="json", stream=(stream := io.StringIO()))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    assert "DeprecationWarning: old" in lines(stream)[0]["event"]


def test_libraries_that_tell_of_every_request_do_so_at_debug_only() -> None:
    observe.configure(level="info", stream=(stream := io.StringIO()))
    logging.getLogger("httpx").info("HTTP Request")
    logging.getLogger("uvicorn.access").info("GET /")
    assert stream.getvalue() == ""

    observe.configure(level="debug", stream=stream)
    logging.getLogger("httpx").info("HTTP Request")
    assert "HTTP Request" in stream.getvalue()


def test_a_level_that_is_off_does_no_work() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise AssertionError("it was formatted")

    observe.configure(level="warning", stream=(stream := io.StringIO()))

    observe.logger("x").info("no", value=Unprintable())
    logging.getLogger("x").info("no %s", Unprintable())

    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"key {KEY} is new", "key [redacted] is new"),
        (f"Authorization: Bearer {KEY}", "Authorization: Bearer [redacted]"),
        ("authorization: bearer abc.def", "authorization: bearer [redacted]"),
        ("/v1/x/events?ticket=abc&last_event_id=3", "/v1/x/events?ticket=[redacted]&last_event_id=3"),
        ("/x?a=1&token=abc", "/x?a=1&token=[redacted]"),
        ("postgresql://user:pass@host/db", "postgresql://user:[redacted]@host/db"),
        ("sk-ant-api03-abcdefghijklmnop is wrong", "[redacted] is wrong"),
        ("the chosen-one is here", "the [redacted] is here"),
        ("GET http://127.0.0.1:8080/v1/sessions", "GET http://127.0.0.1:8080/v1/sessions"),
        ("a task-list of msg_0123456789abcdef01234567", "a task-list of msg_0123456789abcdef01234567"),
    ],
)
def test_secrets_are_cut_out_and_nothing_else(text: str, shown: str) -> None:
    assert observe.redactor(["chosen-one"])(text) == shown


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_holds_a_secret_wherever_it_stands(form: observe.Format) -> None:
    odd = 'a "quoted" key'
    observe.configure(format=form, secrets=[odd], stream=(stream := io.StringIO()))
    log = observe.logger("x")

    log.info(f"message {KEY} {odd}", field=f"{KEY} {odd}", nested={"deep": [KEY, odd]})
    try:
        raise ValueError(KEY, odd)
    except ValueError:
        log.exception("failed")
        logging.getLogger("y").exception("failed %s", KEY)

    written = stream.getvalue()
    assert KEY not in written and odd not in written and json.dumps(odd)[1:-1] not in written
    assert written.count("ValueError") >= 2


def test_a_reader_of_stderr_that_is_gone_harms_nobody() -> None:
    stream = io.StringIO()
    observe.configure(stream=stream)
    stream.close()

    observe.logger("x").error("nobody reads this")
    logging.getLogger("x").error("nor this")


def test_a_field_that_is_no_json_is_shown_as_text() -> None:
    observe.configure(format="json", stream=(stream := io.StringIO()))

    observe.logger("x").info("odd", value={1, 2}, big=2**80, data=b"\xff")

    assert lines(stream)[0]["value"] == "{1, 2}"
