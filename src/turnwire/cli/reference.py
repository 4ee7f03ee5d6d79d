"""`turnwire settings`: every setting, its value and its origin; and the reference in docs/settings.md."""

import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from turnwire.settings import PREFIX, Settings, read_settings

HEAD = """\
# Settings

Every setting is `TURNWIRE_<NAME>` in the environment, or `<name>` in a TOML file (`--config FILE`, or
`TURNWIRE_CONFIG`). Flags win over the environment, the environment over the file. Lists are written with commas in the
environment. An empty variable counts as unset. `turnwire settings` prints the values in force and their origins.

A name that is unknown in the file is an error, and so is a variable that closely resembles a setting's; any other
unknown `TURNWIRE_` variable is a warning. A bad value is one sentence and exit code 2.

This page is made by `turnwire settings --markdown`.

| variable | default | allowed | what it is |
|---|---|---|---|
"""


def settings_markdown() -> str:
    """The reference, as Markdown."""
    lines = [HEAD]
    for name, field in Settings.model_fields.items():
        cells = (f"`{PREFIX}{name.upper()}`", _default(name, field), _allowed(field), str(field.description))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(lines)


def print_settings(config: Path | None) -> None:
    """One line a setting: name, value, origin. Secrets stay hidden."""
    settings, origins = read_settings(config)
    for name in Settings.model_fields:
        value = getattr(settings, name)
        shown = "(hidden)" if isinstance(value, SecretStr) else _shown(value)
        print(f"{name} = {shown}  # {origins.get(name, 'default')}")


def _shown(value: object) -> str:
    match value:
        case None:
            return "(unset)"
        case bool():
            return str(value).lower()
        case list():
            return ", ".join(map(str, typing.cast("list[object]", value))) or "(none)"
        case dict():
            # Names only: what stands below them may hold secrets.
            return ", ".join(typing.cast("dict[str, object]", value)) or "(none)"
        case float():
            return f"{value:g}"
        case _:
            return str(value) if str(value) else "(empty)"


def _default(name: str, field: FieldInfo) -> str:
    if name == "data_dir":
        return "`~/.local/share/turnwire`"
    shown = _shown(float(field.default) if _is_float(field) and field.default is not None else field.default)
    return shown.strip("()") if shown.startswith("(") else f"`{shown}`"


def _allowed(field: FieldInfo) -> str:
    """What a value may be, in words: from the field's type and bounds."""
    kind = _kind(field.annotation)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    names: dict[Any, str] = {bool: "`true`, `false`", int: "integer", float: "seconds", str: "text", Path: "path"}
    word = (
        ("tables" if get_origin(kind) is dict else None) or names.get(kind) or ("text" if kind is SecretStr else "list")
    )
    bounds = {
        key: getattr(item, key) for item in field.metadata for key in ("gt", "ge", "lt", "le") if hasattr(item, key)
    }
    signs = {"gt": "over ", "ge": "from ", "lt": "under ", "le": "to "}
    limits = " ".join(f"{signs[key]}{value:,}" for key, value in bounds.items() if value is not None)
    return f"{word}, {limits}" if limits else word


def _is_float(field: FieldInfo) -> bool:
    return _kind(field.annotation) is float


def _kind(annotation: Any) -> Any:
    """The type without `None` and without annotations."""
    while True:
        origin = get_origin(annotation)
        if origin is typing.Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
        else:
            return annotation
