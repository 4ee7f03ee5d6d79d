"""`turnwire sessions`: what is there, what was said in it, and away with it."""

import json
import re
import sys

import msgspec

from turnwire.chat.plain import moment, one_line, plain
from turnwire.cli import Failed
from turnwire.cli.access import Given, WrongUse, client
from turnwire.cli.tables import print_json, print_table
from turnwire.client import MessageRecord, Session, TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock

AGE = re.compile(r"(?=.)(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")


def list_sessions(given: Given, *, busy: bool, limit: int, as_json: bool) -> None:
    """A table, newest first."""
    rows = [("ID", "LAST ACTIVITY", "STATE", "TITLE")]
    with client(given) as tw:
        for count, session in enumerate(tw.sessions.list(status="busy" if busy else None)):
            if count == limit:
                break
            record = session.record
            if as_json:
                print_json(msgspec.to_builtins(record))
            else:
                title = one_line(str(record.metadata.get("title", "")), 60)
                rows.append((record.id, moment(record.last_activity), _state(session), title))
    if not as_json:
        print_table(rows)


def show(given: Given, session_id: str, *, as_json: bool) -> None:
    """What was said."""
    with client(given) as tw:
        session = tw.sessions.get(session_id)
        messages = session.messages()
    if as_json:
        value = msgspec.to_builtins(session.record) | {"messages": msgspec.to_builtins(messages)}
        print_json(value)
        return
    record = session.record
    title = one_line(str(record.metadata.get("title", "")), 60)
    print(f"{one_line(record.id)}  {moment(record.last_activity)}  {_state(session)}  {title}".rstrip())
    for message in messages:
        print(f"\n{message.role}" + ("" if message.status == "completed" else f" ({message.status})"))
        for line in _lines(message):
            print(f"  {line}".rstrip())


def delete(given: Given, session_ids: list[str]) -> None:
    with client(given) as tw:
        for session_id in session_ids:
            tw.sessions.delete(session_id)
            print(f"deleted {session_id}")


def prune(given: Given, older_than: str, *, yes: bool) -> None:
    """Delete the sessions without activity for this long; a busy one stays."""
    found = AGE.fullmatch(older_than)
    if not found:
        raise WrongUse(f"--older-than: {older_than!r} is no age such as 7d, 12h or 1h30m.")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    with client(given) as tw:
        if not yes:
            _confirm(older_than)
        count = tw.sessions.delete_many(older_than=f"{24 * days + hours}h{minutes}m{seconds}s")
    print(f"deleted {count} session{'' if count == 1 else 's'}")


def _confirm(older_than: str) -> None:
    """Ask a person; anybody else has to say --yes."""
    what = f"every session without activity for {older_than}, with what was said in it"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise WrongUse(f"This deletes {what}: say --yes.")
    print(f"Delete {what}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failed("Nothing was deleted.")


def _lines(message: MessageRecord) -> list[str]:
    lines: list[str] = []
    for block in message.content:
        match block:
            case TextBlock(text):
                lines += plain(text).split("\n")
            case ThinkingBlock(text):
                lines.append(f"(thought: {one_line(text, 100)})")
            case ToolUseBlock(_, name, input_):
                lines.append(f"[{one_line(name, 60)} {one_line(json.dumps(input_, ensure_ascii=False), 200)}]")
            case ToolResultBlock(_, content, is_error):
                lines.append(f"[{'failed' if is_error else 'answered'}: {one_line(content, 200)}]")
            case _:
                lines.append(f"[{one_line(block.path or 'data')}, {one_line(block.media_type, 100)}]")
    return lines


def _state(session: Session) -> str:
    record = session.record
    return ("asks you" if record.pending_calls else "working") if record.busy else one_line(record.status, 60)
