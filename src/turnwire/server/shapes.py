"""The bodies of requests and answers: what is accepted, and what /docs tells of them.

Wrong types are refused (`strict`), unknown fields are ignored. The answers are written by `records.py`; their models
here are for the document, and the tests hold every answer against it.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Text = Annotated[str, Field(max_length=4 * 1024 * 1024)]
ThinkingLevel = Literal["off", "low", "medium", "high"]


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class FileAccess(Body):
    """Workspace-relative prefixes, by whole path components; "" is all. A list that is missing: nothing."""

    read: list[str] = []
    write: list[str] = []


class NewSession(Body):
    """All optional."""

    persistent: bool = Field(False, description="Kept until `ttl` after its creation, instead of 5 minutes after use.")
    ttl: int | None = Field(None, ge=1, description="Seconds; 14400 by default.")
    metadata: dict[str, Any] = Field({}, description="Yours; merged by PATCH.")
    file_access: FileAccess | None = None
    model: str | None = Field(None, min_length=1, description="One of GET /v1/models, or a model of such a provider.")
    instructions: Text | None = Field(None, description="Added to the server's own.")
    workspace: Literal["shared", "private"] = "shared"
    tools: list[dict[str, Any]] = Field(
        [], description="Functions that you run: OpenAI's definitions, flat or nested; at most 128."
    )
    approvals: list[str] = Field([], description="Tools of the server whose calls wait for your yes.")
    network: bool | None = Field(
        None, description="Whether the agent's commands may reach the network; null: as the server's settings say."
    )


class SessionPatch(Body):
    """What is given is changed; `metadata` is merged, null removes a key."""

    metadata: dict[str, Any] | None = None
    model: str | None = Field(None, min_length=1)
    ttl: int | None = Field(None, ge=1)
    instructions: Text | None = None


class TextPart(Body):
    type: Literal["text"]
    text: str


class DataPart(Body):
    """An image or a file: from the workspace by `path`, or in base64 by `data` with its `media_type`."""

    type: Literal["image", "file"]
    path: str | None = Field(None, min_length=1)
    data: str | None = None
    media_type: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9!#$&^_.+-]{1,126}$"
    )


MessagePart = Annotated[TextPart | DataPart, Field(discriminator="type")]


class MessageSettings(Body):
    """The turn's settings."""

    temperature: float | None = Field(None, ge=0, le=2)
    max_output_tokens: int | None = Field(None, ge=1, le=10_000_000)
    thinking: ThinkingLevel | None = None


class NewMessage(Body):
    """A message: text, or a list of parts."""

    message: str | list[MessagePart]
    model: str | None = Field(None, min_length=1)
    event_ids: bool | None = Field(None, description="Number the events of this stream.")
    settings: MessageSettings = Field(default_factory=lambda: MessageSettings.model_validate({}))

    @field_validator("message", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("must not be empty or white space")
        if isinstance(value, list) and not value:
            raise ValueError("must have at least one part")
        if not isinstance(value, str | list):
            raise ValueError("must be a string or a list of parts")
        return value  # pyright: ignore[reportUnknownVariableType]


class CallResult(Body):
    """The answer to one call. To a function of yours: `content`, `is_error`. To an approval: `approve`, and `message`
    with a no or `input` with a yes."""

    id: str
    content: Any = None
    is_error: bool = False
    approve: bool | None = None
    message: Text | None = None
    input: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "CallResult":
        given = self.model_fields_set
        if ("content" in given) == (self.approve is not None):
            raise ValueError("needs content, or approve for an approval")
        return self


class CallResults(Body):
    """Several answers, or one."""

    results: list[CallResult] = Field(min_length=1, max_length=1000)

    @model_validator(mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if isinstance(value, dict) and "results" not in value and "id" in value:
            return {"results": [value]}  # pyright: ignore[reportUnknownVariableType]
        return value  # pyright: ignore[reportUnknownVariableType]


class Answer(BaseModel):
    """An answer's body: exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    """Every answer that is not 2xx."""

    error: str = Field(description="The error's short name.")
    message: str = Field(description="What was wrong, and what to do.")


class Health(Answer):
    status: Literal["ok", "draining"]
    version: str


class SessionRecord(Answer):
    id: str = Field(pattern="^sess_[0-9a-f]{12}$")
    created_at: float = Field(description="Epoch seconds, as all times.")
    last_activity: float
    busy: bool
    persistent: bool
    ttl: int
    status: Literal["ready"]
    metadata: dict[str, Any]
    file_access: FileAccess | None
    model: str | None
    response_id: str | None = Field(description="The running or latest turn.")
    pending_calls: int


class Deleted(Answer):
    deleted: int


class ModelRecord(Answer):
    id: str
    provider: str
    default: bool
    tools: bool
    thinking: bool
    images: bool


class UsageRecord(Answer):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    requests: int
    tool_calls: int


class ResponseRecord(Answer):
    id: str = Field(pattern="^msg_[0-9a-f]{24}$")
    status: Literal["in_progress", "completed", "error", "cancelled"]
    usage: UsageRecord
    error: str | None
    created_at: float
    ended_at: float | None
    last_sequence_number: int
    pending_calls: int


class TextBlock(Answer):
    type: Literal["text"]
    text: str


class ThinkingBlock(Answer):
    type: Literal["thinking"]
    text: str


class ToolUseBlock(Answer):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Answer):
    type: Literal["tool_result"]
    id: str
    content: str
    is_error: bool


class DataBlock(Answer):
    type: Literal["image", "file"]
    path: str | None
    media_type: str


Block = Annotated[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock | DataBlock, Field(discriminator="type")]


class MessageRecord(Answer):
    """A message of the conversation. An assistant's id and status are its response's."""

    id: str
    role: Literal["user", "assistant"]
    status: Literal["in_progress", "completed", "error", "cancelled"]
    created_at: float
    content: list[Block]
    usage: UsageRecord | None


class CancelRecord(Answer):
    response_id: str
    status: Literal["cancelling", "already_complete"]


class ReplayedRecord(Answer):
    """The turn of an idempotency key whose events are gone."""

    response_id: str
    status: Literal["replayed"]
    note: str


class TicketRecord(Answer):
    url: str
    expires_at: float


class Accepted(Answer):
    accepted: list[str]


class FileRecord(Answer):
    """A file or folder. `size` is in bytes, 0 of a folder; `modified` in epoch seconds."""

    name: str
    type: Literal["file", "directory"]
    size: int
    modified: float


class SkillRecord(Answer):
    """An installed skill. `size` is the bytes of its files, `modified` when it was installed, in epoch seconds."""

    name: str
    description: str
    size: int
    modified: float


class WrittenFile(Answer):
    path: str
    size: int
    modified: float
