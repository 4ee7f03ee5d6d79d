"""`turnwire` alone: what it is, what runs here, and where to go from here."""

from pathlib import Path

from turnwire import __version__
from turnwire.cli.access import Given, data_dir_of, short
from turnwire.datadir import served

COMMANDS = (
    ("turnwire serve", "start a server"),
    ("turnwire chat", "talk to an agent in this terminal; starts a server when none runs"),
    ("turnwire sessions list", "what was talked about"),
    ("turnwire doctor", "what is here, which model would be used, and what is missing"),
    ("turnwire --help", "all commands; each has a --help with examples"),
)


def overview() -> str:
    """Some lines for a person."""
    width = max(len(command) for command, _ in COMMANDS)
    lines = [f"turnwire {__version__}: a self-hosted server for agent sessions, in which the log is the turn.", ""]
    lines += [f"  {command.ljust(width)}  {what}" for command, what in COMMANDS]
    return "\n".join([*lines, "", running(data_dir_of(Given()))])


def running(folder: Path) -> str:
    """Whether a server runs on the data folder."""
    holder = served(folder)
    if holder is None:
        return f"No server is running on the data folder {short(folder)}."
    if holder.url is None:
        return f"A server is starting on the data folder {short(folder)}."
    return f"A server is running at {holder.url}, on the data folder {short(folder)}."
