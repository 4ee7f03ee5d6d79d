"""Where the sessions' workspaces are."""

from typing import Literal, Protocol

from turnwire.seams.workspace import FileAccess, Workspace


class Workspaces(Protocol):
    """The workspaces of all tenants. Verbs are synchronous and may wait for the disk."""

    def open(self, tenant: str, session_id: str, kind: Literal["shared", "private"], access: FileAccess) -> Workspace:
        """What a session sees: its tenant's workspace, or one of its own; made when it is not there."""
        ...

    def remove_private(self, tenant: str, session_id: str) -> None:
        """Remove a session's own workspace and all that is in it."""
        ...
