"""Patterns for JSON values, as cases write them; `fill()` puts variables into them.

A pattern is a value that must be the same, in which an object has exactly the keys of the pattern. Strings say more:

    "${name}"          the value of a variable; within a longer text, its text
    "*"                anything
    "<string>"         of this type: string, int, number, bool, object, array
    "<x|null>"         either
    "~REGEX"           a string that the expression matches whole
    "@name"            of the shape with this name (`SHAPES`)
    "=TEXT"            TEXT itself, when it would read as one of the above

An array is matched item by item; `["each", PATTERN]` is an array of any length whose items all match, and
`["some", PATTERN]` one with an item that does. An object with the key "..." may have more keys than the pattern.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

_VARIABLE = re.compile(r"\$\{([a-z0-9_.]+)\}")
_USAGE = ("input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens", "requests")

SHAPES: dict[str, Any] = {
    "session": {
        "id": "~sess_[0-9a-f]{12}",
        "created_at": "<number>",
        "last_activity": "<number>",
        "busy": "<bool>",
        "persistent": "<bool>",
        "ttl": "<int>",
        "status": "ready",
        "metadata": "<object>",
        "file_access": "<object|null>",
        "model": "<string|null>",
        "response_id": "<string|null>",
        "pending_calls": "<int>",
    },
    "usage": {**dict.fromkeys(_USAGE, "<int>"), "tool_calls": "<int>"},
    "response": {
        "id": "~msg_[0-9a-f]{24}",
        "status": "~in_progress|completed|error|cancelled",
        "usage": "@usage",
        "error": "<string|null>",
        "created_at": "<number>",
        "ended_at": "<number|null>",
        "last_sequence_number": "<int>",
        "pending_calls": "<int>",
    },
    "user_message": {
        "id": "~msg_[0-9a-f]{24}",
        "role": "user",
        "status": "completed",
        "created_at": "<number>",
        "content": "<array>",
        "usage": None,
    },
    "assistant_message": {
        "id": "~msg_[0-9a-f]{24}",
        "role": "assistant",
        "status": "~in_progress|completed|error|cancelled",
        "created_at": "<number>",
        "content": "<array>",
        "usage": "@usage",
    },
    "model": {
        "id": "<string>",
        "provider": "<string>",
        "default": "<bool>",
        "tools": "<bool>",
        "thinking": "<bool>",
        "images": "<bool>",
    },
    "file": {"name": "<string>", "type": "~file|directory", "size": "<int>", "modified": "<number>"},
    "error": {"error": "<string>", "message": "<string>"},
}

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "int": int,
    "number": (int, float),
    "bool": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


class Mismatch(Exception):
    """A value is not what a pattern asks for."""


def fill(pattern: Any, variables: Mapping[str, Any]) -> Any:
    """The pattern, or text, with its variables put in. `KeyError` when one has no value."""
    match pattern:
        case str():
            whole = _VARIABLE.fullmatch(pattern)
            if whole:
                return variables[whole[1]]
            return _VARIABLE.sub(lambda found: str(variables[found[1]]), pattern)
        case dict():
            items = cast("dict[str, Any]", pattern).items()
            return {fill(key, variables): fill(value, variables) for key, value in items}
        case list():
            return [fill(item, variables) for item in cast("list[Any]", pattern)]
        case _:
            return pattern


def check(pattern: Any, value: Any, where: str = "the answer") -> None:
    """`Mismatch`, with the place and what is there, unless the value matches."""
    match pattern:
        case str():
            _check_text(pattern, value, where)
        case dict():
            _check_object(cast("dict[str, Any]", pattern), value, where)
        case list():
            _check_array(cast("list[Any]", pattern), value, where)
        case _:
            if type(pattern) is not type(value) or pattern != value:
                raise Mismatch(f"{where} is {_shown(value)}, not {_shown(pattern)}")


def _check_text(pattern: str, value: Any, where: str) -> None:
    if pattern == "*":
        return
    if pattern.startswith("@"):
        check(SHAPES[pattern[1:]], value, where)
    elif pattern.startswith("<") and pattern.endswith(">"):
        if not any(_is(value, name) for name in pattern[1:-1].split("|")):
            raise Mismatch(f"{where} is {_shown(value)}, not of the type {pattern[1:-1]}")
    elif pattern.startswith("~"):
        if not isinstance(value, str) or not re.fullmatch(pattern[1:], value, re.DOTALL):
            raise Mismatch(f"{where} is {_shown(value)}, which {pattern[1:]} does not match")
    elif value != pattern.removeprefix("="):
        raise Mismatch(f"{where} is {_shown(value)}, not {_shown(pattern.removeprefix('='))}")


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "bool" or not isinstance(value, bool))


def _check_object(pattern: dict[str, Any], value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise Mismatch(f"{where} is {_shown(value)}, no object")
    found = cast("dict[str, Any]", value)
    wanted = pattern.keys() - {"..."}
    if missing := sorted(wanted - found.keys()):
        raise Mismatch(f"{where} lacks {', '.join(missing)}")
    if "..." not in pattern and (added := sorted(found.keys() - wanted)):
        raise Mismatch(f"{where} has {', '.join(added)}, which is not of it")
    for key in wanted:
        check(pattern[key], found[key], f"{where}.{key}")


def _check_array(pattern: list[Any], value: Any, where: str) -> None:
    if not isinstance(value, list):
        raise Mismatch(f"{where} is {_shown(value)}, no array")
    items = cast("list[Any]", value)
    if len(pattern) == 2 and pattern[0] == "each":
        for index, item in enumerate(items):
            check(pattern[1], item, f"{where}[{index}]")
    elif len(pattern) == 2 and pattern[0] == "some":
        if not any(_matches(pattern[1], item) for item in items):
            raise Mismatch(f"{where} has no item like {_shown(pattern[1])}: {_shown(items)}")
    else:
        if len(pattern) != len(items):
            raise Mismatch(f"{where} has {len(items)} items, not {len(pattern)}: {_shown(items)}")
        for index, (part, item) in enumerate(zip(pattern, items, strict=True)):
            check(part, item, f"{where}[{index}]")


def _matches(pattern: Any, value: Any) -> bool:
    try:
        check(pattern, value)
    except Mismatch:
        return False
    return True


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:199] + "…"
