"""One message to a server, read by a client that others wrote: `run_client(name, base_url, key, message)`.

Each client makes a session of its own, sends the message, reads the stream to its end, and gives the events
as (type, data). All names are in `CLIENTS`; a test that takes them from there names the tools they need:

    @pytest.mark.parametrize("name", client_params())
    def test_…(name: str) -> None:
        events = run_client(name, base_url, key, "hello")
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest

from clients import strict
from clients.strict import Event

HERE = Path(__file__).resolve().parent
FOUNDING_EXAMPLE = HERE / "founding_example.py"
TIMEOUT_S = 60.0


class ClientError(Exception):
    """The client got no stream, or gave up on it; the text says what it got."""


def run_client(name: str, base_url: str, key: str, message: str) -> list[Event]:
    """The events of one turn as the client `name` saw them; raises `ClientError`."""
    return CLIENTS[name](base_url.rstrip("/"), key, message)


def client_params() -> list[Any]:
    """All clients as pytest parameters, each marked with the tools that it needs."""
    return [pytest.param(name, marks=[pytest.mark.tool(*NEEDS[name])] if name in NEEDS else []) for name in CLIENTS]


def run_founding_example(base_url: str, key: str) -> str:
    """What the founding page's program prints."""
    return _output([sys.executable, FOUNDING_EXAMPLE], POKEE_API=base_url, POKEE_KEY=key)


def read_with_iter_lines(base_url: str, key: str, message: str) -> list[Event]:
    """httpx `iter_lines()`, by the founding page's own loop."""
    events: list[Event] = []
    event = ""
    with _client(base_url, key) as client:
        with client.stream("POST", _messages(client), json={"message": message}) as response:
            _expect(response, 200)
            for line in response.iter_lines():
                if line.startswith("event:"):
                    event = line[6:].strip()
                elif line.startswith("data:"):
                    events.append((event, json.loads(line[5:].strip())))
    return events


def read_with_httpx_sse(base_url: str, key: str, message: str) -> list[Event]:
    with _client(base_url, key) as client:
        body = {"message": message}
        with httpx_sse.connect_sse(client, "POST", _messages(client), json=body) as source:
            _expect(source.response, 200)
            return [(sse.event, sse.json()) for sse in source.iter_sse()]


def read_with_curl(base_url: str, key: str, message: str) -> list[Event]:
    """`curl -N`, its output cut at blank lines, as the founding page advises."""
    with _client(base_url, key) as client:
        url = f"{base_url}{_messages(client)}"
    headers = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    command = ["curl", "-N", "-sS", "--fail-with-body", *headers, "-d", json.dumps({"message": message}), url]
    *blocks, rest = _output(command).split("\n\n")
    if rest:
        raise ClientError(f"the stream ends within an event: {rest!r}")
    return [_two_lines(block) for block in blocks if block != ":"]


def read_strictly(base_url: str, key: str, message: str) -> list[Event]:
    with _client(base_url, key) as client:
        path = _messages(client)
    try:
        return strict.frames(strict.read(base_url, path, key, {"message": message}, timeout_s=TIMEOUT_S).body)
    except strict.WireError as exc:
        raise ClientError(str(exc)) from exc


def _node(program: str) -> Callable[[str, str, str], list[Event]]:
    def read(base_url: str, key: str, message: str) -> list[Event]:
        printed = _output(["node", HERE / program, base_url, key, message])
        # Not splitlines(): JSON.stringify leaves U+2028 as it is.
        records = [json.loads(line) for line in printed.split("\n") if line]
        return [(record["event"], record["data"]) for record in records]

    return read


CLIENTS: dict[str, Callable[[str, str, str], list[Event]]] = {
    "httpx-iter-lines": read_with_iter_lines,
    "httpx-sse": read_with_httpx_sse,
    "curl": read_with_curl,
    "strict": read_strictly,
    "eventsource-parser": _node("eventsource_parser.mjs"),
    "fetch-event-source": _node("fetch_event_source.mjs"),
}
NEEDS = {
    "curl": ("curl",),
    "eventsource-parser": ("node", "npm-clients"),
    "fetch-event-source": ("node", "npm-clients"),
}


def _client(base_url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S)


def _messages(client: httpx.Client) -> str:
    """The path of a new session's messages."""
    answer = client.post("/v1/sessions", json={})
    _expect(answer, 201)
    return f"/v1/sessions/{answer.json()['id']}/messages"


def _expect(response: httpx.Response, status: int) -> None:
    if response.status_code != status:
        response.read()
        raise ClientError(f"{response.status_code} {response.text}")


def _two_lines(block: str) -> Event:
    first, _, second = block.partition("\n")
    if not first.startswith("event: ") or not second.startswith("data: "):
        raise ClientError(f"not an event of two lines: {block!r}")
    return first.removeprefix("event: "), json.loads(second.removeprefix("data: "))


def _output(command: Sequence[str | Path], **environ: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, env={**os.environ, **environ}, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise ClientError(f"no end after {TIMEOUT_S} s; so far: {exc.stdout!r}") from exc
    if done.returncode:
        raise ClientError(f"exit code {done.returncode}: {done.stderr.decode()}{done.stdout.decode()}")
    return done.stdout.decode()
