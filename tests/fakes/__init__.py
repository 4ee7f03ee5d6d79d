"""Fake providers that speak the vendors' true wire formats over real sockets.

`FakeOpenAIChat`, `FakeAnthropic`, `FakeOpenAIResponses`; a script in the steps of `base` is the same for
all three.
"""

from fakes.anthropic import FakeAnthropic
from fakes.base import (
    Answer,
    Comment,
    Cut,
    ErrorEvent,
    Fault,
    Finish,
    Ping,
    Raw,
    Request,
    Stall,
    Text,
    Thinking,
    ToolCall,
    ToolCalls,
    Usage,
)
from fakes.openai_chat import FakeOpenAIChat
from fakes.openai_responses import FakeOpenAIResponses

__all__ = [
    "Answer",
    "Comment",
    "Cut",
    "ErrorEvent",
    "FakeAnthropic",
    "FakeOpenAIChat",
    "FakeOpenAIResponses",
    "Fault",
    "Finish",
    "Ping",
    "Raw",
    "Request",
    "Stall",
    "Text",
    "Thinking",
    "ToolCall",
    "ToolCalls",
    "Usage",
]
