"""Make docs/reference/*.md and docs/settings.md from the code: what callers, operators and agents meet.

    python scripts/docs_reference.py          write what has changed
    python scripts/docs_reference.py --check  write nothing; exit code 1 when a page is not as the code is

Pages are committed, so that they can be read in the repository; tests/docs/test_reference.py compares them.
"""

import ast
import importlib
import itertools
import json
import re
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
MADE = "This page is made from the code by `make docs`; don't change it by hand."


def events_page() -> str:
    """From protocol/events.py and protocol/grammar.py."""
    from turnwire.protocol.events import EVENTS, TERMINAL, Usage
    from turnwire.protocol.grammar import TABLE, State

    lines = [
        "# Events",
        "",
        f"{MADE} What callers may rely on is in [PROTOCOL.md](../../PROTOCOL.md#2-events).",
        "",
        "## In short",
        "",
        "| event | data | may stand |",
        "|---|---|---|",
    ]
    places = {name: [s for s in State if cls in TABLE[s]] for name, cls in EVENTS.items()}
    for name, cls in EVENTS.items():
        keys = ", ".join(f"`{field}`" for field, *_ in _fields(cls)) or "nothing"
        where = ", ".join(_state_words(state) for state in places[name])
        lines.append(f"| [`{name}`](#{_anchor(name)}) | {keys} | {where} |")
    lines += [
        "",
        "## Order",
        "",
        "A turn is a walk through this table, from *new* to *ended*; a numbered stream counts its events from 0.",
        "",
        "| state | what may follow |",
        "|---|---|",
    ]
    for state in State:
        follow = ", ".join(f"`{cls.type}`" for cls in TABLE[state]) or "nothing"
        lines.append(f"| {_state_words(state)} | {follow} |")
    for name, cls in EVENTS.items():
        lines += ["", f"## `{name}`", ""]
        lines.append(_sentence(cls.__doc__ or _plain_words(name)))
        if cls in TERMINAL:
            lines.append("Nothing follows it.")
        fields = _fields(cls)
        if fields:
            lines += ["", "| key | type | |", "|---|---|---|"]
            lines += [f"| `{key}` | {kind} | {note} |" for key, kind, note in fields]
        lines += ["", "```text", f"event: {name}", f"data: {json.dumps(_example(cls), separators=(',', ':'))}", "```"]
    lines += ["", "## `usage`", "", _sentence(Usage.__doc__ or ""), "", "| key | type |", "|---|---|"]
    lines += [f"| `{key}` | {kind} |" for key, kind, _ in _fields(Usage)]
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """From protocol/errors.py."""
    from turnwire.protocol.errors import ERRORS

    lines = [
        "# Errors",
        "",
        f"{MADE}",
        "",
        "Every answer that is not 2xx is `application/json` with this body. `error` is one of the names below, and is",
        "for programs; `message` says what was wrong and what to do, and is for people: its wording may change.",
        "",
        "```json",
        '{"error": "session_busy", "message": "A turn is running in this session: wait for its end, or follow it '
        '(X-Response-Id names it)."}',
        "```",
        "",
        "Every answer has an `X-Request-Id`, under which the server's log has the details.",
        "",
        "| status | `error` | what it says, unless there is more to say | beside it |",
        "|---|---|---|---|",
    ]
    beside = {
        "unauthorized": "`WWW-Authenticate: Bearer`",
        "method_not_allowed": "`Allow`",
        "session_busy": "`X-Response-Id`: the running turn",
        "range_not_satisfiable": "`Content-Range`",
        "rate_limited": "`Retry-After`, in seconds",
        "unavailable": "`Retry-After`, in seconds",
        "insufficient_credits": "not used yet",
    }
    for name, cls in sorted(ERRORS.items(), key=lambda item: (item[1].status, item[0])):
        lines.append(f"| {cls.status} | `{name}` | {_sentence(cls.__doc__ or '')} | {beside.get(name, '')} |")
    lines += [
        "",
        "Once a stream has begun, a failure of the turn is the event [`message.error`](events.md#messageerror), and",
        "never a status.",
    ]
    return "\n".join(lines) + "\n"


def openapi() -> dict[str, Any]:
    """The document of a server with default settings."""
    from turnwire.server.app import create_app
    from turnwire.server.context import ServerOptions, Services

    nothing = typing.cast(Any, None)  # the document needs the routes only
    services = typing.cast(Any, Services)(*[nothing] * 8, ServerOptions())
    return create_app(services).openapi()


