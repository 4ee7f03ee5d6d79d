"""The commands of the chat: lines that begin with a slash. What is no command is a message."""

import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from turnwire.chat.options import Thinking
from turnwire.chat.plain import moment, one_line, plain
from turnwire.chat.screen import styled
from turnwire.chat.watch import Leave
from turnwire.client import (
    AsyncSession,
    MessageRecord,
    ProtocolError,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    TurnwireError,
)

if TYPE_CHECKING:
    from turnwire.chat.talk import Talk


class WrongUse(Exception):
    """How the command is used."""


class Command(NamedTuple):
    usage: str
    help: str
    run: Callable[["Talk", list[str]], Awaitable[None]]


def is_command(text: str) -> bool:
    """`//x` sends `/x`; what stands on several lines is a message."""
    return "\n" not in text.strip() and text.strip().partition(" ")[0] in COMMANDS


async def run_command(talk: "Talk", text: str) -> None:
    name, _, rest = text.strip().partition(" ")
    command = COMMANDS[name]
    try:
        words = shlex.split(rest)
        await command.run(talk, words)
    except WrongUse:
        talk.screen.print(styled((f"Write it so: {command.usage}", "yellow")))
    except (TurnwireError, ProtocolError, OSError, ValueError) as exc:
        talk.screen.print(styled((f"{talk.screen.marks.failed} {plain(str(exc))}", "red")))


async def _help(talk: "Talk", words: list[str]) -> None:
    del words
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [styled((command.usage.ljust(width), "bold"), f"  {command.help}") for command in COMMANDS.values()]
    keys = (
        ("Enter", "sends"),
        ("Alt-Enter", "a new line"),
        ("Up, Ctrl-R", "what you wrote before"),
        ("Ctrl-C", "stops the turn; twice: leaves"),
        ("Ctrl-O", "shows what was shortened, the last first"),
        ("Ctrl-D", "leaves"),
    )
    lines += ["", *(styled((key.ljust(width), "bold"), f"  {what}") for key, what in keys)]
    lines += ["", styled(("Other lines are messages. //text sends a message that begins with a slash.", "dim"))]
    talk.screen.print(*lines)


async def _new(talk: "Talk", words: list[str]) -> None:
    _none(words)
    talk.session = None
    talk.screen.print(styled(("The next message begins a new session.", "dim")))


async def _session(talk: "Talk", words: list[str]) -> None:
    _none(words)
    if talk.session is None:
        talk.screen.print("It begins with your first message.")
        return
    record = await talk.session.refresh()
    talk.screen.print(
        f"{record.id}  {one_line(str(record.metadata.get('title', '')), 60)}".rstrip(),
        styled((f"To go on later: turnwire chat --session {record.id}", "dim")),
    )


async def _sessions(talk: "Talk", words: list[str]) -> None:
    _none(words)
    client = await talk.client()
    shown = 0
    async for session in client.sessions.list():
        record = session.record
        when = moment(record.last_activity)
        title = one_line(str(record.metadata.get("title", "")), 60)
        talk.screen.print_cut(
            styled((one_line(record.id), "bold"), f"  {when}  {'working' if record.busy else '       '}  {title}")
        )
        shown += 1
        if shown == 20:
            break
    if not shown:
        talk.screen.print("There are none.")


async def _open(talk: "Talk", words: list[str]) -> None:
    session_id = _one(words)
    client = await talk.client()
    await talk.enter(await client.sessions.get(session_id))


async def _history(talk: "Talk", words: list[str]) -> None:
    _none(words)
    if talk.session is not None:
        show_messages(talk, await talk.session.messages())


async def _model(talk: "Talk", words: list[str]) -> None:
    client = await talk.client()
    models = await client.models()
    if not words:
        for model in models:
            chosen = model.id == talk.model_words
            talk.screen.print_cut(
                styled((f"{talk.screen.marks.done if chosen else ' '} {one_line(model.id)}", "bold" * chosen))
            )
        return
    name = _one(words)
    talk.options = talk.options._replace(model=name)
    talk.model_words = one_line(name, 60)


