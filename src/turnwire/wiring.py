"""The only file that names adapters: from settings to a server that runs."""

import asyncio
import errno
import gc
import resource
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
import uvloop
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset

from turnwire.datadir import DataDir, StartRefused
from turnwire.engine.context import warm_up
from turnwire.engine.leases import Leases
from turnwire.engine.requests import StepLimits
from turnwire.engine.sessions import Sessions
from turnwire.engine.sweeper import Sweeper
from turnwire.engine.turns import Options, Turns
from turnwire.models.errors import ModelError
from turnwire.models.resolve import Models as ResolvedModels
from turnwire.protocol.errors import InvalidRequest
from turnwire.protocol.ids import new_request_id
from turnwire.sandboxes.choose import choose as choose_sandbox
from turnwire.seams.clock import Clock, SystemClock
from turnwire.seams.model import ChosenModel, ModelEntry, ThinkingLevel
from turnwire.seams.sandbox import Sandbox, Status
from turnwire.seams.store import Key, Store
from turnwire.seams.tool import ToolContext
from turnwire.seams.workspace import EVERYTHING, NOTHING, FileAccess, Workspace
from turnwire.server.app import create_app
from turnwire.server.auth import DEFAULT_TENANT, Keys, key_digest
from turnwire.server.context import ServerOptions, Services
from turnwire.server.run import HttpOptions, serve
from turnwire.server.tickets import Tickets
from turnwire.settings import PREFIX, Settings
from turnwire.skills.directory import DirectorySkills
from turnwire.stores.choose import Opened, open_store
from turnwire.stores.common import StoreRefused
from turnwire.tools.files import FileTools
from turnwire.tools.limits import MCP_CONNECT_S
from turnwire.tools.mcp.config import McpServer
from turnwire.tools.mcp.toolset import McpTools
from turnwire.tools.progress import ProgressTools
from turnwire.tools.shell import ShellTools
from turnwire.tools.web import WebTools
from turnwire.workspaces.directory import DirectoryWorkspace, DirectoryWorkspaces
from turnwire.workspaces.quota import Quota

log = structlog.get_logger(__name__)


DATA_FOLDER_KEY = "data folder"
"""The name of the key that is made at the first start."""


