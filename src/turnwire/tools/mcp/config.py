"""An MCP server as the operator names it."""

from collections.abc import Sequence

import msgspec


class McpServer(msgspec.Struct, frozen=True, kw_only=True):
    """A program (`command`), or an address (`url`).

    A program runs in the sandbox, a process for each session, which sees that session's workspace, or, without
    `sandbox`, once, as the server's own user. `paths`: what of the machine the sandbox shows it, beside what all see.
    """

    name: str
    command: str = ""
    args: Sequence[str] = ()
    env: dict[str, str] = {}
    url: str = ""
    headers: dict[str, str] = {}
    sandbox: bool = True
    paths: Sequence[str] = ()
