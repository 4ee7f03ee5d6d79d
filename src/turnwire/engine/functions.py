"""Functions that a caller declares and runs itself: read from a session's `tools`, offered to its agent, and checked.

Their JSON Schemas come from outside and are held against what a model says, so patterns in them are matched by RE2:
Python's own `re` can be frozen by a hostile one, and every stream of the server with it. Nothing is fetched for them.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, cast

import jsonschema
import re2  # pyright: ignore[reportMissingTypeStubs]
import referencing
import structlog
from pydantic_ai import ModelRetry, RunContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from referencing.jsonschema import DRAFT202012

from turnwire.engine.limits import FUNCTION_DESCRIPTION_BYTES_MAX, FUNCTIONS_MAX
from turnwire.protocol.errors import InvalidRequest
from turnwire.seams.tool import ToolContext

log = structlog.get_logger(__name__)

# None of these has types that are whole.
_jsonschema, _re2 = cast(Any, jsonschema), cast(Any, re2)
# The library's own registry fetches what a reference leads to; this one knows nothing but the schema.
_NOTHING_ELSE: Any = cast(Any, referencing).Registry()
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterable[Any]:
    if isinstance(instance, str):
        try:
            found = _re2.search(pattern, instance)
        except (_re2.error, UnicodeError):
            return  # a look-around or a back-reference, which RE2 has not, or half of a surrogate pair: not checked
        if found is None:
            yield _jsonschema.exceptions.ValidationError(f"{instance[:100]!r} does not match {pattern!r}")


def _not_checked(validator: Any, value: Any, instance: Any, schema: Any) -> Iterable[Any]:
    return ()


def _additional(validator: Any, value: Any, instance: Any, schema: Any) -> Iterable[Any]:
    if "patternProperties" in schema:
        return ()
    return _jsonschema.Draft202012Validator.VALIDATORS["additionalProperties"](validator, value, instance, schema)


# The keys of patternProperties are patterns, too, and the library matches them by `re` wherever it asks which
# properties they cover: what they say of a property is not checked, nor what is said of the properties beside them.
_Validator = _jsonschema.validators.extend(
    _jsonschema.Draft202012Validator,
    {"pattern": _pattern, "patternProperties": _not_checked, "additionalProperties": _additional},
)
_ValidatorOfPatterns = _jsonschema.validators.extend(_Validator, {"unevaluatedProperties": _not_checked})


class FunctionInput:
    """Checks an input against a function's schema; stands where the agent library has a pydantic validator."""

    def __init__(self, schema: dict[str, Any]) -> None:
        kind = _ValidatorOfPatterns if _has_key(schema, "patternProperties") else _Validator
        self._validator: Any = kind(schema, registry=_NOTHING_ELSE)

    def validate_python(self, input: Any, **_: Any) -> Any:
        """`input` itself; `ModelRetry`, with what is wrong, when it does not fit."""
        try:
            fault = _jsonschema.exceptions.best_match(self._validator.iter_errors(input))
        except Exception as exc:
            # A reference that leads nowhere or round in circles: the schema is its caller's affair.
            log.info("schema_not_applicable", error=f"{type(exc).__name__}: {str(exc)[:200]}")
            raise ModelRetry(
                "The tool's schema can't be applied to this input, so the call was not made: most likely a reference "
                "in it leads nowhere, or round in circles."
            ) from exc
        if fault is not None:
            raise ModelRetry(f"The input does not fit the tool's schema. {_where(fault)}{fault.message[:500]}")
        return input

    def validate_json(self, input: str | bytes | bytearray, **_: Any) -> NoReturn:
        raise AssertionError("the engine parses inputs itself")


def _where(fault: Any) -> str:
    path = ".".join(str(step) for step in fault.absolute_path)
    return f"{path}: " if path else ""


def read_functions(raw: list[dict[str, Any]], taken: Iterable[str]) -> list[ToolDefinition]:
    """The definitions, in OpenAI's flat form or the nested one. `InvalidRequest` names the one that is wrong.

    `taken`: names of the server's own tools.
    """
    if len(raw) > FUNCTIONS_MAX:
        raise InvalidRequest(f"tools: at most {FUNCTIONS_MAX} functions can be given.")
    names = set(taken)
    definitions: list[ToolDefinition] = []
    for index, entry in enumerate(raw):
        definition = _read(f"tools.{index}", entry)
        if definition.name in names:
            raise InvalidRequest(f"tools.{index}: there is a tool {definition.name!r} already.")
        names.add(definition.name)
        definitions.append(definition)
    return definitions


