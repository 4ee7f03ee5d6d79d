"""The commands and their options. What they do is in the modules beside this one."""

from pathlib import Path
from typing import Annotated

import typer

from turnwire.cli import client_app
from turnwire.cli.examples import examples

app = typer.Typer(
    help="A self-hosted server for agent sessions, in which the log is the turn.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
keys_app = typer.Typer(help="The keys that callers show to the server.", rich_markup_mode=None)
models_app = typer.Typer(help="The models that a server here can be asked for.", rich_markup_mode=None)
app.add_typer(keys_app, name="keys", no_args_is_help=True)
app.add_typer(models_app, name="models", invoke_without_command=True)
client_app.register(app)

Config = Annotated[
    Path | None, typer.Option("--config", help="A TOML file of settings.", metavar="FILE", show_default=False)
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="The data folder.", metavar="DIR", show_default=False)
]
Host = Annotated[str | None, typer.Option("--host", help="The address to listen on: 127.0.0.1.", show_default=False)]
Port = Annotated[int | None, typer.Option("--port", help="The port: 8080; 0 takes any free one.", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option("--model", help="The model, such as anthropic:NAME, ollama:NAME, local, demo.", metavar="SPEC"),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="A PostgreSQL database; without it, the embedded store.", metavar="URL"),
]


@app.callback(invoke_without_command=True)
def _program(  # pyright: ignore[reportUnusedFunction]
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print_version()
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        from turnwire.cli.overview import overview

        print(overview())


@app.command(
    epilog=examples(
        ("turnwire serve", "on 127.0.0.1:8080, with the model that this machine offers"),
        ("turnwire serve --port 0 --model demo", "on any free port, without a real model"),
        ("turnwire serve --config turnwire.toml", "with the settings of a file"),
    )
)
def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDirOption = None,
    model: Model = None,
    database_url: DatabaseUrl = None,
    config: Config = None,
) -> None:
    """Run the server, until Ctrl-C or SIGTERM. `turnwire settings` prints every setting."""
    from turnwire.cli.serve import serve

    code = serve(config, host=host, port=port, data_dir=data_dir, model=model, database_url=database_url)
    raise typer.Exit(code)


@app.command(
    short_help="Say what is there, what is missing, what to do.",
    epilog=examples(
        ("turnwire doctor", "before the first start"), ("turnwire doctor --deep", "after a crash of the disk")
    ),
)
def doctor(
    host: Host = None,
    port: Port = None,
    data_dir: DataDirOption = None,
    model: Model = None,
    database_url: DatabaseUrl = None,
    config: Config = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read the whole database, and check every event in it.")] = False,
) -> None:
    """Say what is there, what is missing, which model would be used, and what to do. 1: a server can't run."""
    from turnwire.cli.doctor import doctor

    raise typer.Exit(
        doctor(config, deep=deep, host=host, port=port, data_dir=data_dir, model=model, database_url=database_url)
    )


@app.command(
    short_help="Bring the database to this version, without a server.",
    epilog=examples(
        ("turnwire migrate", "of the data folder, after an upgrade"),
        ("turnwire migrate --database-url postgresql://user@host/database", "of a PostgreSQL, before a server starts"),
    ),
)
def migrate(data_dir: DataDirOption = None, database_url: DatabaseUrl = None, config: Config = None) -> None:
    """Bring the database to this version, as the server does at its start. No server may run on it meanwhile."""
    from turnwire.cli.migrate import migrate

    migrate(config, data_dir=data_dir, database_url=database_url)


@app.command(epilog=examples(("turnwire settings --config turnwire.toml", "what is in force, and from where")))
def settings(
    config: Config = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference of all settings.")] = False,
) -> None:
    """Print every setting, its value, and where that came from."""
    from turnwire.cli.reference import print_settings, settings_markdown

    if markdown:
        print(settings_markdown(), end="")
    else:
        print_settings(config)