class Address(NamedTuple):
    """Where the server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


Announce = Callable[[Address, Status, Mapping[str, str], Sequence[str]], None]
"""Is told where the server listens, what became of the sandbox, the state of each MCP server by its name, and what the
operator should know of the database."""


def run(settings: Settings, data: DataDir, *, model: str, key: str | None, announce: Announce) -> int:
    """Serve until asked to stop; the process's exit code. Blocks.

    `key`: the data folder's own key, None when the settings have one. `announce` is called once the server listens
    and is ready, with what became of the sandbox. `StartRefused` when it can't start.
    """
    _raise_open_files_limit()
    # Before anything else is set up, so that a taken port is said at once.
    sock = _listen(settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(settings, data, model, key, sock, announce))
    finally:
        sock.close()


async def _run(
    settings: Settings,
    data: DataDir,
    model: str,
    key: str | None,
    sock: socket.socket,
    announce: Announce,
) -> int:
    failed: list[Exception] = []
    stop = asyncio.Event()

    def on_fatal(exc: Exception) -> None:
        failed.append(exc)
        stop.set()

    clock = SystemClock()
    async with AsyncExitStack() as stack:
        store, notes = await _open_store(settings, data, clock, on_fatal)
        stack.push_async_callback(store.close)
        if key is not None:
            await _keep_key(store, key, clock)
        models = ResolvedModels(model)
        stack.push_async_callback(models.aclose)
        warm_up()
        try:
            await models.preload()
        except ModelError as exc:
            raise StartRefused(str(exc)) from exc
        workspaces = DirectoryWorkspaces(
            data.workspaces, quota=Quota(settings.workspace_quota_bytes, settings.workspace_files_max)
        )
        skills = DirectorySkills(data.skills, _read_only)
        # In nobody's way; a daemon, so that it can't keep the process when it is to end.
        started_at = time.time()
        threading.Thread(target=_remove_leftovers, args=(workspaces, started_at), daemon=True).start()
        sandbox = make_sandbox(settings, data)
        if settings.sandbox == "bubblewrap" and not sandbox.status.available:
            raise StartRefused(f"{PREFIX}SANDBOX=bubblewrap, but: {sandbox.status.reason} To do: {sandbox.status.todo}")
        stack.push_async_callback(sandbox.aclose)
        shell = ShellTools(sandbox)
        toolset = await _toolset(settings, shell, sandbox, stack)
        no_network = _no_network(settings, sandbox.status)
        options = _options(settings)
        services = _services(settings, options, store, models, workspaces, skills, toolset, clock, no_network)
        app = create_app(services)

        async def end_session(session_id: str) -> None:
            if isinstance(toolset, McpTools):
                await toolset.end_session(session_id)
            await shell.end_session(session_id)

        sweeper = asyncio.create_task(_sweeper(settings, store, services, end_session, clock).run())
        stack.callback(sweeper.cancel)

        # Before the first request is answered: a new turn must not be taken for one whose server died, and a client
        # that reconnects finds its turn running. Its connection waits in the socket's queue meanwhile.
        taken_up = await services.turns.take_over(everything=True, reason="server_restarted")
        if taken_up:
            log.info("turns_taken_up", count=taken_up)
        if settings.database is not None:
            # A database may be away for a while: a turn whose begin was not acknowledged is taken up by its lease.
            leases = Leases(store, services.turns, options.owner, lease_s=options.lease_s)
            stack.callback(asyncio.create_task(leases.run()).cancel)

        async def ready() -> None:
            _freeze_heap()
            services.ready.set()
            host, port = sock.getsockname()[:2]
            states = toolset.states() if isinstance(toolset, McpTools) else {}
            announce(Address(host, port), sandbox.status, states, notes)

        await serve(app, sock, services.turns, _http_options(settings), ready=ready, stop=stop)
    if failed:
        raise StartRefused(f"The database failed, so the server stopped: {failed[0]}") from failed[0]
    return 0


def _freeze_heap() -> None:
    """Take what is there now out of the garbage collector's care: it stays as long as the process.

    Else each full collection walks through more than 100,000 objects of imported modules too, and all streams stand
    still for it (bench/RESULTS.md).
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def _raise_open_files_limit() -> None:
    """To what the system allows this process: each stream is an open file, and the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as exc:  # macOS says "unlimited" and takes less
            log.warning("open_files_limit_not_raised", count=soft, error=str(exc))


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
    except (socket.gaierror, UnicodeError) as exc:
        raise StartRefused(
            f"{settings.host!r} is no address of this machine: give one with --host, such as 127.0.0.1, or 0.0.0.0 "
            "for all."
        ) from exc
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((settings.host, settings.port))
        sock.listen(2048)
    except OSError as exc:
        todo = (
            "give an address of this machine with --host, such as 127.0.0.1, or 0.0.0.0 for all."
            if exc.errno == errno.EADDRNOTAVAIL
            else "choose another port with --port, or 0 for any free one."
        )
        raise StartRefused(
            f"The server can't listen on {settings.host}:{settings.port} ({exc.strerror or exc}): {todo}"
        ) from exc
    sock.setblocking(False)
    return sock


async def _open_store(settings: Settings, data: DataDir, clock: Clock, on_fatal: Callable[[Exception], None]) -> Opened:
    try:
        return await open_store(
            settings.database, data.database, synchronous=settings.sqlite_synchronous, clock=clock, on_fatal=on_fatal
        )
    except StoreRefused as exc:
        raise StartRefused(str(exc)) from exc


async def _keep_key(store: Store, key: str, clock: Clock) -> None:
    """The key of the data folder is in the database too, hashed; one that stood there before works no more."""
    digest = key_digest(key)
    for other in await store.list_keys():
        if other.name == DATA_FOLDER_KEY and other.digest != digest:
            await store.remove_key(other.digest)
    if await store.find_key(digest) is None:
        await store.add_key(Key(digest, DEFAULT_TENANT, DATA_FOLDER_KEY, clock.now()))


def _read_only(directory: Path) -> Workspace:
    return DirectoryWorkspace(directory, FileAccess(read=EVERYTHING, write=NOTHING))


def _remove_leftovers(workspaces: DirectoryWorkspaces, before: float) -> None:
    removed = workspaces.remove_leftovers(before)
    if removed:
        log.info("leftovers_removed", files=removed)


def make_sandbox(settings: Settings, data: DataDir) -> Sandbox:
    """The sandbox that the settings ask for. Whether it works, its status tells."""
    return choose_sandbox(
        settings.sandbox,
        memory_mib=settings.sandbox_memory_mb,
        processes=settings.sandbox_processes_max,
        file_mib=settings.sandbox_file_mb,
        tmp_mib=settings.sandbox_tmp_mb,
        cpu_s=settings.sandbox_cpu_s,
        network=settings.sandbox_network,
        paths=settings.sandbox_paths,
        hidden=[data.path],
    )


async def _toolset(
    settings: Settings, shell: ShellTools, sandbox: Sandbox, stack: AsyncExitStack
) -> AbstractToolset[ToolContext]:
    """The server's own tools, and those of its MCP servers, which are connected to."""
    toolsets: list[AbstractToolset[ToolContext]] = [FileTools(), ProgressTools()] if settings.tools_enabled else []
    if settings.tools_enabled and shell.available:
        toolsets.append(shell)
    if settings.tools_enabled and settings.fetch_enabled:
        toolsets.append(WebTools(private=settings.fetch_private))
    own = CombinedToolset(toolsets)
    if not settings.mcp:
        return own
    tools = McpTools(own, _mcp_servers(settings), sandbox)
    stack.push_async_callback(tools.aclose)
    await tools.start()
    return tools


def _mcp_servers(settings: Settings) -> list[McpServer]:
    servers = {name: server.model_dump(mode="json", exclude_none=True) for name, server in settings.mcp.items()}
    return [msgspec.convert({"name": name, **server}, McpServer) for name, server in servers.items()]


