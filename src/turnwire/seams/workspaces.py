"""Where the sessions' workspaces are."""

from typing import Protocol

from turnwire.seams.store import Session
from turnwire.seams.workspace import FileAccess, Workspace


class Workspaces(Protocol):
    """The workspaces of all tenants. Verbs are synchronous and may wait for the disk."""

    def shared(self, tenant: str, access: FileAccess) -> Workspace:
        """The workspace of a tenant, which outlives its sessions; made when it is not there."""
        ...

    def private(self, tenant: str, session_id: str, access: FileAccess) -> Workspace:
        """The workspace of one session; made when it is not there."""
        ...

    def remove_private(self, tenant: str, session_id: str) -> None:
        """Remove a session's own workspace, if there is one, and all that is in it."""
        ...


def workspace_of(session: Session, workspaces: Workspaces) -> Workspace:
    """What a session sees of its workspace."""
    access = FileAccess.parse(session.file_access)
    if session.workspace == "private":
        return workspaces.private(session.tenant, session.id, access)
    return workspaces.shared(session.tenant, access)