def routes_page() -> str:
    """From the OpenAPI document."""
    document = openapi()
    lines = [
        "# Routes",
        "",
        f"{MADE} The same, to try out, is at `/docs` of a running server, and as an OpenAPI document at",
        "`/openapi.json`. What callers may rely on is in [PROTOCOL.md](../../PROTOCOL.md#4-endpoints).",
        "",
        "All but `/health…` take `Authorization: Bearer <key>`. Errors have [one form](errors.md).",
        "",
        "| route | |",
        "|---|---|",
    ]
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    lines += [f"| [`{route}`](#{_anchor(route)}) | {_first_sentence(operation)} |" for route, operation in operations]
    for route, operation in operations:
        lines += ["", f"## `{route}`", "", _paragraph(operation.get("description") or operation.get("summary", ""))]
        if operation.get("parameters"):
            lines += ["", "| parameter | in | type | |", "|---|---|---|---|"]
            for item in operation["parameters"]:
                note = "needed" if item.get("required") else _default_words(item["schema"])
                words = " ".join(part for part in (_cell(item.get("description", "")), note) if part)
                lines.append(f"| `{item['name']}` | {item['in']} | {_schema_words(item['schema'])} | {words} |")
        body = operation.get("requestBody", {}).get("content", {})
        for kind, content in body.items():
            lines += ["", f"Body, `{kind}`: {_body_words(content.get('schema', {}))}."]
            lines += _body_table(document, content.get("schema", {}))
        lines += ["", "| answer | |", "|---|---|"]
        for status, answer in operation["responses"].items():
            kinds = ", ".join(f"`{kind}`" for kind in answer.get("content", {}) if kind != "application/json")
            shapes = ", ".join(_answer_words(content) for content in answer.get("content", {}).values())
            what = "" if int(status) >= 400 else " ".join(part for part in (kinds, shapes) if part)
            said = (
                ""
                if answer["description"] == "Successful Response" or "itemSchema" in str(answer)
                else answer["description"]
            )
            said = f"{_cell(said).partition('. ')[0].rstrip('.')}." if said else ""
            lines.append(f"| {status} | {' '.join(part for part in (said, what) if part)} |")
    lines += ["", "## Shapes"]
    for name in _named_shapes(document, "\n".join(lines)):
        shape = document["components"]["schemas"][name]
        lines += ["", f"### `{name}`", ""]
        lines += [_paragraph(shape.get("description", "")), ""] if shape.get("description") else []
        lines += _fields_table(shape, "") or [f"{_cell(_schema_words(shape))}."]
    return "\n".join(lines) + "\n"


def _named_shapes(document: dict[str, Any], text: str) -> list[str]:
    """The shapes that the page leads to, and those that they lead to, in the order of the alphabet."""
    schemas = document["components"]["schemas"]
    found: set[str] = set()
    new = {name for name in schemas if f"](#{name.lower()})" in text}
    while new:
        found |= new
        refs = {ref for name in new for ref in re.findall(r"#/components/schemas/(\w+)", json.dumps(schemas[name]))}
        new = refs - found
    return sorted(found)


def cli_page() -> str:
    """From the commands of typer."""
    import typer.main

    from turnwire.cli.app import app

    lines = [
        "# Command line",
        "",
        f"{MADE} `turnwire COMMAND --help` says the same.",
        "",
        "Results go to stdout, everything else to stderr. Exit codes: 0 done or stopped as asked, 1 failed, 2 wrong",
        "usage or settings, 130 a turn that Ctrl-C stopped. Colours are for terminals, and `NO_COLOR=1` leaves them",
        "out. `turnwire --install-completion` teaches your shell the commands.",
    ]
    for words, command in commands(typer.main.get_command(app), ["turnwire"]):
        lines += ["", f"## `{' '.join(words)}`", "", _paragraph(command.help or "")]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
        usage = [*words, *(["[OPTIONS]"] if options else []), *(_argument(a) for a in arguments)]
        usage += ["COMMAND"] if getattr(command, "commands", None) else []
        lines += ["", "```text", " ".join(usage), "```"]
        rows = [(f"`{_argument(a)}`", a) for a in arguments] + [(f"`{_option(o)}`", o) for o in options]
        if rows:
            lines += ["", "| | what it is |", "|---|---|"]
            lines += [f"| {_cell(left)} | {_cell(_help_of(param))} |" for left, param in rows]
        if command.epilog:
            lines += ["", "```text", command.epilog.replace("\b\n", "").strip(), "```"]
    return "\n".join(lines) + "\n"


