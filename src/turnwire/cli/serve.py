"""`turnwire serve`: settings, data folder, key and model, then the server, and its start-up lines when it listens."""

import gc
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from turnwire import observe
from turnwire.cli.startup import AccessKey, startup_lines
from turnwire.datadir import DataDir
from turnwire.seams.sandbox import Status
from turnwire.settings import Address, Settings, read_settings, unknown_variables

Announce = Callable[[Address, Status, Mapping[str, str], Sequence[str]], None]


def serve(config: Path | None, **flags: object) -> int:
    """Run a server until it is asked to stop; the answer is the exit code.

    Raises:
        SettingsError: a setting is wrong.
        StartRefused: the data folder or the port can't be had.
    """
    # The server has its own way to stop. Asked while it is not up yet, it stops where it is, and as asked.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _serve(config, flags)
    except KeyboardInterrupt:
        return 0


def _interrupt(*_: object) -> None:
    """As Ctrl-C: asyncio ends its task for that, where an exception out of nowhere would leave it half done."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what a shell does to commands in the background
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _serve(config: Path | None, flags: dict[str, object]) -> int:
    settings, origins = read_settings(config, **flags)
    chosen = settings.api_key.get_secret_value() if settings.api_key else None
    observe.configure(level=settings.log_level, format=settings.log_format, secrets=settings.secrets)
    log = observe.logger("turnwire.cli.serve")
    for name in unknown_variables():
        log.warning("a variable with our prefix is no setting of this version, and is ignored", variable=name)

    with DataDir.open(settings.data_dir) as data:
        key = _key(data, chosen, origins)
        # It imports the agent library, in seconds: a refusal of the folder must not wait for that.
        from turnwire.cli.choice import choose_model

        choice = choose_model(settings, origins)
        settings = settings.model_copy(update={"model": choice.spec})

        def announce(address: Address, sandbox: Status, mcp: Mapping[str, str], notes: Sequence[str]) -> None:
            data.announce(address.url)
            lines = startup_lines(
                settings,
                address,
                data,
                key,
                why=choice.why,
                sandbox=sandbox,
                mcp=mcp,
                notes=notes,
                terminal=sys.stdout.isatty(),
                show=_show_command(config),
            )
            _print_all(lines)

        # A chosen key is in the settings, and never stored.
        own_key = key.text if chosen is None else None
        return run_server(settings, data, model=choice.spec, key=own_key, announce=announce)


def run_server(settings: Settings, data: DataDir, *, model: str, key: str | None, announce: Announce) -> int:
    """Blocks until the server has stopped. Apart, as the import takes a second or two."""
    # What imports make is there to stay: nothing to collect, until the server is ready (wiring.py).
    gc.disable()
    from turnwire.wiring import run

    return run(
        settings,
        data,
        model=model,
        key=key,
        announce=lambda where, sandbox, mcp, notes: announce(Address(where.host, where.port), sandbox, mcp, notes),
    )


def _key(data: DataDir, chosen: str | None, origins: dict[str, str]) -> AccessKey:
    if chosen is None:
        text, is_new = data.key()
        return AccessKey(text, "key file", is_new)
    origin: Literal["environment", "settings file"]
    origin = "environment" if "in the environment" in origins["api_key"] else "settings file"
    return AccessKey(chosen, origin)


def _show_command(config: Path | None) -> str:
    """What prints a key that stands in a settings file, from any folder."""
    words = [str(Path(sys.argv[0]).absolute()), "keys", "show"]
    return shlex.join([*words, "--config", str(config.absolute())] if config else words)


def _print_all(lines: list[str]) -> None:
    """At once and flushed: who reads a pipe waits for these lines. That nobody reads them stops no server."""
    try:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    except OSError:
        # Python would write the rest when it ends, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        observe.logger("turnwire.cli.serve").warning("the start-up lines could not be printed")