@app.command(
    epilog=examples(
        ("turnwire conformance http://127.0.0.1:8080 --key tw_default_…", "all cases"),
        ("turnwire conformance --only 'cancel*'", "some, on the server of POKEE_API"),
    )
)
def conformance(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="The server's address.", envvar="POKEE_API", show_default=False)
    ] = None,
    key: Annotated[
        str, typer.Option("--key", help="A key of the server.", envvar="POKEE_KEY", show_default=False, metavar="KEY")
    ] = "",
    other_key: Annotated[
        str | None,
        typer.Option("--other-key", help="A key of another tenant.", envvar="POKEE_OTHER_KEY", metavar="KEY"),
    ] = None,
    behaviours: Annotated[
        Path | None,
        typer.Option("--behaviours", help="A file: how to make the model behave. Else, as for demo.", metavar="FILE"),
    ] = None,
    heartbeat: Annotated[
        float, typer.Option("--heartbeat", help="The server's heartbeat interval.", min=0.1, metavar="SECONDS")
    ] = 15.0,
    jobs: Annotated[int, typer.Option("--jobs", help="Cases that run at once.", min=1, max=64)] = 4,
    only: Annotated[
        str | None,
        typer.Option("--only", help="The cases with such a name or rule: 'cancel*', 'P-5.*'.", metavar="PATTERN"),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", help="Write the results there, as JUnit's XML.", metavar="FILE")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="What is not offered counts as failed.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the cases, and run none.")] = False,
) -> None:
    """Check a server, ours or another, against PROTOCOL.md. What it makes there is deleted again. 1: a case failed."""
    from turnwire.cli.conformance import conformance, list_cases

    if list_:
        list_cases(only)
        return
    if url is None:
        raise typer.BadParameter("give the server's address, such as http://127.0.0.1:8080", param_hint="URL")
    code = conformance(
        url,
        key,
        other_key=other_key,
        behaviours=behaviours,
        heartbeat_s=heartbeat,
        jobs=jobs,
        only=only,
        junit=junit,
        strict=strict,
    )
    raise typer.Exit(code)


@app.command("version", epilog=examples(("turnwire version", "")))
def print_version() -> None:
    """Print the version."""
    from turnwire import __version__

    print(f"turnwire {__version__}")


@keys_app.command("show", epilog=examples(("export POKEE_KEY=$(turnwire keys show)", "for a shell on this machine")))
def keys_show(data_dir: DataDirOption = None, config: Config = None) -> None:
    """Print the key that the server made at its first start."""
    from turnwire.cli.keys import show

    show(config, data_dir)


@keys_app.command("list", epilog=examples(("turnwire keys list", "")))
def keys_list(json: client_app.Json = False, data_dir: DataDirOption = None, config: Config = None) -> None:
    """List the keys: id, name, tenant, when made. Their texts are not kept."""
    from turnwire.cli.keys import list_keys

    list_keys(config, data_dir, as_json=json)


@keys_app.command(
    "create", epilog=examples(("turnwire keys create ci --tenant builds", "a key of a tenant of its own"))
)
def keys_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called, to know it by later.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose sessions and files it opens.")] = "default",
    data_dir: DataDirOption = None,
    config: Config = None,
) -> None:
    """Make a key and print it: this once, as only its hash is kept."""
    from turnwire.cli.keys import create

    create(config, data_dir, name=name, tenant=tenant)


@keys_app.command("revoke", epilog=examples(("turnwire keys revoke ci", "")))
def keys_revoke(
    key: Annotated[str, typer.Argument(metavar="NAME|ID", help="The key's name, or its id as `keys list` shows it.")],
    data_dir: DataDirOption = None,
    config: Config = None,
) -> None:
    """Take a key away. A running server refuses it within a few seconds."""
    from turnwire.cli.keys import revoke

    revoke(config, data_dir, key)


@models_app.callback(invoke_without_command=True)
def _models(context: typer.Context) -> None:  # pyright: ignore[reportUnusedFunction]
    """The models that a server here can be asked for."""
    if context.invoked_subcommand is None:
        models_list()


@models_app.command(
    "list", short_help="List them, the default one first.", epilog=examples(("turnwire models list", ""))
)
def models_list(json: client_app.Json = False, model: Model = None, config: Config = None) -> None:
    """List the models that a server started here could be asked for, the default one first."""
    from turnwire.cli.models import list_models

    list_models(config, model, as_json=json)


@models_app.command(
    "pull-local",
    short_help="Install the embedded model (about 130 MB).",
    epilog=examples(("turnwire models pull-local", "then: turnwire serve --model local")),
)
def models_pull_local() -> None:
    """Install the embedded model (about 130 MB) into the environment that turnwire runs in."""
    from turnwire.cli.models import pull_local

    pull_local()