def tools_page() -> str:
    """From the toolsets, as models are told of them."""
    from turnwire.tools.files import FileTools
    from turnwire.tools.progress import ProgressTools
    from turnwire.tools.shell import ShellTools
    from turnwire.tools.web import WebTools

    nothing = typing.cast(Any, None)  # none is called
    lines = [
        "# Tools",
        "",
        f"{MADE} It is what a model is told of the server's own tools; [the guide](../guides/tools.md) says more, and",
        "tools of MCP servers and functions of the caller stand beside them.",
    ]
    for toolset in (FileTools(), ShellTools(nothing), ProgressTools(), WebTools()):
        for name, tool in toolset.tools.items():
            schema = tool.function_schema.json_schema
            lines += [
                "",
                f"## `{name}`",
                "",
                _paragraph(tool.description or ""),
                "",
                "| input | type | |",
                "|---|---|---|",
            ]
            for field, what in schema["properties"].items():
                note = "Needed." if field in schema.get("required", []) else _default_words(what)
                words = " ".join(part for part in (_cell(what.get("description", "")), note) if part)
                words = words.replace("*", "\\*")
                lines.append(f"| `{field}` | {_cell(_schema_words(what, linked=False))} | {words} |")
    return "\n".join(lines) + "\n"


LIMITS = {
    "Turns, streams and conversations": "engine/limits.py",
    "Tools": "tools/limits.py",
    "Skills": "skills/limits.py",
}


def limits_page() -> str:
    """From the modules of limits: each constant, its value and the text below it."""
    lines = [
        "# Limits",
        "",
        f"{MADE} Each limit has its unit in its name, and a reason. They are no settings: those are in",
        "[Settings](../settings.md), and the sandbox's in [its guide](../guides/sandbox.md#limits).",
    ]
    for title, name in LIMITS.items():
        path = ROOT / "src" / "turnwire" / name
        module = importlib.import_module(f"turnwire.{name.removesuffix('.py').replace('/', '.')}")
        lines += ["", f"## {title}", "", "| limit | value | what, and why |", "|---|---|---|"]
        for constant, why in _constants(path):
            lines.append(f"| `{constant}` | {_amount(constant, getattr(module, constant))} | {_cell(why)} |")
    return "\n".join(lines) + "\n"


def _constants(path: Path) -> Iterator[tuple[str, str]]:
    """Each constant of a module with the text that stands below it."""
    body = ast.parse(path.read_text("utf-8")).body
    for statement, after in itertools.pairwise(body):
        match statement, after:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(why))):
                yield name, why


def _amount(name: str, value: Any) -> str:
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(f"`{item}`" for item in value)
    if isinstance(value, int) and "BYTES" in name:
        for unit, size in (("MiB", 1024 * 1024), ("KiB", 1024)):
            if value % size == 0 and size <= value < 1024 * size:
                return f"{value // size} {unit}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else f"`{value}`"


def settings_page() -> str:
    from turnwire.cli.reference import settings_markdown

    return settings_markdown()


PAGES: dict[str, Callable[[], str]] = {
    "docs/settings.md": settings_page,
    "docs/reference/events.md": events_page,
    "docs/reference/errors.md": errors_page,
    "docs/reference/routes.md": routes_page,
    "docs/reference/cli.md": cli_page,
    "docs/reference/tools.md": tools_page,
    "docs/reference/limits.md": limits_page,
}


# Of events


