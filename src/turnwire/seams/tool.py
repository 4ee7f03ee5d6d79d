"""What the engine and a tool know of each other, beside pydantic-ai's own `AbstractToolset`.

The engine validates the input by the tool's `args_validator`, then calls the toolset with a
`RunContext[ToolContext]`. A result is text, or a list of text and pydantic-ai's `BinaryContent`: images among it are
given to models that see, and told to callers and to other models by a line of text. A tool that can't do what was
asked raises `ToolFailed`; its message is the result, `is_error: true`, and the turn goes on. A toolset says in
`ToolDefinition.metadata` what the engine may do with a call, under the keys below.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from pydantic_ai.exceptions import ToolFailed

from turnwire.seams.workspace import Workspace

# The library's own class, so that one `except` also covers toolsets that nobody here wrote, and so that our
# tools work in any pydantic-ai agent. `ToolFailed(message)`; the message is written for the model.
__all__ = ["ALSO_NAMED", "REPEATABLE", "TIME_LIMIT_S", "ToolContext", "ToolFailed"]

REPEATABLE: Final = "repeatable"
"""Metadata key, bool: whether a call that was cut off by a crash may simply run again. Missing: no."""

TIME_LIMIT_S: Final = "time_limit_s"
"""Metadata key, float, seconds: after this the engine gives the call up. Missing: the engine's own limit.

A tool keeps shorter limits itself where it can, since its own sentence tells the model more.
"""


async def nobody_watches(status: str) -> None:
    """Where a status goes that nobody reads."""


ALSO_NAMED: Final = "also_named"
"""Metadata key, list of str: other names that this tool may have had, or may have on another day. A session whose
`approvals` name one of them means this tool, too."""


class ToolContext(msgspec.Struct, frozen=True):
    """The `deps` of every tool call: whose it is, and the session's view of its files."""

    tenant: str
    session_id: str
    workspace: Workspace
    set_status: Callable[[str], Awaitable[None]] = nobody_watches
    """Sets the session's `metadata.status`; "" removes it."""
    network: bool | None = None
    """What the session says of its commands' network; None: nothing."""
