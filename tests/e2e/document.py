"""Every answer held against the server's own OpenAPI document.

An answer whose status or content type the document doesn't name for its operation fails, and so does a body, or an
event of a stream, that doesn't fit its schema. What no operation is documented for can only be a 404 or a 405.
"""

import re
from typing import Any

from jsonschema import Draft202012Validator

Item = dict[str, Any]


class NotDocumented(AssertionError):
    """The answer is not what /openapi.json says."""


class Document:
    """A server's /openapi.json."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self._paths = [(re.compile(_pattern(path)), path) for path in raw["paths"]]
        self._validators: dict[str, Draft202012Validator] = {}
        self._seen_shapes: set[tuple[Any, ...]] = set()

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """The operation of a concrete path; None when the document has none."""
        found = [template for pattern, template in self._paths if pattern.fullmatch(path)]
        found.sort(key=lambda template: template.count("{"))
        return self.raw["paths"][found[0]].get(method.lower()) if found else None

    def check(self, method: str, path: str, status: int, content_type: str, body: Any) -> None:
        """An answer. `body`: JSON as parsed, None for none, and bytes, of which only the type is looked at."""
        where = f"{method} {path} → {status}"
        operation = self.operation(method, path)
        if operation is None:
            if status not in (404, 405):
                raise NotDocumented(f"{where}: no such operation is documented")
            self._validate("problem", {"$ref": "#/components/schemas/Problem"}, body, where)
            return
        schemas = self._contents(operation, status, where)
        if not schemas:
            if body is not None:
                raise NotDocumented(f"{where}: a body where none is documented")
            return
        kind = content_type.partition(";")[0]
        if kind not in schemas and "*/*" in schemas:
            return  # bytes of any type
        if kind not in schemas and not ("*/*" in schemas and isinstance(body, bytes)):
            raise NotDocumented(f"{where}: content type {content_type!r}; documented: {list(schemas)}")
        if isinstance(body, bytes):
            return
        if kind != "application/json":
            return
        name = f"{operation['operationId']} {status} {kind}"
        self._validate(name, schemas[kind]["schema"], body, where)

    def check_stream(self, method: str, path: str, items: list[Item]) -> None:
        """The events of a stream, each as `{event, data}`."""
        where = f"{method} {path}"
        operation = self.operation(method, path)
        if operation is None:
            raise NotDocumented(f"{where}: no such operation is documented")
        schemas = self._contents(operation, 200, where)
        if "text/event-stream" not in schemas:
            raise NotDocumented(f"{where}: a stream where none is documented")
        name = f"{operation['operationId']} item"
        for item in items:
            # Of many deltas of one shape, one is enough: a validation takes a millisecond.
            shape = (name, item["event"], *((k, type(v), bool(v)) for k, v in item["data"].items()))
            if item["event"].endswith("delta") and shape in self._seen_shapes:
                continue
            self._validate(name, schemas["text/event-stream"]["itemSchema"], item, where)
            self._seen_shapes.add(shape)

    def _contents(self, operation: dict[str, Any], status: int, where: str) -> dict[str, Any]:
        answer = operation["responses"].get(str(status))
        if answer is None:
            raise NotDocumented(f"{where}: the document names only {sorted(operation['responses'])}")
        return answer.get("content", {})

    def _validate(self, name: str, schema: dict[str, Any], value: Any, where: str) -> None:
        validator = self._validators.get(name)
        if validator is None:
            validator = Draft202012Validator({**schema, "components": self.raw["components"]})
            self._validators[name] = validator
        error = next(iter(validator.iter_errors(value)), None)
        if error is not None:
            raise NotDocumented(f"{where}: {error.json_path}: {error.message[:500]}; in {str(value)[:500]}")


def _pattern(template: str) -> str:
    """A path template as a regular expression; {path} is the one parameter that may hold slashes."""
    return re.sub(r"\{\w+\}", "[^/]+", template.replace("{path}", ".+").replace(".json", r"\.json"))