def _fields(cls: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    """Key, type and a note of each field of a struct."""
    hints = typing.get_type_hints(cls)
    optional = cls.__struct_config__.omit_defaults
    return [
        (field.encode_name, _type_words(hints[field.name]), "may be missing" if optional and not field.required else "")
        for field in msgspec.structs.fields(cls)
    ]


def _type_words(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f'`"{value}"`' for value in args)
    if origin is dict:
        return "object"
    if type(None) in args:
        return _type_words(next(arg for arg in args if arg is not type(None)))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return f"[`{hint.__name__.lower()}`](#{hint.__name__.lower()})"
    return {str: "text", int: "integer", float: "seconds since the epoch", bool: "true or false"}[hint]


EXAMPLES: dict[str, Any] = {
    "id": "msg_5f0c9e1d2b3a4c5d6e7f8a9b",
    "session_id": "sess_3f2a9c1d0b4e",
    "content": "Hello",
    "name": "read_file",
    "input": {"path": "a.txt"},
    "kind": "tool",
    "deadline": 1790000000.0,
    "reason": "server_restarted",
    "superseded_from": 7,
    "is_error": False,
    "error": "The model's provider is overloaded: try again in a moment.",
    "approved": True,
}
CALL_ID = "call_0a1b2c3d4e5f60718293a4b5"


def _example(cls: type[msgspec.Struct]) -> dict[str, Any]:
    """An example of its data, as the code encodes it."""
    call = cls.__name__.startswith("Tool")
    kind = "approval" if cls.__name__ == "ToolCallAnswered" else "tool"
    given = {**EXAMPLES, **({"id": CALL_ID, "kind": kind} if call else {})}
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        if field.encode_name == "usage":
            values["usage"] = {"input_tokens": 40, "output_tokens": 25, "total_tokens": 65, "requests": 1}
        elif field.required or (field.encode_name == "approved") or cls.__name__ == "ToolUseInputDelta":
            values[field.name] = given[field.encode_name]
    if cls.__name__ == "ToolUseInputDelta":
        values["content"] = '{"path": '
    return msgspec.to_builtins(msgspec.convert(values, cls))


def _state_words(state: Any) -> str:
    return {
        "NEW": "new",
        "BETWEEN": "between blocks",
        "TEXT": "in a text block",
        "THINKING": "in a thinking block",
        "INPUT": "in a tool block, while its input comes",
        "CALLED": "in a tool block with its input whole",
        "ENDED": "ended",
    }[state.name]


def _plain_words(name: str) -> str:
    block, _, what = name.partition(".")
    kind = {"text": "text", "thinking": "the model's reasoning", "tool_use": "a call"}[block]
    return {
        "start": f"A block of {kind} opens.",
        "delta": f"A piece of {kind}.",
        "stop": f"The block of {kind} is closed.",
    }[what]


# Of routes


def _first_sentence(operation: dict[str, Any]) -> str:
    return _cell(
        _paragraph(operation.get("description") or operation.get("summary", "")).partition(". ")[0].rstrip(".") + "."
    )


def _schema_words(schema: dict[str, Any], *, linked: bool = True) -> str:
    """A schema in a word or two; bounds included."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if not linked:
            return f"`{name}`"
        return f"[`{name}`](#{name.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            kinds = [_schema_words(item) for item in schema[word] if item.get("type") != "null"]
            null = any(item.get("type") == "null" for item in schema[word])
            return " or ".join(dict.fromkeys([*kinds, *(["null"] if null else [])]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_schema_words(schema.get('items', {}), linked=linked)}"
    word = {"string": "text", "boolean": "true or false"}.get(kind, kind)
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = [f"from {low}" if low is not None else "", f"to {high}" if high is not None else ""]
    return " ".join([word, *filter(None, bounds)])


def _default_words(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return f"Default: `{json.dumps(default)}`." if default not in (None, [], {}) else ""


def _body_words(schema: dict[str, Any]) -> str:
    return "bytes" if schema.get("format") == "binary" else _schema_words(schema)


def _answer_words(content: dict[str, Any]) -> str:
    if "itemSchema" in content:
        return "[events](events.md)"
    schema = content.get("schema", {})
    return "bytes" if schema.get("format") == "binary" else _schema_words(schema) if schema else ""


def _body_table(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """The fields of a body that is an object of the document."""
    if "$ref" not in schema:
        return []
    shape = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    table = _fields_table(shape)
    return ["", *table] if table else []


def _fields_table(shape: dict[str, Any], required: str = "needed") -> list[str]:
    if "properties" not in shape:
        return []
    lines = ["| field | type | |", "|---|---|---|"]
    for name, field in shape["properties"].items():
        note = required if name in shape.get("required", []) else _default_words(field)
        words = " ".join(part for part in (_cell(field.get("description", "")), note) if part)
        lines.append(f"| `{name}` | {_cell(_schema_words(field))} | {words} |")
    return lines


# Of the command line


def commands(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from commands(child, [*words, name])


def _argument(param: Any) -> str:
    name = (param.metavar or param.name or "").upper().strip("[]")
    return name if param.required else f"[{name}]"


def _option(param: Any) -> str:
    names = ", ".join([*param.opts, *param.secondary_opts])
    if param.is_flag:
        return names
    kinds = {int: "INTEGER", float: "NUMBER", str: "TEXT"}
    kind = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    return f"{names} {param.metavar or kinds.get(kind, 'VALUE')}"


def _help_of(param: Any) -> str:
    words = [param.help or ""]
    if param.envvar:
        variables = [param.envvar] if isinstance(param.envvar, str) else param.envvar
        words.append("In the environment: " + ", ".join(f"`{name}`" for name in variables) + ".")
    if param.param_type_name == "option" and param.default not in (None, False, "", ()) and not callable(param.default):
        words.append(
            f"Default: `{param.default:g}`." if isinstance(param.default, float) else f"Default: `{param.default}`."
        )
    return " ".join(filter(None, words))


# Of text


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _paragraph(text: str) -> str:
    return _sentence(" ".join(text.split()))


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def main(argv: list[str]) -> int:
    stale = []
    for name, make in PAGES.items():
        path, text = ROOT / name, make()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
            if "--check" not in argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
                print(f"wrote {name}", file=sys.stderr)
    if stale and "--check" in argv:
        print(f"These pages are not as the code is; run make docs: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
