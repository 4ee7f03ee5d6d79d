"""What the server tells of its things, as values. Fields that a server leaves out have the defaults that stand here."""

from typing import Any, Literal

import msgspec

from turnwire.protocol.codec import decode_json
from turnwire.protocol.errors import RemoteProtocolError
from turnwire.protocol.events import Usage
from turnwire.protocol.transcript import Block, TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock

Status = Literal["in_progress", "completed", "error", "cancelled"]


class SessionRecord(msgspec.Struct, frozen=True):
    """A session. Times are seconds since the epoch."""

    id: str
    created_at: float = 0.0
    last_activity: float = 0.0
    busy: bool = False
    persistent: bool = False
    ttl: int | None = None
    status: str = "ready"
    metadata: dict[str, Any] = {}
    file_access: dict[str, Any] | None = None
    model: str | None = None
    response_id: str | msgspec.UnsetType | None = msgspec.UNSET
    """The running or latest turn; None: there was none; UNSET: this server doesn't tell."""
    pending_calls: int = 0


class ResponseRecord(msgspec.Struct, frozen=True):
    """A turn."""

    id: str
    status: Status
    usage: Usage = Usage()
    error: str | None = None
    created_at: float = 0.0
    ended_at: float | None = None
    last_sequence_number: int = -1
    pending_calls: int = 0


class ImageBlock(msgspec.Struct, frozen=True, tag="image"):
    """Of a user's message. `path` is None for data that came with it."""

    path: str | None
    media_type: str


class FileBlock(msgspec.Struct, frozen=True, tag="file"):
    path: str | None
    media_type: str


AnyBlock = TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock | ImageBlock | FileBlock


class MessageRecord(msgspec.Struct, frozen=True):
    """A message of the conversation. An assistant's id and status are its turn's."""

    id: str
    role: Literal["user", "assistant"]
    status: Status
    created_at: float
    content: list[AnyBlock]
    usage: Usage | None

    @property
    def text(self) -> str:
        return text_of(self.content)


class _LooseMessage(msgspec.Struct):
    role: Literal["user", "assistant"]
    content: str | list[Any] = []
    id: str = ""
    status: Status = "completed"
    created_at: float = 0.0
    usage: Usage | None = None


class ModelRecord(msgspec.Struct, frozen=True):
    """A model that the server can be asked for."""

    id: str
    provider: str = ""
    default: bool = False
    tools: bool = False
    thinking: bool = False
    images: bool = False


class SkillRecord(msgspec.Struct, frozen=True):
    name: str
    description: str = ""
    size: int = 0
    modified: float = 0.0


class FileRecord(msgspec.Struct, frozen=True):
    """A file or folder of a list. `size` in bytes, 0 of a folder."""

    name: str
    type: Literal["file", "directory"]
    size: int = 0
    modified: float = 0.0


class WrittenFile(msgspec.Struct, frozen=True):
    """A file that was uploaded."""

    path: str
    size: int = 0
    modified: float = 0.0


class Health(msgspec.Struct, frozen=True):
    status: str = "ok"
    version: str = ""


class Result(msgspec.Struct, frozen=True):
    """A turn, folded: what was superseded is left out."""

    session_id: str
    response_id: str | None
    status: Status
    content: list[Block]
    usage: Usage

    @property
    def text(self) -> str:
        """All that was said, its blocks parted by blank lines."""
        return text_of(self.content)


class Waiting(msgspec.Struct, frozen=True):
    """Why the client sleeps: the session is busy, the server refused for now (429, 503), or it can't be reached."""

    why: Literal["busy", "refused", "disconnected"]
    seconds: float
    tries: int
    """Waits before this one, since it last got on."""
    error: Exception | None


def text_of(content: list[Any]) -> str:
    return "\n\n".join(block.text for block in content if isinstance(block, TextBlock))


def read_record(body: bytes, shape: Any) -> Any:
    """The JSON of an answer as a `shape`. RemoteProtocolError when it is none."""
    try:
        return msgspec.convert(decode_json(body), shape)
    except ValueError as exc:
        raise RemoteProtocolError(f"The server's answer is not of this API: {exc}.") from exc


def read_messages(body: bytes) -> list[MessageRecord]:
    """A page of the conversation; blocks of kinds that are not known are passed over."""
    return [
        MessageRecord(loose.id, loose.role, loose.status, loose.created_at, _blocks(loose.content), loose.usage)
        for loose in read_record(body, list[_LooseMessage])
    ]


def _blocks(content: str | list[Any]) -> list[AnyBlock]:
    if isinstance(content, str):
        return [TextBlock(content)]
    blocks: list[AnyBlock] = []
    for value in content:
        try:
            blocks.append(msgspec.convert(value, AnyBlock))
        except msgspec.ValidationError:
            continue
    return blocks
