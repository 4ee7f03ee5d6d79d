"""What a server says of its tools, made fit for a model request: one tool that a provider refuses would end each turn.

Names are made legal for all providers, descriptions are shortened, and a tool whose schema can't be sent is left out,
with a line in the log.
"""

import re
from collections.abc import Sequence
from typing import Any, cast

import jsonschema
import msgspec
import structlog

from turnwire.tools import limits

log = structlog.get_logger(__name__)

_jsonschema = cast(Any, jsonschema)
_NO_FORMATS: Any = _jsonschema.FormatChecker(formats=())
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class Definition(msgspec.Struct, frozen=True):
    """A tool: its name for models, the server's own name for it, and what a model is told of it."""

    name: str
    its_name: str
    description: str
    schema: dict[str, Any]


def definitions_of(server: str, tools: Sequence[Any]) -> list[Definition]:
    """Of `mcp_types.Tool`s those that can be offered, in the server's order."""
    found: dict[str, Definition] = {}
    for tool in tools[: limits.MCP_TOOLS_MAX]:
        name = legal_name(tool.name)
        why = "its name holds no letter or digit" if name is None else _schema_fault(tool.input_schema)
        if name is not None and name in found:
            why = f"its name is that of {found[name].its_name[:100]!r}, as far as models may see it"
        if why is not None or name is None:
            log.warning("mcp_tool_left_out", server=server, tool=tool.name[:100], reason=why)
            continue
        if name != tool.name:
            log.info("mcp_tool_renamed", server=server, tool=tool.name[:100], name=name)
        found[name] = Definition(name, tool.name, _description(tool), _whole(tool.input_schema))
    if len(tools) > limits.MCP_TOOLS_MAX:
        log.warning("mcp_tools_left_out", server=server, count=len(tools) - limits.MCP_TOOLS_MAX)
    return list(found.values())


def legal_name(name: str) -> str | None:
    """A name that all providers take: 64 characters, of which the first is no digit; None when nothing is left."""
    legal = _ILLEGAL.sub("_", name)
    if not any(character.isalnum() for character in legal):
        return None
    if not (legal[0].isalpha() or legal[0] == "_"):
        legal = f"_{legal}"
    return legal[: limits.MCP_NAME_CHARS_MAX]


def _description(tool: Any) -> str:
    return _CONTROLS.sub(" ", tool.description or "")[: limits.MCP_DESCRIPTION_CHARS_MAX]


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {}, **schema}


def _schema_fault(schema: Any) -> str | None:
    if not isinstance(schema, dict):
        return "its schema is no object"
    fields = cast(dict[str, Any], schema)
    if fields.get("type", "object") != "object":
        return "its schema is not that of an object"
    # Before anything that walks through it by recursion.
    if (fault := _shape_fault(fields)) is not None:
        return fault
    if len(msgspec.json.encode(fields)) > limits.MCP_SCHEMA_BYTES_MAX:
        return f"its schema is larger than {limits.MCP_SCHEMA_BYTES_MAX} bytes"
    try:
        _jsonschema.Draft202012Validator.check_schema(fields, format_checker=_NO_FORMATS)
    except _jsonschema.SchemaError as exc:
        return f"its schema is no JSON Schema: {exc.message[:200]}"
    return None


def _shape_fault(schema: dict[str, Any]) -> str | None:
    level: list[Any] = [schema]
    for _ in range(limits.MCP_SCHEMA_DEPTH_MAX):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                items = cast(dict[str, Any], value)
                if any(isinstance(items.get(key), str) and not items[key].startswith("#") for key in _REFERENCES):
                    return "its schema refers to something outside itself"
                below += items.values()
            elif isinstance(value, list):
                below += cast(list[Any], value)
        if not below:
            return None
        level = below
    return f"its schema is nested deeper than {limits.MCP_SCHEMA_DEPTH_MAX} levels"
