"""A caller's functions: what their schemas say is checked, and no schema harms the server."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic_ai import ModelRetry

from turnwire.engine.functions import FunctionInput, read_functions
from turnwire.protocol.errors import InvalidRequest

SLOW = "^(a+)+$"
SLOW_TEXT = "a" * 40 + "!"


def function(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "function", "name": "look", "parameters": parameters}]


def check(parameters: dict[str, Any], input: dict[str, Any]) -> None:
    """Read the function, as a session's creation does, and hold the input against it, as a call does."""
    [definition] = read_functions(function(parameters), ())
    assert FunctionInput(definition.parameters_json_schema).validate_python(input) is input


@pytest.fixture
def visitors() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server's address, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 5000 + ")" * 5000])
@pytest.mark.parametrize("keyword", ["pattern", "patternProperties"])
def test_a_pattern_that_python_can_not_compile_is_refused(pattern: str, keyword: str) -> None:
    value = pattern if keyword == "pattern" else {pattern: {}}
    with pytest.raises(InvalidRequest, match=r"tools\.0\.parameters"):
        read_functions(function({"properties": {"x": {keyword: value}}}), ())


@pytest.mark.parametrize(
    "beside", [{}, {"additionalProperties": False}, {"unevaluatedProperties": False}, {"properties": {"a": {}}}]
)
def test_patterns_of_properties_are_taken_and_can_not_freeze(beside: dict[str, Any]) -> None:
    started = time.perf_counter()
    check({"patternProperties": {SLOW: {}}, **beside}, {SLOW_TEXT: 1})
    check({"allOf": [{"patternProperties": {SLOW: {}}}], "unevaluatedProperties": False}, {SLOW_TEXT: 1})
    assert time.perf_counter() - started < 1


def test_what_is_beside_no_pattern_is_checked() -> None:
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        with pytest.raises(ModelRetry, match="does not fit"):
            check({"properties": {"a": {}}, keyword: False}, {"b": 1})


@pytest.mark.parametrize(
    ("parameters", "input"),
    [
        ({"$ref": "#"}, {}),
        ({"allOf": [{"$ref": "#/allOf/0"}]}, {}),
        ({"$id": "urn:a", "properties": {"x": {"$ref": "#/$defs/none"}}}, {"x": 1}),
    ],
)
def test_a_schema_that_can_not_be_applied_is_an_answer_to_the_call(
    parameters: dict[str, Any], input: dict[str, Any]
) -> None:
    with pytest.raises(ModelRetry, match="can't be applied"):
        check(parameters, input)


@pytest.mark.parametrize("schema", [{"$ref": "#/$defs/none"}, {"$ref": "#none"}, {"$dynamicRef": "#none"}])
def test_a_reference_that_leads_nowhere_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="leads nowhere"):
        read_functions(function({"$defs": {"a": {}}, "properties": {"x": schema}}), ())


@pytest.mark.parametrize("schema", [{"$ref": "#/$defs/a"}, {"$ref": "#there"}, {"$dynamicRef": "#there"}])
def test_a_reference_into_the_schema_is_followed(schema: dict[str, Any]) -> None:
    parameters = {"$defs": {"a": {"$anchor": "there", "type": "string"}}, "properties": {"x": schema}}
    check(parameters, {"x": "text"})
    with pytest.raises(ModelRetry, match="does not fit"):
        check(parameters, {"x": 1})


def test_half_of_a_surrogate_pair_is_no_trouble_to_a_pattern() -> None:
    check({"properties": {"x": {"pattern": "^a"}}}, {"x": "a\ud83d"})
    check({"properties": {"x": {"pattern": "\ud83d"}}}, {"x": "a"})


def test_nothing_is_fetched_for_a_schema(visitors: tuple[str, list[str]]) -> None:
    address, asked = visitors
    for keyword in ("$ref", "$dynamicRef"):
        with pytest.raises(InvalidRequest, match="must lead into the same schema"):
            check({"properties": {"x": {keyword: f"{address}/{keyword}"}}}, {"x": 1})
    # A part that the library does not look into for names, and that gives itself one.
    hidden = {"hidden": {"$id": f"{address}/hidden", "properties": {"y": {"$ref": "#/none"}}}}
    with pytest.raises(ModelRetry, match="can't be applied"):
        check({"default": hidden, "properties": {"x": {"$ref": "#/default/hidden"}}}, {"x": {"y": 1}})
    assert asked == []
