"""Functions of the caller as tools of the agent: their definition from signature and docstring, and their call.

    def rate(currency: Literal["EUR", "CHF"], on: date | None = None) -> float:
        "Dollars per unit.

        Args:
            on: The day; today without it."

Annotations may be whatever msgspec turns into a JSON schema: plain types, Literal, lists, dicts, enums, dates,
dataclasses, TypedDicts, `Annotated[…, "a description"]`. The arguments that the model gives are converted to them.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import msgspec

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECTION = re.compile(
    r"^\s*(args|arguments|parameters|returns?|raises|yields|examples?|notes?)\s*:?\s*$", re.IGNORECASE
)
_ARGUMENT = re.compile(r"^\s+(\w+)\s*(?:\([^)]*\))?\s*:\s*(.+)$")
_SPHINX = re.compile(r"^\s*:param\s+(?:[^:]*\s)?(\w+):\s*(.+)$")


class ClientTool(msgspec.Struct, frozen=True):
    """A function that the agent may call, as it is defined to the server. Without `function`, you answer by hand."""

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any] | None = None
    types: dict[str, Any] = {}
    """Of its parameters, by name: what the arguments are converted to."""

    def definition(self) -> dict[str, Any]:
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function. Its own errors come through; arguments that don't fit are a TypeError."""
        assert self.function is not None
        return self.function(**{name: self._converted(name, value) for name, value in arguments.items()})

    def _converted(self, name: str, value: Any) -> Any:
        if name not in self.types:
            raise TypeError(f"{self.name} has no parameter {name!r}")
        try:
            return msgspec.convert(value, self.types[name])
        except msgspec.ValidationError as exc:
            raise TypeError(f"{name}: {exc}") from exc


ToolLike = Callable[..., Any] | ClientTool | Mapping[str, Any]


def tool(function: Callable[..., Any], *, name: str | None = None, description: str | None = None) -> ClientTool:
    """The tool that a function is. TypeError or ValueError, with what to change, when it can be none."""
    name = name or str(getattr(function, "__name__", ""))
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name or function!r} is no name of a tool (letters, digits, _ and -, up to 64): tool(f, name=…)."
        )
    summary, described = _read_docstring(inspect.getdoc(function) or "")
    hints = _hints(function, name)
    types: dict[str, Any] = {}
    required: list[str] = []
    defaults: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"{name}: the model gives arguments by name, so {parameter} can't be a parameter of a tool."
            )
        types[parameter.name] = hints.get(parameter.name, Any)
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            defaults[parameter.name] = parameter.default
    properties, shared = _schemas(name, types)
    for key, schema in properties.items():
        text = _annotated_text(types[key]) or described.get(key)
        if text:
            schema["description"] = text
        if key in defaults and isinstance(defaults[key], str | int | float | bool):
            schema["default"] = defaults[key]
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    if shared:
        parameters["$defs"] = shared
    return ClientTool(name, description or summary or name, parameters, function, types)


def tools_of(tools: Sequence[ToolLike], *, functions_may_be_async: bool) -> list[ClientTool]:
    """Tools of whatever form: functions, ClientTools, and definitions as the server takes them."""
    found = [_tool_of(item) for item in tools]
    for item in found:
        if not functions_may_be_async and item.function is not None and is_async(item.function):
            raise TypeError(f"{item.name} is an async function: it needs AsyncClient.")
    names = [item.name for item in found]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Two tools have the name {doubled[0]!r}.")
    return found


def is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _tool_of(item: ToolLike) -> ClientTool:
    if isinstance(item, ClientTool):
        return item
    if isinstance(item, Mapping):
        given = cast("Mapping[str, Any]", item)
        inner = cast("Mapping[str, Any]", given.get("function", given))
        return ClientTool(str(inner.get("name", "")), inner.get("description", ""), inner.get("parameters", {}))
    if not callable(item):
        raise TypeError(f"{item!r} is no function, ClientTool or definition of a tool.")
    return tool(item)


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError) as exc:
        raise TypeError(f"{name}: its annotations can't be read: {exc}.") from exc


def _schemas(name: str, types: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    try:
        schemas, shared = msgspec.json.schema_components(list(types.values()), ref_template="#/$defs/{name}")
    except (TypeError, NameError, RecursionError) as exc:
        raise TypeError(f"{name}: a parameter's type has no JSON schema: {exc}.") from exc
    return dict(zip(types, map(dict, schemas), strict=True)), shared


def _annotated_text(type_: Any) -> str | None:
    if get_origin(type_) is not Annotated:
        return None
    return next((extra for extra in get_args(type_)[1:] if isinstance(extra, str)), None)


def _read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of its parameters (in the styles of Google and Sphinx)."""
    summary: list[str] = []
    described: dict[str, str] = {}
    section, current = "", ""
    for line in doc.splitlines():
        heading = _SECTION.match(line)
        sphinx = _SPHINX.match(line)
        if sphinx:
            current = sphinx[1]
            described[current] = sphinx[2].strip()
            section = "sphinx"
        elif heading:
            section, current = heading[1].lower(), ""
        elif section in ("args", "arguments", "parameters") and line.strip():
            argument = _ARGUMENT.match(line)
            if argument:
                current = argument[1]
                described[current] = argument[2].strip()
            elif current:
                described[current] += f" {line.strip()}"
        elif not section:
            summary.append(line)
    return "\n".join(summary).strip(), described


def content_of(value: Any) -> Any:
    """What a function returned as the content of its result: text as it is, else a JSON value.

    TypeError when it is none.
    """
    dump = getattr(value, "model_dump", None)  # pydantic's, without knowing it
    if callable(dump):
        value = dump(mode="json")
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.to_builtins(value)
