"""Every setting of the server: typed, bounded, described, with its default.

A setting `name` is `TURNWIRE_NAME` in the environment, or `name` in a TOML file (`--config`, `TURNWIRE_CONFIG`). Flags
win over the environment, the environment over the file. `docs/settings.md` is generated from the descriptions below.

`Settings(…)` alone reads nothing but its arguments, which is what tests want; `load_settings` is what programs call.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import quote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from turnwire import database_url
from turnwire.datadir import default_data_dir

PREFIX = "TURNWIRE_"

# Variables with our prefix that are no settings: where the file of settings is, what the client reads, and what the
# project's own tests and benchmarks read. A Kubernetes service that is called `turnwire` adds …_SERVICE_… and …_PORT_…
# to every container.
NOT_SETTINGS = ("CONFIG", "URL", "KEY", "LONG")
NOT_SETTINGS_PREFIXES = ("TEST_", "BENCH_", "SERVICE_", "PORT_")


class SettingsError(Exception):
    """The settings can't be used: one sentence that names the setting, where it came from, and what is allowed."""

    exit_code = 2


def _split(value: object) -> object:
    """Take `a, b` for `["a", "b"]`: the environment holds text only."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _switch(value: object) -> object:
    """Also as a boolean, which files of settings have."""
    words = {"true": "on", "1": "on", "yes": "on", "false": "off", "0": "off", "no": "off"}
    text = str(_lower(str(value) if isinstance(value, bool | int) else value))
    return words.get(text, text) if isinstance(value, str | int) else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


Names = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Paths = Annotated[list[Path], NoDecode, BeforeValidator(_split)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]
Thinking = Annotated[Literal["off", "low", "medium", "high"], BeforeValidator(_lower)]


class Address(NamedTuple):
    """Where a server listens in fact: with port 0, the port that it was given."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As a program on this machine would call it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


_SANDBOX_S_OWN = tuple(map(Path, ("/proc", "/dev", "/workspace", "/skills")))


def _to_be_shown(paths: list[Path]) -> list[Path]:
    """Paths of this machine that can be shown in a sandbox, under the same names."""
    for path in paths:
        if not path.is_absolute() or ".." in path.parts or path == Path("/"):
            raise ValueError(f"{str(path)!r} is not an absolute path of something below /")
        own = next((own for own in _SANDBOX_S_OWN if path.is_relative_to(own)), None)
        # What lies below /tmp can be shown in the sandbox's.
        if own is not None or path == Path("/tmp"):
            raise ValueError(f"{str(path)!r} lies where a sandbox has its own {own or path}")
    return paths


def _check_texts(texts: list[str]) -> None:
    if any("\0" in text for text in texts):
        raise ValueError("a NUL character can't be handed to a program")


def _check_headers(headers: dict[str, str]) -> None:
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError(f"{name!r} is no name of an HTTP header")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of {name} can't be sent in an HTTP header")


