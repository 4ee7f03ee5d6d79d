"""What an agent is told before the conversation: the server's prompt, the operator's and the session's instructions,
and what the workspace says of itself in AGENTS.md. The same through a whole turn, so that prompt caches can hold it."""

from collections.abc import Sequence
from pathlib import Path

from turnwire.engine.limits import AGENTS_FILE_BYTES_MAX
from turnwire.seams.workspace import Workspace, WorkspaceError

PROMPT = Path(__file__).with_name("prompt.md").read_text("utf-8").strip()
AGENTS_FILE = "AGENTS.md"


def instructions_for(given: Sequence[str | None], workspace: Workspace | None) -> str | None:
    """The instructions, in the order of who says them; None when there is nothing to say. May wait for the disk.

    `given`: the server's, what there is to say of skills, the session's.
    `workspace`: of an agent with tools; without them it has no use for the prompt, nor for what is in the workspace.
    """
    parts = [*given] if workspace is None else [PROMPT, *given, _agents_file(workspace)]
    return "\n\n".join(part.strip() for part in parts if part and part.strip()) or None


def _agents_file(workspace: Workspace) -> str | None:
    """What AGENTS.md says; None when there is none that this session may read."""
    try:
        with workspace.open(AGENTS_FILE) as file:
            data = file.stream.read(AGENTS_FILE_BYTES_MAX + 1)
    except (WorkspaceError, OSError):
        return None
    text = data[:AGENTS_FILE_BYTES_MAX].decode("utf-8", "replace").replace("\0", "")
    if not text.strip():
        return None
    rest = f"\n(The rest is left out: read {AGENTS_FILE} for it.)" if len(data) > AGENTS_FILE_BYTES_MAX else ""
    return (
        f"<{AGENTS_FILE}>\nWhat the workspace's own {AGENTS_FILE} says of it:\n{text.strip()}{rest}\n</{AGENTS_FILE}>"
    )
