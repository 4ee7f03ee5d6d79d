"""Logs: one vocabulary of fields, on stderr, for people or as JSON.

The message is an `event` in plain words; what varies is in fields, named the same everywhere:

    request_id  session_id  response_id  tenant     whose and which
    method  path  status                            of an HTTP request and its answer
    model  step  tool                               in a turn
    duration_s  bytes  count                        how long, how much, how many
    error                                           one line of what went wrong

`bound(request_id=…)` adds fields to everything that is logged inside of it, in tasks that are started there too.
Loggers of the standard library (uvicorn's, the vendors') come out the same way. Keys, tickets and passwords are cut
out of every finished line, tracebacks included.
"""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]

LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# They tell of every request that they make or take at `info`: wanted at `debug` only.
CHATTY = ("aiohttp", "anthropic", "asyncio", "google_genai", "httpcore", "httpx", "httpx2", "openai", "uvicorn.access")

SECRET_CHARACTERS_MIN = 8
"""A chosen key that is shorter is not looked for in lines: it would be found in ordinary words."""

_SECRETS = (
    r"(?P<named>\b[Bb]earer\s+|[?&;](?:ticket|token|access_token|key|api_key)=)[^\s&;\"'\\<>]+"
    r"|(?P<user>://[^/\s:@\"']*:)[^/\s@\"']+(?=@)"  # a URL's password
    r"|\btw_[a-z0-9-]+_[A-Za-z0-9_-]{16,}"  # our keys
    r"|\bsk-[A-Za-z0-9_-]{16,}|\bAIza[A-Za-z0-9_-]{30,}"  # OpenAI's and Anthropic's; Google's
)


def logger(name: str) -> Any:
    """A logger with structlog's verbs: `log.info("turn ended", response_id=…, duration_s=…)`.

    A verb below the configured level is an empty function.
    """
    return structlog.get_logger(name)


def bound(**fields: object) -> AbstractContextManager[None]:
    """Add fields to whatever is logged inside of the `with`, by tasks that are started in it as well."""
    return structlog.contextvars.bound_contextvars(**fields)


def configure(
    *, level: Level = "info", format: Format = "console", secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Send everything that is logged to `stream` (stderr), from `level` up.

    Args:
        secrets: texts that must not appear in a line, beside those that look like keys.
    """
    to: TextIO = stream or sys.stderr
    lowest = LEVELS[level]
    render = _redacting(_renderer(format, to), redactor(secrets))
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    output = _Output(to)
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=partial(_Named, output),
        cache_logger_on_first_use=True,
    )
    _route_standard_logging(lowest, shared, render, output)


def redactor(secrets: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that cuts keys, tickets and passwords, and the given texts, out of a line."""
    known = sorted({text for text in secrets if len(text) >= SECRET_CHARACTERS_MIN}, key=len, reverse=True)
    # In JSON a text may stand escaped.
    forms = [re.escape(form) for text in known for form in (text, json.dumps(text)[1:-1])]
    pattern = re.compile("|".join([*forms, _SECRETS]))
    return lambda line: pattern.sub(lambda match: f"{match['named'] or match['user'] or ''}[redacted]", line)


class _Output:
    """Where finished lines go. Never a reason to fail: a reader of stderr that went away is not the server's affair."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            pass


class _Named:
    """The way out for one of structlog's loggers."""

    def __init__(self, output: _Output, name: str = "turnwire") -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = output.msg


class _Handler(logging.Handler):
    def __init__(self, output: _Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self._output.msg(line)


def _route_standard_logging(lowest: int, shared: list[Processor], render: Processor, output: _Output) -> None:
    handler = _Handler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _plain_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(lowest)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in CHATTY:
        logging.getLogger(name).setLevel(lowest if lowest <= logging.DEBUG else max(lowest, logging.WARNING))


def _plain_name(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    """`uvicorn.error` is what uvicorn calls the logger of everything that is no request, also of its start."""
    if fields.get("logger") == "uvicorn.error":
        fields["logger"] = "uvicorn"
    return fields


def _coloured(stream: TextIO) -> bool:
    """On a terminal that knows colours, unless its person wants none (no-color.org)."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def _renderer(format: Format, stream: TextIO) -> Processor:
    if format == "console":
        return structlog.dev.ConsoleRenderer(
            colors=_coloured(stream), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )

    def render(logger: WrappedLogger, name: str, fields: EventDict) -> str:
        return json.dumps(structlog.processors.format_exc_info(logger, name, fields), default=repr)

    return render


def _redacting(render: Processor, redact: Callable[[str], str]) -> Processor:
    return lambda logger, name, fields: redact(cast(str, render(logger, name, fields)))
