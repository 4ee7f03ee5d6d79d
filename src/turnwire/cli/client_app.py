"""The client's commands and their options: they need no server's parts, and talk to any server of this API."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from turnwire.cli.examples import examples

sessions_app = typer.Typer(help="The sessions of a server.", rich_markup_mode=None)
files_app = typer.Typer(help="The files of a session's workspace.", rich_markup_mode=None)
skills_app = typer.Typer(help="What the agents know to do.", rich_markup_mode=None)


class Thinking(StrEnum):
    OFF = "off"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Workspace(StrEnum):
    SHARED = "shared"
    PRIVATE = "private"


Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        show_default=False,
        help="The server. Else TURNWIRE_URL, POKEE_API, or the one that runs on the data folder.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        show_default=False,
        help="The key. Better in TURNWIRE_KEY or POKEE_KEY, where no list of processes shows it; for the server of the "
        "data folder it is the one in there.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", show_default=False, help="The data folder of a server on this machine."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead, one object a line.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id, as `sessions list` shows it.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("chat", epilog=CHAT_EXAMPLES, short_help="Talk to an agent in the terminal.")(chat)
    app.add_typer(sessions_app, name="sessions", no_args_is_help=True)
    app.add_typer(files_app, name="files", no_args_is_help=True)
    app.add_typer(skills_app, name="skills", no_args_is_help=True)


CHAT_EXAMPLES = examples(
    ("turnwire chat", "talk; starts a server of its own when none runs"),
    ("turnwire chat --session sess_1a2b3c4d5e6f", "go on, also in the middle of a turn"),
    ('turnwire chat -m "What is in this workspace?"', "one message, and its answer"),
    ("git diff | turnwire chat", "the message from a pipe"),
    ('turnwire chat -m "Hi" --json | jq -r .type', "the events, one a line"),
    after="Exit codes: 0 the turn ended well, or you left; 1 it failed; 2 wrong usage; 130 stopped by Ctrl-C.",
)


def chat(
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", metavar="TEXT", show_default=False, help="Send this, print the answer, end."),
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", "-s", metavar="ID", show_default=False, help="Go on in this session.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="Go on in the session that was last active.")] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", show_default=False, help="The model, such as anthropic:NAME or demo."),
    ] = None,
    thinking: Annotated[
        Thinking | None, typer.Option("--thinking", show_default=False, help="How much the model thinks.")
    ] = None,
    show_thinking: Annotated[bool, typer.Option("--show-thinking", help="Show what it thinks, not only that.")] = False,
    approve: Annotated[
        list[str] | None,
        typer.Option(
            "--approve", metavar="TOOL", show_default=False, help="Ask before calls of this tool. Repeatable."
        ),
    ] = None,
    instructions: Annotated[
        str | None,
        typer.Option("--instructions", metavar="TEXT", show_default=False, help="What the agent is told beforehand."),
    ] = None,
    workspace: Annotated[
        Workspace | None,
        typer.Option("--workspace", show_default=False, help="The tenant's files, or some for this session alone."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="With one message: print its events, one JSON a line.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With one message: allow all calls that need an approval.")
    ] = False,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Talk to an agent in the terminal, or send it one message from a script."""
    from turnwire.chat.options import ChatOptions
    from turnwire.cli.access import Given, WrongUse
    from turnwire.cli.chat import chat

    if session is not None and last:
        raise WrongUse("--session and --last: say one of them.")
    if (session is not None or last) and (approve or instructions is not None or workspace is not None):
        raise WrongUse("--approve, --instructions and --workspace are of a new session: this one has its own.")
    options = ChatOptions(
        session_id=session,
        last=last,
        model=model,
        thinking=None if thinking is None else thinking.value,
        instructions=instructions,
        workspace=None if workspace is None else workspace.value,
        approvals=approve or (),
        show_thinking=show_thinking,
    )
    raise typer.Exit(chat(Given(url, key, data_dir), options, message=message, as_json=json, yes=yes))