class McpServer(BaseModel):
    """An MCP server: a program (`command`, with `args`, `env`, `sandbox` and `paths`), or an address (`url`, with
    `headers`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    url: str | None = None
    headers: dict[str, str] = {}
    sandbox: bool = True
    paths: list[Path] = []

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server has either a command or a url")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError("the url of an MCP server begins with http:// or https://")
        for field, only in (("args", "command"), ("env", "command"), ("paths", "command"), ("headers", "url")):
            if getattr(self, field) and getattr(self, only) is None:
                raise ValueError(f"{field} is for an MCP server with a {only}")
        if self.paths and not self.sandbox:
            raise ValueError("paths is for an MCP server in the sandbox; without one it sees the whole machine")
        _check_texts([self.command or "", *self.args, *self.env, *self.env.values()])
        _check_headers(self.headers)
        return self

    @field_validator("command")
    @classmethod
    def _some_command(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("the command of an MCP server is empty")
        return value

    @field_validator("paths")
    @classmethod
    def _absolute_paths(cls, value: list[Path]) -> list[Path]:
        return _to_be_shown(value)


class Settings(BaseSettings):
    """All settings, checked. Times are seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, validate_default=True
    )

    # Where it listens and keeps its data

    host: str = Field("127.0.0.1", min_length=1, max_length=255, description="The address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="The port to listen on; 0 takes any free one.")
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="The data folder: database, key, workspaces. By default `$XDG_DATA_HOME/turnwire`, "
        "or `~/.local/share/turnwire`.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="A PostgreSQL database for sessions, turns and keys, such as "
        "`postgresql://user:password@host/database`; what is not in it comes from PGPASSWORD, PGPASSFILE and the "
        "others. One server to a database. Unset: the embedded store in the data folder. See "
        "[docs/guides/postgresql.md](guides/postgresql.md).",
    )
    sqlite_synchronous: Annotated[Literal["FULL", "NORMAL"], BeforeValidator(_upper)] = Field(
        "FULL",
        description="What the embedded store asks of the disk. `FULL`: what a caller has seen survives a power cut. "
        "`NORMAL`: it survives a crash of the server, but a power cut may take the last moments; for disks where an "
        "fsync is slow.",
    )
    root_path: str = Field(
        "", description="The path under which a reverse proxy serves this server, such as `/agents`."
    )
    trusted_proxies: Names = Field(
        [],
        description="The addresses or networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are "
        "believed; `*` for all.",
    )
    cors_origins: Names = Field(
        [], description="The origins whose web pages may call the API, such as `https://app.example`; `*` for all."
    )
    console: bool = Field(
        True, description="Whether the web console is served at `/`. It asks for a key, as every caller of the API."
    )
    api_key: SecretStr | None = Field(
        None,
        description="A key of your own choosing for the tenant `default`, for containers and tests; then none is "
        "generated.",
    )

    # The agent

    model: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="The model when a session or message names none, such as `anthropic:claude-sonnet-5-5`, "
        "`openai-chat:NAME`, `ollama:NAME`, `local`, `local:FILE.gguf`, `demo` or `scripted:FILE`. Unset: what the "
        "vendors' keys in the environment and the servers on this machine offer, else the embedded model.",
    )
    thinking: Thinking | None = Field(
        None, description="How much models think when a message doesn't say. Unset: as the model does by itself."
    )
    instructions: str | None = Field(
        None,
        max_length=100_000,
        description="What every agent is told before the conversation, behind the server's own short prompt.",
    )
    context_tokens_max: int | None = Field(
        None,
        ge=1024,
        le=100_000_000,
        description="How many tokens of context a conversation may fill, answer included, before it is shortened and "
        "summed up. Unset: what is known of the model, and 128,000 where nothing is. Servers that cut a conversation "
        "off silently (Ollama) need it set to their own limit.",
    )
    tools_enabled: bool = Field(
        True, description="Whether the agent has the server's own tools (files in its workspace, and a shell)."
    )
    sandbox: Annotated[Literal["auto", "bubblewrap", "none"], BeforeValidator(_lower)] = Field(
        "auto",
        description="Where the agent's commands run. `auto`: in bubblewrap; where that doesn't work there is no "
        "`bash`. `bubblewrap`: the same, but the server then doesn't start. `none`: without a sandbox, with all the "
        "rights of the server's own user.",
    )
    sandbox_network: Annotated[Literal["off", "session", "on"], BeforeValidator(_switch)] = Field(
        "off",
        description="Which of the agent's commands reach the network. `off`: none. `session`: those of sessions that "
        "were created with `network: true`. `on` (or `true`): all but those of sessions created with `network: false`. "
        "Only public addresses can be reached, and it takes pasta or slirp4netns: see "
        "[docs/guides/sandbox.md](guides/sandbox.md).",
    )
    sandbox_memory_mb: int = Field(
        2048, ge=64, le=1_000_000, description="Memory of one command, in MiB: of each process, and of all together."
    )
    sandbox_processes_max: int = Field(
        256, ge=8, le=100_000, description="Processes and threads of one command, running at the same time."
    )
    sandbox_cpu_s: int = Field(1800, ge=1, le=10**7, description="CPU seconds of one process of a command.")
    sandbox_file_mb: int = Field(1024, ge=1, le=10**7, description="The largest file that a command can write, in MiB.")
    sandbox_tmp_mb: int = Field(
        512, ge=1, le=1_000_000, description="Size of a command's own `/tmp`, in MiB; it is memory."
    )
    sandbox_paths: Paths = Field(
        [],
        description="Further files and folders of this machine that commands may read, such as a virtual environment: "
        "absolute paths. A `bin` folder in one goes first in PATH.",
    )
    fetch_enabled: bool = Field(
        False, description="Whether the agent may fetch pages of the web: the tool `fetch_url`."
    )
    fetch_private: bool = Field(
        False,
        description="Whether `fetch_url` also reaches this machine and private networks. Whoever can talk to an agent "
        "then reaches them too.",
    )
    mcp: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")], McpServer] = Field(
        {},
        description="MCP servers whose tools the agent has, in the file of settings: a table `[mcp.NAME]` for each, "
        "with `command` and `args`, run in the sandbox, or `url`. See [docs/guides/mcp.md](guides/mcp.md).",
    )
    step_retries: int = Field(
        2,
        ge=0,
        le=20,
        description="How often a model request that a provider refused for the moment or broke off is made again. "
        "0: it ends the turn.",
    )

    # Time limits of a turn

    turn_timeout_s: Seconds = Field(5400, gt=0, le=7 * 86400, description="The longest that a turn may take.")
    first_token_timeout_s: Seconds = Field(
        300, gt=0, le=86400, description="The longest wait for the first piece of a model's answer."
    )
    next_token_timeout_s: Seconds = Field(
        120, gt=0, le=86400, description="The longest silence of a model in the middle of its answer."
    )

    tool_result_timeout_s: Seconds = Field(
        600, gt=0, le=30 * 86400, description="How long a call waits for the caller who runs or allows it."
    )

    # Streams and connections

    event_ids: bool = Field(
        False, description="Number the events of every stream, unless a message says `event_ids: false`."
    )
    heartbeat_interval_s: Seconds = Field(
        15.0, ge=0.1, le=3600, description="How long a stream may be quiet before a heartbeat is sent."
    )
    slow_reader_timeout_s: Seconds = Field(
        60, gt=0, le=86400, description="A reader that takes nothing for this long is cut off; its turn runs on."
    )
    tcp_user_timeout_s: Seconds = Field(
        60, ge=1, le=86400, description="How long sent bytes may stay unacknowledged before a connection is given up."
    )
    header_timeout_s: Seconds = Field(
        20, gt=0, le=3600, description="How long a caller may take to send the head of a request."
    )

    # Recovery and stopping

    recovery: Annotated[Literal["continue", "fail"], BeforeValidator(_lower)] = Field(
        "continue",
        description="What becomes of turns that were running when the server died: they `continue`, or `fail`.",
    )
    recoveries_max: int = Field(
        3, ge=0, le=1000, description="How often one turn is taken up again after a crash before it ends in an error."
    )
    shutdown_grace_s: Seconds = Field(
        10, ge=0, le=86400, description="How long running turns may go on after the server was asked to stop."
    )

    # How long things are kept

    replay_retention_s: Seconds | None = Field(
        None,
        ge=0,
        description="How long after its end the events of a turn can be replayed. Unset: as long as its session lives.",
    )
    ttl_max_s: int = Field(7_776_000, ge=1, le=10**10, description="The largest `ttl` that a session may ask for.")
    idle_ttl_s: Seconds = Field(
        300, gt=0, le=10**10, description="How long a session that is not persistent outlives its last turn."
    )

    # Limits

    turns_max: int = Field(1000, ge=1, le=1_000_000, description="Turns that run at the same time, in all.")
    turns_per_tenant_max: int = Field(
        200, ge=1, le=1_000_000, description="Turns of one tenant that run at the same time."
    )
    streams_max: int = Field(5000, ge=1, le=1_000_000, description="Event streams that are open at the same time.")
    upload_bytes_max: int = Field(
        10 * 1024**3, ge=1, le=2**62, description="The largest file, in bytes, that can be uploaded."
    )
    workspace_quota_bytes: int | None = Field(
        None,
        ge=1,
        le=2**62,
        description="What the files of one workspace may come to, in bytes. Uploads and the agent's file tools are "
        "held to it while they write; commands are ended when a look finds that they went over, which may be some "
        "seconds late. Unset: as much as the disk takes.",
    )
    workspace_files_max: int | None = Field(
        None,
        ge=1,
        le=2**62,
        description="How many files and folders one workspace may have, in the same way. Unset: as many as the disk "
        "takes.",
    )

    # Logs

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="The least important messages that are logged, on stderr."
    )
    log_format: Annotated[Literal["console", "json"], BeforeValidator(_lower)] = Field(
        "console", description="How log lines look: for people, or one JSON object a line."
    )

    @property
    def database(self) -> str | None:
        """The database's URL, with its password; None: the embedded store."""
        return None if self.database_url is None else self.database_url.get_secret_value()

    @property
    def secrets(self) -> list[str]:
        """What must not appear in a log."""
        chosen = [] if self.api_key is None else [self.api_key.get_secret_value()]
        password = None if self.database is None else database_url.password(self.database)
        return chosen if password is None else [*chosen, password]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing but the arguments: `load_settings` brings file, environment and flags together."""
        return (init_settings,)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return Path(os.path.abspath(value.expanduser()))  # noqa: PTH100 (resolve() would follow links)

    @field_validator("sandbox_paths")
    @classmethod
    def _absolute_paths(cls, value: list[Path]) -> list[Path]:
        return _to_be_shown(value)

    @field_validator("database_url")
    @classmethod
    def _a_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        database_url.check(value.get_secret_value())
        return value

    @field_validator("root_path")
    @classmethod
    def _a_path(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and (not value.startswith("/") or urlsplit(value).path != quote(value, safe="/%~")):
            raise ValueError("it must be a path that begins with /, such as /agents")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for item in value:
            try:
                _ = item == "*" or ipaddress.ip_network(item, strict=False)
            except ValueError:
                raise ValueError(f"{item!r} is no IP address, no network such as 10.0.0.0/8, and not *") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: list[str]) -> list[str]:
        for item in value:
            parts = urlsplit(item)
            if item != "*" and (not parts.scheme or not parts.netloc or item != f"{parts.scheme}://{parts.netloc}"):
                raise ValueError(f"{item!r} is not an origin such as https://app.example (no path), and not *")
        return value

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value else None
        if text is not None and (not text.strip() or text != text.strip() or not text.isprintable()):
            raise ValueError("it must be printable text without white space around it, as it is sent in a header")
        return value


def load_settings(config: Path | None = None, **flags: object) -> Settings:
    """Bring file, environment and flags together and check them.

    Args:
        config: the TOML file; None: the one that TURNWIRE_CONFIG names, if any.
        flags: what the command line said, by setting; None means that it said nothing.

    Raises:
        SettingsError: one sentence for people; the program ends with exit code 2.
    """
    return read_settings(config, **flags)[0]


def read_settings(config: Path | None = None, **flags: object) -> tuple[Settings, dict[str, str]]:
    """`load_settings`, and where each value came from that isn't a default: `--port`, `TURNWIRE_PORT in the
    environment`, or `port in turnwire.toml`."""
    named = os.environ.get(f"{PREFIX}CONFIG")
    path = config or (Path(named) if named else None)
    _refuse_misspelt(os.environ)
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for name, value in (_read_file(path) if path else {}).items():
        values[name], origins[name] = value, f"{name} in {path}"
    for name, value in _from_environment().items():
        values[name], origins[name] = value, f"{PREFIX}{name.upper()} in the environment"
    for name, value in flags.items():
        if value is not None:
            values[name], origins[name] = value, f"--{name.replace('_', '-')}"

    try:
        return Settings.model_validate(values), origins
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        # Not `from exc`: pydantic's text holds the values, secrets included.
        raise SettingsError(f"{origins.get(name, name)}: {_what(first)}.") from None


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """The variables with our prefix that are no setting of this version and resemble none: worth a warning."""
    return sorted(name for name, _ in _unknown(os.environ if environ is None else environ))


def _read_file(path: Path) -> dict[str, Any]:
    """The settings of a TOML file, names checked."""
    try:
        values = tomllib.loads(path.expanduser().read_text("utf-8"))
    except OSError as exc:
        raise SettingsError(f"The settings file {path} can't be read: {exc.strerror or exc}.") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"The settings file {path} is not valid TOML: {exc}.") from exc

    for name in values:
        if name not in Settings.model_fields:
            near = _nearest(name, cutoff=0.6)
            hint = f"did you mean {near}?" if near else "`turnwire settings` prints all."
            raise SettingsError(f"{name} in {path} is not a setting: {hint}")
    return values


def _from_environment() -> dict[str, Any]:
    values = EnvSettingsSource(Settings)()
    # Kubernetes sets TURNWIRE_PORT=tcp://10.0.0.1:8080 for a service that is called turnwire: not meant for us.
    if str(values.get("port", "")).startswith(("tcp://", "udp://")):
        del values["port"]
    return values


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    for variable, near in _unknown(environ):
        if near:
            raise SettingsError(f"{variable} in the environment is not a setting: did you mean {PREFIX}{near.upper()}?")


def _unknown(environ: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """Variables that look like settings and are none, each with the setting that it resembles closely, if any."""
    found: list[tuple[str, str | None]] = []
    for variable in environ:
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX) or name.lower() in Settings.model_fields:
            continue
        if name not in NOT_SETTINGS and not name.startswith(NOT_SETTINGS_PREFIXES):
            # Only close ones are taken for mistakes: other programs may use the prefix, and newer versions more names.
            found.append((variable, _nearest(name.lower(), cutoff=0.8)))
    return found


def _nearest(name: str, cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=cutoff)), None)


def _what(error: Any) -> str:
    """What is wrong with a value, as the end of a sentence, from pydantic's description of the error."""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"].startswith("bool"):
        message = "it should be true or false"
    message = message.replace("Input should be", "it should be").replace("String should", "it should")
    value = error["input"]
    # The value of a secret is never shown, nor is a long one.
    shown = isinstance(value, str | int | float) and error["loc"][0] not in ("api_key", "database_url", "mcp")
    if shown and len(str(value)) <= 80 and str(value) not in message:
        message = f"{value!r} is not allowed, {message}"
    return message[0].lower() + message[1:]