async def mcp_states(settings: Settings) -> dict[str, str]:
    """The state of each MCP server of the settings, by name: each is tried once."""
    sandbox = make_sandbox(settings, DataDir(settings.data_dir))
    tools = McpTools(CombinedToolset([]), _mcp_servers(settings), sandbox)
    try:
        await tools.start(MCP_CONNECT_S)
        return tools.states()
    finally:
        await tools.aclose()
        await sandbox.aclose()


def _no_network(settings: Settings, status: Status) -> str:
    """Why no session can have a network, for callers; empty: it can."""
    if settings.sandbox_network == "off":
        return "this server's operator allows it to no session (the setting sandbox_network is off)."
    if not status.network.by:
        return "this server can't give one as it is; `turnwire doctor` tells its operator why."
    return ""


def _options(settings: Settings) -> Options:
    return Options(
        owner=new_request_id(),
        turn_timeout_s=settings.turn_timeout_s,
        tools_change=bool(settings.mcp),
        tool_result_timeout_s=settings.tool_result_timeout_s,
        turns_max=settings.turns_max,
        turns_per_tenant_max=settings.turns_per_tenant_max,
        recovery=settings.recovery,
        recoveries_max=settings.recoveries_max,
        instructions=settings.instructions,
        steps=StepLimits(
            first_token_timeout_s=settings.first_token_timeout_s,
            next_token_timeout_s=settings.next_token_timeout_s,
            step_retries=settings.step_retries,
        ),
    )


def _services(
    settings: Settings,
    options: Options,
    store: Store,
    models: ResolvedModels,
    workspaces: DirectoryWorkspaces,
    skills: DirectorySkills,
    toolset: AbstractToolset[ToolContext],
    clock: Clock,
    no_network: str,
) -> Services:
    chooser = _Models(models, settings.thinking, settings.context_tokens_max)
    # An agent without tools can't read them, so it isn't told of them.
    turns = Turns(
        store, chooser, toolset, workspaces, clock, options, skills=skills if settings.tools_enabled else None
    )
    own_key = None if settings.api_key is None else settings.api_key.get_secret_value()
    catalogue = [msgspec.convert(entry, ModelEntry, from_attributes=True) for entry in models.catalogue()]
    return Services(
        store,
        Sessions(store, turns, chooser, clock, no_network=no_network),
        turns,
        workspaces,
        Keys(store, own_key),
        Tickets(store, clock, turn_timeout_s=settings.turn_timeout_s),
        catalogue,
        skills,
        ServerOptions(
            event_ids=settings.event_ids,
            heartbeat_interval_s=settings.heartbeat_interval_s,
            slow_reader_timeout_s=settings.slow_reader_timeout_s,
            streams_max=settings.streams_max,
            ttl_max_s=settings.ttl_max_s,
            cors_origins=tuple(settings.cors_origins),
            root_path=settings.root_path,
            upload_bytes_max=settings.upload_bytes_max,
            console=settings.console,
        ),
    )


def _sweeper(
    settings: Settings, store: Store, services: Services, end_session: Callable[[str], Awaitable[None]], clock: Clock
) -> Sweeper:
    return Sweeper(
        store,
        services.workspaces,
        clock,
        end_session=end_session,
        idle_ttl_s=settings.idle_ttl_s,
        replay_retention_s=settings.replay_retention_s,
    )


def _http_options(settings: Settings) -> HttpOptions:
    return HttpOptions(
        root_path=settings.root_path,
        trusted_proxies=tuple(settings.trusted_proxies),
        shutdown_grace_s=settings.shutdown_grace_s,
        tcp_user_timeout_s=settings.tcp_user_timeout_s,
        header_timeout_s=settings.header_timeout_s,
    )


class _Chosen(NamedTuple):
    """`turnwire.seams.model.ChosenModel`."""

    spec: str
    model: Model
    tools: bool
    images: bool
    files: bool
    resolved: ResolvedModels
    default_thinking: ThinkingLevel | None
    context_tokens: int | None

    def settings(self, thinking: ThinkingLevel | None) -> ModelSettings:
        return self.resolved.thinking_settings(self.spec, thinking or self.default_thinking)


class _Models:
    """`turnwire.seams.model.Models`: what callers may name, and what they are told when it can't be had."""

    def __init__(self, models: ResolvedModels, thinking: ThinkingLevel | None, context_tokens_max: int | None) -> None:
        self._models = models
        self._context_tokens_max = context_tokens_max
        self._thinking: ThinkingLevel | None = thinking

    async def choose(self, spec: str | None) -> ChosenModel:
        models = self._models
        if spec is not None and not models.is_allowed(spec):
            raise InvalidRequest(
                f"model: {spec!r} is none that this server can be asked for; GET /v1/models lists those that are."
            )
        try:
            await models.import_sdk(spec)
            model = models.resolve(spec)
            can = models.capabilities(spec)
        except ModelError as exc:
            raise InvalidRequest(f"model: {exc}") from exc
        name = spec or str(models.default)
        context = models.context_tokens(name, self._context_tokens_max)
        return _Chosen(name, model, can.tools, can.images, can.files, models, self._thinking, context)
