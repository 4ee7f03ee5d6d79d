"""What must hold in the end: each function gives sentences, one for each thing that is wrong."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from bench.crash.client import TERMINAL, Seen
from bench.crash.plan import Step
from bench.crash.provider import said
from turnwire.protocol.codec import decode_event, encode_json
from turnwire.protocol.errors import LocalProtocolError
from turnwire.protocol.grammar import Grammar
from turnwire.protocol.sse import SSEDecoder

Events = list[tuple[str, dict[str, Any]]]


async def read_log(http: aiohttp.ClientSession, base_url: str, seen: Seen) -> Events:
    """All events of a turn that has ended, as the server tells them now."""
    url = f"{base_url}/v1/sessions/{seen.session_id}/responses/{seen.response_id}/events"
    decoder = SSEDecoder()
    events: Events = []
    async with http.get(url) as answer:
        answer.raise_for_status()
        async for chunk in answer.content.iter_any():
            for event in decoder.feed(chunk):
                data: dict[str, Any] = json.loads(event.data)
                assert data.pop("sequence_number") == len(events) == int(event.id)
                events.append((event.event, data))
    return events


def log_faults(seen: Seen, log: Events) -> list[str]:
    """The client's events are those of the log, the log obeys the grammar, and there is one ending."""
    faults: list[str] = []
    if seen.events != log:
        at = next((i for i, (a, b) in enumerate(zip(seen.events, log, strict=False)) if a != b), len(log))
        faults.append(f"{seen.name}: the client's events are not those of the log, from number {at} on")
    endings = sum(type_ in TERMINAL for type_, _ in log)
    if endings != 1:
        faults.append(f"{seen.name}: {endings} endings")
    grammar = Grammar()
    try:
        for type_, data in log:
            event = decode_event(type_, encode_json(data))
            assert event is not None
            grammar.check(event)
    except LocalProtocolError as exc:
        faults.append(f"{seen.name}: event {grammar.next_seq}: {exc}")
    if log[-1][0] != "message.completed":
        faults.append(f"{seen.name}: ended as {log[-1]}")
    return faults


def conversation_faults(name: str, steps: list[Step], content: list[dict[str, Any]]) -> list[str]:
    """The folded turn holds each step once, whole, of one attempt, with its calls and a result for each."""
    faults: list[str] = []
    words = " ".join(block["text"] for block in content if block["type"] in ("text", "thinking")).split()
    tokens = {block["id"]: block["input"].get("token", "") for block in content if block["type"] == "tool_use"}
    results = [block["id"] for block in content if block["type"] == "tool_result"]
    if sorted(results) != sorted(tokens):
        faults.append(f"{name}: calls {sorted(tokens)}, results {sorted(results)}")
    expected_calls = 0
    for number, step in enumerate(steps):
        prefix = f"{name}.{number}."
        of_step = [word for word in words if word.startswith(prefix)]
        calls = [token for token in tokens.values() if token.startswith(prefix)]
        attempts = {word.partition(":")[0] for word in (*of_step, *calls)}
        expected_calls += len(step.calls)
        if len(attempts) != 1:
            faults.append(f"{name}: step {number} shows the attempts {sorted(attempts)}")
            continue
        attempt = int(attempts.pop().rpartition(".")[2])
        if of_step != [word.strip() for word in said(name, number, attempt, step.thinking + step.text)]:
            faults.append(f"{name}: step {number} is not whole: {of_step}")
        if len(calls) != len(step.calls):
            faults.append(f"{name}: step {number} shows the calls {calls}")
    if len(tokens) != expected_calls:
        faults.append(f"{name}: {len(tokens)} calls, where {expected_calls} were made")
    return faults


def tool_faults(marks: Path, steps_of: dict[str, list[Step]], contents: dict[str, list[dict[str, Any]]]) -> list[str]:
    """No call that must not be repeated began twice, none of a superseded step began at all, and a result that says
    that it was made tells the truth."""
    lines = marks.read_text().splitlines() if marks.exists() else []
    begun = Counter(line.split()[1] for line in lines if line.startswith("begin "))
    ended = Counter(line.split()[1] for line in lines if line.startswith("end "))
    shown: dict[str, dict[str, Any]] = {}
    for content in contents.values():
        results = {block["id"]: block for block in content if block["type"] == "tool_result"}
        for block in content:
            if block["type"] == "tool_use" and block["id"] in results:
                shown[block["input"].get("token", "")] = results[block["id"]]
    faults: list[str] = []
    for token in begun.keys() | shown.keys():
        name, number, _ = token.partition(":")[0].split(".")
        if name not in contents:
            continue
        call = steps_of[name][int(number)].calls[int(token.partition(":c")[2])]
        result = shown.get(token)
        if call.tool == "count" and begun[token] > 1:
            faults.append(f"{token} ran {begun[token]} times")
        if result is None:
            faults.append(f"{token} ran, though its step was superseded")
        elif not result["is_error"] and not ended[token]:
            faults.append(f"{token} never ran to its end, but has a result")
        elif result["is_error"] and (call.tool == "look" or "interrupted" not in result["content"]):
            faults.append(f"{token} has the result {result['content']!r}")
    return faults