def _read(where: str, entry: dict[str, Any]) -> ToolDefinition:
    if entry.get("type") != "function":
        raise InvalidRequest(f"{where}.type: must be 'function'.")
    function = entry.get("function", entry)
    if not isinstance(function, dict):
        raise InvalidRequest(f"{where}.function: must be an object.")
    fields: dict[str, Any] = function  # pyright: ignore[reportUnknownVariableType]
    name, description = fields.get("name"), fields.get("description") or ""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(f"{where}.name: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -.")
    if not isinstance(description, str) or len(description.encode("utf-8", "replace")) > FUNCTION_DESCRIPTION_BYTES_MAX:
        limit = FUNCTION_DESCRIPTION_BYTES_MAX // 1024
        raise InvalidRequest(f"{where}.description: must be a text of at most {limit} KiB.")
    return ToolDefinition(
        name=name, description=description, parameters_json_schema=_read_schema(where, fields), kind="external"
    )


def _read_schema(where: str, fields: dict[str, Any]) -> dict[str, Any]:
    schema = fields.get("parameters")
    if schema is None:
        return {"type": "object", "properties": {}}
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{where}.parameters: must be a JSON Schema of an object.")
    checked: dict[str, Any] = schema  # pyright: ignore[reportUnknownVariableType]
    if checked.get("type", "object") != "object":
        raise InvalidRequest(f"{where}.parameters.type: must be 'object'.")
    for reference in _references(checked):
        if not reference.startswith("#"):
            raise InvalidRequest(f"{where}.parameters: a $ref must lead into the same schema, with '#'.")
        if not _leads_somewhere(checked, reference):
            raise InvalidRequest(f"{where}.parameters: the $ref {reference[:100]!r} leads nowhere.")
    try:
        _jsonschema.Draft202012Validator.check_schema(checked)
    except _jsonschema.SchemaError as exc:
        raise InvalidRequest(f"{where}.parameters: is no JSON Schema: {exc.message[:300]}.") from exc
    except (OverflowError, RecursionError) as exc:  # of Python's `re`, which compiles the patterns here
        raise InvalidRequest(f"{where}.parameters: holds a pattern that is too large.") from exc
    return {"type": "object", **checked}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        items: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        for key, item in items.items():
            if key in ("$ref", "$dynamicRef") and isinstance(item, str):
                yield item
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _references(item)


def _leads_somewhere(schema: dict[str, Any], reference: str) -> bool:
    if _has_key(schema, "$id"):
        return True  # It may be relative to that: looked at when it is used.
    resource = cast(Any, DRAFT202012).create_resource(schema)
    try:
        _NOTHING_ELSE.with_resource("", resource).resolver().lookup(reference)
    except Exception:  # whatever the library makes of a wild one
        return False
    return True


def _has_key(value: Any, key: str) -> bool:
    if isinstance(value, dict):
        items: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return key in items or any(_has_key(item, key) for item in items.values())
    if isinstance(value, list):
        return any(_has_key(item, key) for item in value)  # pyright: ignore[reportUnknownVariableType]
    return False


class FunctionToolset(AbstractToolset[ToolContext]):
    """A session's functions, as tools that the engine asks its caller to run."""

    def __init__(self, definitions: list[ToolDefinition]) -> None:
        self._definitions = definitions

    @property
    def id(self) -> str:
        return "functions"

    async def get_tools(self, ctx: RunContext[ToolContext]) -> dict[str, ToolsetTool[ToolContext]]:
        return {
            definition.name: ToolsetTool(
                toolset=self,
                tool_def=definition,
                max_retries=0,
                args_validator=FunctionInput(definition.parameters_json_schema),
            )
            for definition in self._definitions
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[ToolContext], tool: ToolsetTool[ToolContext]
    ) -> NoReturn:
        raise AssertionError("a function is its caller's to run")