async def _thinking(talk: "Talk", words: list[str]) -> None:
    word = _one(words)
    if word in ("show", "hide"):
        talk.options = talk.options._replace(show_thinking=word == "show")
    elif word in get_args(Thinking):
        talk.options = talk.options._replace(thinking=word)
    else:
        raise WrongUse


async def _files(talk: "Talk", words: list[str]) -> None:
    folder = words[0] if words else ""
    _none(words[1:])
    session = _begun(talk)
    shown = False
    async for file in session.files.list(folder):
        shown = True
        size = "folder" if file.type == "directory" else str(file.size)
        talk.screen.print_cut(styled(f"{size:>10}  {one_line(file.name)}"))
    if not shown:
        talk.screen.print("It is empty.")


async def _put(talk: "Talk", words: list[str]) -> None:
    _one(words[:1])
    _none(words[2:])
    written = await _begun(talk).files.upload(_here(words[0]), words[1] if words[1:] else None)
    talk.screen.print(f"{one_line(written.path)}: {written.size} bytes")


async def _get(talk: "Talk", words: list[str]) -> None:
    _one(words[:1])
    _none(words[2:])
    path = await _begun(talk).files.download(words[0], _here(words[1]) if words[1:] else None)
    talk.screen.print(f"Written to {path}")


async def _quit(talk: "Talk", words: list[str]) -> None:
    del talk
    _none(words)
    raise Leave


def _one(words: list[str]) -> str:
    if len(words) != 1:
        raise WrongUse
    return words[0]


def _none(words: list[str]) -> None:
    if words:
        raise WrongUse


def _here(path: str) -> Path:
    return Path(path).expanduser()


def _begun(talk: "Talk") -> AsyncSession:
    if talk.session is None:
        raise OSError("The session, and with it its workspace, begins with your first message.")
    return talk.session


COMMANDS = {
    command.usage.partition(" ")[0]: command
    for command in (
        Command("/help", "shows this", _help),
        Command("/new", "begins a new session with the next message", _new),
        Command("/session", "which session this is", _session),
        Command("/sessions", "the newest sessions", _sessions),
        Command("/open ID", "goes on in another session", _open),
        Command("/history", "the whole conversation", _history),
        Command("/model [NAME]", "lists the models, or takes one from now on", _model),
        Command(
            "/thinking LEVEL|show|hide", "how much the model thinks (off, low, medium, high), or shows of it", _thinking
        ),
        Command("/files [FOLDER]", "what is in the workspace", _files),
        Command("/put FILE [PATH]", "uploads a file to the workspace", _put),
        Command("/get PATH [FILE]", "downloads a file", _get),
        Command("/quit", "leaves", _quit),
    )
}


def show_messages(talk: "Talk", messages: list[MessageRecord]) -> None:
    """A conversation, or a part of it."""
    from turnwire.chat.blocks import Blocks
    from turnwire.chat.markdown import rows_of
    from turnwire.chat.view import input_words

    screen, marks = talk.screen, talk.screen.marks
    for message in messages:
        if message.role == "user":
            screen.print("", *(styled((line, "bold")) for line in f"{marks.prompt} {plain(message.text)}".split("\n")))
            continue
        results = {block.id: block for block in message.content if isinstance(block, ToolResultBlock)}
        for block in message.content:
            match block:
                case TextBlock(text):
                    blocks = Blocks()
                    blocks.feed(plain(text))
                    screen.print_rows(
                        [[], *(row for piece in blocks.close() for row in rows_of(piece, screen.console))]
                    )
                case ThinkingBlock():
                    screen.print(styled((f"{marks.folded} thought", "dim")))
                case ToolUseBlock(id_, name, input_):
                    failed = id_ in results and results[id_].is_error
                    mark, style = (marks.failed, "red") if failed else (marks.done, "green")
                    words = one_line(input_words(input_), 300)
                    screen.print_cut(styled((f"{mark} ", style), (one_line(name, 60), "bold"), (f"  {words}", "dim")))
                case _:
                    pass
        if message.status in ("error", "cancelled"):
            screen.print(styled(("failed" if message.status == "error" else "stopped", "yellow")))
