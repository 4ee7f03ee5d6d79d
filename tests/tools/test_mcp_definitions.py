"""Names, descriptions and schemas of MCP servers' tools, made fit for providers or left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from mcp_types import Tool
from structlog.testing import capture_logs

from fakes.mcp_tools import mcp, program
from turnwire.tools import limits
from turnwire.tools.mcp.definitions import definitions_of, legal_name

OBJECT: dict[str, Any] = {"type": "object", "properties": {}}


def tool(name: str = "a", description: str | None = "does a", schema: dict[str, Any] | None = None) -> Tool:
    return Tool(name=name, description=description, input_schema=schema if schema is not None else OBJECT)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("get_time", "get_time"),
        ("Get-Time9", "Get-Time9"),
        ("get.time", "get_time"),
        ("a b\n\t/../c", "a_b_c"),
        ("9lives", "_9lives"),
        ("-rm", "_-rm"),
        ("_x", "_x"),
        ("wetter_für_köln", "wetter_f_r_k_ln"),
        ("x" * 100, "x" * 64),
        ("9" * 64, "_" + "9" * 63),
        ("", None),
        ("☃", None),
        ("...", None),
        ("\x00", None),
        ("--", None),
    ],
)
def test_names_are_legal_for_all_providers(name: str, legal: str | None) -> None:
    assert legal_name(name) == legal


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "array"}, "not that of an object"),
        ({"type": ["object", "null"]}, "not that of an object"),
        ({"type": "object", "properties": {"a": {"type": "nonsense"}}}, "is no JSON Schema"),
        ({"type": "object", "properties": []}, "is no JSON Schema"),
        ({"type": "object", "required": "a"}, "is no JSON Schema"),
        ({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/x"}}}, "refers to something outside"),
        ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "refers to something outside"),
        (nested(25), "nested deeper than"),
        (nested(5000), "nested deeper than"),
        ({"type": "object", "description": "x" * 40_000}, "larger than 32768 bytes"),
    ],
)
def test_a_tool_whose_schema_can_t_be_sent_is_left_out_with_a_line_in_the_log(schema: dict[str, Any], why: str) -> None:
    with capture_logs() as logs:
        definitions = definitions_of("s", [tool("bad", schema=schema), tool("good")])

    assert [definition.name for definition in definitions] == ["good"]
    [line] = logs
    assert (line["event"], line["tool"]) == ("mcp_tool_left_out", "bad")
    assert why in line["reason"]


def test_a_schema_without_a_type_is_that_of_an_object() -> None:
    [definition] = definitions_of("s", [tool(schema={})])

    assert definition.schema == OBJECT


def test_references_inside_and_large_patterns_are_sent_on() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"pattern": "(a{900}){900}"}},
    }
    [definition] = definitions_of("s", [tool(schema=schema)])

    assert definition.schema == schema


def test_the_second_tool_of_a_name_is_left_out() -> None:
    definitions = definitions_of("s", [tool("a.b", "first"), tool("a_b", "second"), tool("a.b", "third")])

    assert [(one.name, one.its_name, one.description) for one in definitions] == [("a_b", "a.b", "first")]


def test_descriptions_are_shortened_and_hold_no_control_characters() -> None:
    long, odd, none = definitions_of(
        "s", [tool("a", "x" * 100_000), tool("b", "one\n\ttwo\x00\x1b[31m\u0085"), tool("c", None)]
    )

    assert len(long.description) == limits.MCP_DESCRIPTION_CHARS_MAX
    assert odd.description == "one\n\ttwo  [31m "
    assert none.description == ""


def test_a_server_has_so_many_tools_and_no_more() -> None:
    assert len(definitions_of("s", [tool(f"t{number}") for number in range(500)])) == limits.MCP_TOOLS_MAX


@pytest.mark.tool("bwrap")
async def test_a_renamed_tool_is_called_by_the_server_s_name(tmp_path: Path) -> None:
    definitions = [
        {"name": "wheel.turn / left", "description": "Turn.", "inputSchema": OBJECT},
        {"name": "read_file", "description": "Theirs.", "inputSchema": OBJECT},
        {"name": "☃", "inputSchema": OBJECT},
        {"name": "endless", "inputSchema": OBJECT | {"properties": {"a": {"type": "nothing"}}}},
    ]
    (tmp_path / "definitions.json").write_text(json.dumps(definitions))
    async with mcp(tmp_path, program(tmp_path / "definitions.json")) as made:
        assert await made.names() == ["wheel_turn_left", "own_read_file"]
        assert await made.call("wheel_turn_left") == "called wheel.turn / left"
        assert await made.call("own_read_file") == "called read_file"


@pytest.mark.tool("bwrap")
async def test_a_list_that_is_no_list_of_tools_is_a_server_that_is_down(tmp_path: Path) -> None:
    (tmp_path / "definitions.json").write_text('[{"name": 7}]')
    async with mcp(tmp_path, program(tmp_path / "definitions.json")) as made:
        state = made.tools.states()["own"]

    assert state.startswith("down: ")
    assert "\n" not in state