@sessions_app.command("list", epilog=examples(("turnwire sessions list --busy", "those in which a turn runs")))
def sessions_list(
    busy: Annotated[bool, typer.Option("--busy", help="Only those in which a turn runs.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="At most so many.")] = 50,
    json: Json = False,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """List the sessions, newest first."""
    from turnwire.cli.access import Given
    from turnwire.cli.sessions import list_sessions

    list_sessions(Given(url, key, data_dir), busy=busy, limit=limit, as_json=json)


@sessions_app.command("show", epilog=examples(("turnwire sessions show sess_1a2b3c4d5e6f", "what was said")))
def sessions_show(
    session: SessionId, json: Json = False, url: Url = None, key: Key = None, data_dir: DataDir = None
) -> None:
    """Print what was said and done in a session."""
    from turnwire.cli.access import Given
    from turnwire.cli.sessions import show

    show(Given(url, key, data_dir), session, as_json=json)


@sessions_app.command("delete", epilog=examples(("turnwire sessions delete sess_1a2b3c4d5e6f", "")))
def sessions_delete(
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION", help="Their ids.")],
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Delete sessions; a turn that runs is cancelled."""
    from turnwire.cli.access import Given
    from turnwire.cli.sessions import delete

    delete(Given(url, key, data_dir), sessions)


@sessions_app.command("prune", epilog=examples(("turnwire sessions prune --older-than 30d --yes", "for a cron job")))
def sessions_prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Without activity for this long: 7d, 12h, 1h30m.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Delete the sessions that nobody has used for some time."""
    from turnwire.cli.access import Given
    from turnwire.cli.sessions import prune

    prune(Given(url, key, data_dir), older_than, yes=yes)


@files_app.command("ls", epilog=examples(("turnwire files ls sess_1a2b3c4d5e6f reports", "what is in the folder")))
def files_ls(
    session: SessionId,
    path: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder in the workspace.", show_default=False)] = "",
    json: Json = False,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """List a folder."""
    from turnwire.cli.access import Given
    from turnwire.cli.files import list_files

    list_files(Given(url, key, data_dir), session, path, as_json=json)


@files_app.command(
    "get",
    epilog=examples(
        ("turnwire files get sess_1a2b3c4d5e6f plot.png", "into this folder"),
        ("turnwire files get sess_1a2b3c4d5e6f notes.md -", "to stdout"),
        ("turnwire files get sess_1a2b3c4d5e6f --zip reports", "a whole folder"),
    ),
)
def files_get(
    session: SessionId,
    path: Annotated[str, typer.Argument(metavar="PATH", help="In the workspace; with --zip a folder, '' for all.")],
    to: Annotated[
        str | None, typer.Argument(metavar="TO", help="A file or folder here; - for stdout.", show_default=False)
    ] = None,
    zip: Annotated[bool, typer.Option("--zip", help="A folder, as a zip.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Download a file, whole or not at all."""
    from turnwire.cli.access import Given
    from turnwire.cli.files import get

    get(Given(url, key, data_dir), session, path, to, as_zip=zip, overwrite=overwrite)


@files_app.command(
    "put",
    epilog=examples(
        ("turnwire files put sess_1a2b3c4d5e6f bills.csv", ""),
        ("turnwire files put sess_1a2b3c4d5e6f *.csv --to data/", "into a folder, which is made"),
        ("ps aux | turnwire files put sess_1a2b3c4d5e6f - --to ps.txt", "from a pipe"),
    ),
)
def files_put(
    session: SessionId,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Files here; - for stdin.")],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="PATH", show_default=False, help="In the workspace; a folder ends with a slash."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Fail when the file is there already.")] = False,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Upload files."""
    from turnwire.cli.access import Given
    from turnwire.cli.files import put

    put(Given(url, key, data_dir), session, files, to, overwrite=not keep)


@files_app.command("rm", epilog=examples(("turnwire files rm sess_1a2b3c4d5e6f bills.csv", "")))
def files_rm(
    session: SessionId,
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Files, or empty folders.")],
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Delete files, or empty folders."""
    from turnwire.cli.access import Given
    from turnwire.cli.files import remove

    remove(Given(url, key, data_dir), session, paths)


@skills_app.command("list", epilog=examples(("turnwire skills list", "")))
def skills_list(json: Json = False, url: Url = None, key: Key = None, data_dir: DataDir = None) -> None:
    """List the skills."""
    from turnwire.cli.access import Given
    from turnwire.cli.skills import list_skills

    list_skills(Given(url, key, data_dir), as_json=json)


@skills_app.command(
    "install",
    epilog=examples(
        ("turnwire skills install ./pdf-tools", "a folder with a SKILL.md"),
        ("turnwire skills install pdf-tools.zip", "a zip of one"),
    ),
)
def skills_install(
    source: Annotated[Path, typer.Argument(metavar="FOLDER|ZIP", help="A folder with a SKILL.md, or a zip of it.")],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", show_default=False, help="Its name; else that of the folder or zip."),
    ] = None,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Install a skill, or replace it."""
    from turnwire.cli.access import Given
    from turnwire.cli.skills import install

    install(Given(url, key, data_dir), source, name)


@skills_app.command("remove", epilog=examples(("turnwire skills remove pdf-tools", "")))
def skills_remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Their names.")],
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Remove skills."""
    from turnwire.cli.access import Given
    from turnwire.cli.skills import remove

    remove(Given(url, key, data_dir), names)
