"""The file tools, called as the engine calls them, on a real directory."""

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage

from turnwire.seams.tool import REPEATABLE, TIME_LIMIT_S, ToolContext, ToolFailed
from turnwire.seams.workspace import FileAccess
from turnwire.tools import limits
from turnwire.tools.files import FileTools
from turnwire.workspaces.directory import DirectoryWorkspace

HANG_S = 8.0
"""No call in these tests may take so long; most take milliseconds."""


def context(directory: Path, access: FileAccess | None = None) -> RunContext[ToolContext]:
    workspace = DirectoryWorkspace(directory, access or FileAccess())
    deps = ToolContext(tenant="default", session_id="sess_000000000001", workspace=workspace)
    return RunContext(deps=deps, model=TestModel(), usage=RunUsage())


async def call(ctx: RunContext[ToolContext], name: str, **arguments: Any) -> str:
    """Just as the engine does it: list, validate, call."""
    toolset = FileTools()
    tools = await toolset.get_tools(ctx)
    valid = tools[name].args_validator.validate_python(arguments)
    async with asyncio.timeout(HANG_S):
        result = await toolset.call_tool(name, valid, ctx, tools[name])
    assert isinstance(result, str)
    return result


async def failure(ctx: RunContext[ToolContext], name: str, **arguments: Any) -> str:
    with pytest.raises(ToolFailed) as caught:
        await call(ctx, name, **arguments)
    return caught.value.message


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    root.mkdir()
    return root


@pytest.fixture
def ctx(root: Path) -> RunContext[ToolContext]:
    return context(root)


# ── What the model and the engine are told of them ─────────────────────────────────────────────────────────────────


async def test_only_what_the_contract_requires_is_required(ctx: RunContext[ToolContext]) -> None:
    tools = await FileTools().get_tools(ctx)

    required = {name: set(tool.tool_def.parameters_json_schema.get("required", ())) for name, tool in tools.items()}
    assert required == {
        "read_file": {"path"},
        "write_file": {"path", "content"},
        "edit_file": {"path", "old", "new"},
        "list_files": set(),
        "search_files": {"pattern"},
    }


async def test_every_tool_and_parameter_is_described_briefly_and_no_other_input_is_taken(
    ctx: RunContext[ToolContext],
) -> None:
    for tool in (await FileTools().get_tools(ctx)).values():
        schema = tool.tool_def.parameters_json_schema
        assert schema["additionalProperties"] is False
        assert 20 < len(tool.tool_def.description or "") < 160
        for parameter in schema["properties"].values():
            assert 10 < len(parameter["description"]) < 100


async def test_only_reading_may_run_again_after_a_crash(ctx: RunContext[ToolContext]) -> None:
    tools = await FileTools().get_tools(ctx)

    repeatable = {name for name, tool in tools.items() if (tool.tool_def.metadata or {})[REPEATABLE]}
    assert repeatable == {"read_file", "list_files", "search_files"}
    assert all((tool.tool_def.metadata or {})[TIME_LIMIT_S] > limits.FILE_TIME_S for tool in tools.values())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read_file", {}),
        ("read_file", {"path": 7}),
        ("read_file", {"path": "a", "offset": 0}),
        ("read_file", {"path": "a", "limit": -1}),
        ("read_file", {"path": "a", "encoding": "latin-1"}),
        ("write_file", {"path": "a"}),
        ("edit_file", {"path": "a", "old": "", "new": "b"}),
        ("search_files", {"pattern": ""}),
    ],
)
async def test_input_that_does_not_fit_is_refused_before_the_call(
    ctx: RunContext[ToolContext], name: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        await call(ctx, name, **arguments)


# ── Reading ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_file_reads_back_as_it_was_written(ctx: RunContext[ToolContext]) -> None:
    text = "first\n\n  third – ünï\u2028code\r\nlast without an end"

    assert (
        await call(ctx, "write_file", path="a/b.txt", content=text) == f"Created a/b.txt ({len(text.encode())} bytes)."
    )
    assert await call(ctx, "read_file", path="a/b.txt") == text
    assert await call(ctx, "read_file", path="/workspace/a/b.txt") == text
    assert await call(ctx, "read_file", path="/opt/sandbox/workspace/a/b.txt") == text
    assert (await call(ctx, "write_file", path="a/b.txt", content="")).startswith("Replaced a/b.txt")
    assert await call(ctx, "read_file", path="a/b.txt") == "[a/b.txt is empty.]"


async def test_reading_goes_on_where_the_note_says(root: Path, ctx: RunContext[ToolContext]) -> None:
    lines = [f"line {number}\n" for number in range(1, 5001)]
    (root / "long.txt").write_text("".join(lines))
    read: list[str] = []
    offset = 1
    for _ in range(4):
        result = await call(ctx, "read_file", path="long.txt", offset=offset)
        body, _, note = result.partition("[")
        read += body.splitlines(keepends=True)
        if not note:
            break
        found = re.search(r"offset=(\d+)", note)
        assert found
        offset = int(found[1])

    assert read == lines
    assert "no line 5001" in await failure(ctx, "read_file", path="long.txt", offset=5001)


async def test_offset_and_limit_choose_lines(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "a").write_text("1\n2\n3\n4")

    assert await call(ctx, "read_file", path="a", offset=2, limit=2) == (
        "2\n3\n[lines 2 to 3 of a file of 7 bytes; read on with offset=4]"
    )
    assert await call(ctx, "read_file", path="a", offset=4, limit=1) == "4"


async def test_long_lines_are_cut_and_the_next_line_follows(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "min.js").write_text("é" * 1_000_000 + "\nnext\n")
    edge = "x" * (limits.READ_LINE_BYTES_MAX - 1)
    (root / "edge").write_text(f"{edge}y\n{edge}\n")

    result = await call(ctx, "read_file", path="min.js")
    assert len(result.encode()) < limits.READ_LINE_BYTES_MAX + 200
    assert "é …\nnext\n[lines longer than" in result
    assert "\ufffd" not in result
    assert (await call(ctx, "read_file", path="edge")).startswith(f"{edge}y …\n{edge}\n")


async def test_a_binary_file_is_told_not_shown(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "a.bin").write_bytes(b"\x7fELF\0\0\1")
    (root / "latin").write_bytes(b"caf\xe9\n")

    assert await call(ctx, "read_file", path="a.bin") == "[a.bin is a binary file of 7 bytes; it is not shown.]"
    assert await call(ctx, "read_file", path="latin") == "caf\ufffd\n[\ufffd stands for bytes that are not UTF-8]"


async def test_a_file_of_a_terabyte_costs_no_more_than_any_other(root: Path, ctx: RunContext[ToolContext]) -> None:
    with (root / "huge").open("wb") as file:
        file.write(b"a\n" + b"b" * 10_000)
        file.truncate(1 << 40)
    began = time.monotonic()

    assert (await call(ctx, "read_file", path="huge")).startswith("a\n[lines 1 to 1 of a file of 1099511627776 bytes")
    assert "no line 3" in await failure(ctx, "read_file", path="huge", offset=3)
    assert "too large to edit" in await failure(ctx, "edit_file", path="huge", old="a", new="b")
    assert "1 files larger than" in await call(ctx, "search_files", pattern="a")
    assert time.monotonic() - began < HANG_S


# ── Editing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_edit_replaces_the_only_occurrence(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "a.py").write_bytes(b"x = 1\ny = 2\n# \xff\n")
    (root / "a.py").chmod(0o750)

    assert (
        await call(ctx, "edit_file", path="a.py", old="y = 2", new="y = 3")
        == "Replaced 1 occurrence in a.py, at line 2."
    )
    assert (root / "a.py").read_bytes() == b"x = 1\ny = 3\n# \xff\n"
    assert (root / "a.py").stat().st_mode & 0o777 == 0o750


async def test_edit_says_what_is_wrong(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "a").write_text("one two one")

    assert "does not occur in a" in await failure(ctx, "edit_file", path="a", old="three", new="")
    assert "occurs 2 times" in await failure(ctx, "edit_file", path="a", old="one", new="1")
    assert "the same" in await failure(ctx, "edit_file", path="a", old="one", new="one")
    assert "no 'b'" in await failure(ctx, "edit_file", path="b", old="one", new="1")
    assert (root / "a").read_text() == "one two one"
    assert await call(ctx, "edit_file", path="a", old="one", new="1", replace_all=True) == (
        "Replaced 2 occurrences in a, the first at line 1."
    )
    assert (root / "a").read_text() == "1 two 1"


async def test_edit_in_a_file_of_crlf_lines_keeps_them(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "dos.txt").write_bytes(b"a\r\nb\r\nc\r\n")

    await call(ctx, "edit_file", path="dos.txt", old="a\nb\n", new="a\nB\nb\n")

    assert (root / "dos.txt").read_bytes() == b"a\r\nB\r\nb\r\nc\r\n"


async def test_an_edit_can_not_blow_a_file_up(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "a").write_text("a" * 100_000)

    message = await failure(ctx, "edit_file", path="a", old="a", new="b" * 100_000, replace_all=True)

    assert "would become larger" in message
    assert (root / "a").stat().st_size == 100_000


async def test_content_past_the_limit_is_refused_and_leaves_nothing(root: Path, ctx: RunContext[ToolContext]) -> None:
    message = await failure(ctx, "write_file", path="new/a", content="x" * (limits.WRITE_BYTES_MAX + 1))

    assert "larger than" in message
    assert list(root.iterdir()) == []


# ── Listing and searching ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tree(root: Path) -> Path:
    for path, text in {
        "README.md": "Hello\n",
        "src/main.py": "import os\nprint('hello')\n",
        "src/deep/util.py": "HELLO = 1\n",
        "src/app.ts": "hello\n",
        ".git/objects/aa": "hello\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


async def test_list_shows_a_folder_or_all_below(tree: Path, ctx: RunContext[ToolContext]) -> None:
    assert await call(ctx, "list_files") == ".git/\nREADME.md\t6\nsrc/"
    assert await call(ctx, "list_files", path="src") == "src/app.ts\t6\nsrc/deep/\nsrc/main.py\t25"
    assert await call(ctx, "list_files", path=".", recursive=True) == (
        ".git/\nREADME.md\t6\nsrc/\nsrc/app.ts\t6\nsrc/deep/\nsrc/deep/util.py\t10\nsrc/main.py\t25"
    )
    assert "not a folder" in await failure(ctx, "list_files", path="README.md")
    assert "no 'docs'" in await failure(ctx, "list_files", path="docs")


async def test_a_listing_is_bounded_and_says_so(root: Path, ctx: RunContext[ToolContext]) -> None:
    for number in range(limits.LIST_ENTRIES_MAX + 5):
        (root / f"{number:05}").touch()

    lines = (await call(ctx, "list_files")).splitlines()

    assert len(lines) == limits.LIST_ENTRIES_MAX + 1
    assert lines[-1] == f"[only the first {limits.LIST_ENTRIES_MAX} are shown]"


async def test_an_empty_workspace_says_so(ctx: RunContext[ToolContext]) -> None:
    assert await call(ctx, "list_files") == "[The folder is empty.]"
    assert await call(ctx, "search_files", pattern="x") == "[No line matches.]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"pattern": "hello"}, ["src/app.ts:1: hello", "src/main.py:2: print('hello')"]),
        ({"pattern": "(?i)^hello"}, ["README.md:1: Hello", "src/app.ts:1: hello", "src/deep/util.py:1: HELLO = 1"]),
        ({"pattern": "os$"}, ["src/main.py:1: import os"]),
        ({"pattern": "os\\s+print"}, ["[No line matches.]"]),
        ({"pattern": "hello", "glob": "*.py"}, ["src/main.py:2: print('hello')"]),
        ({"pattern": "(?i)hello", "glob": "src/*.py"}, ["src/main.py:2: print('hello')"]),
        (
            {"pattern": "(?i)hello", "glob": "src/**/*.py"},
            ["src/deep/util.py:1: HELLO = 1", "src/main.py:2: print('hello')"],
        ),
        ({"pattern": "(?i)hello", "glob": "*.{ts,md}"}, ["README.md:1: Hello", "src/app.ts:1: hello"]),
        ({"pattern": "hello", "glob": "[!m]*.[pt]s"}, ["src/app.ts:1: hello"]),
        ({"pattern": "(?i)hello", "path": "src/deep"}, ["src/deep/util.py:1: HELLO = 1"]),
        ({"pattern": "hello", "path": "src/app.ts"}, ["src/app.ts:1: hello"]),
        ({"pattern": "hello", "path": ".git"}, [".git/objects/aa:1: hello"]),
    ],
)
async def test_search_finds_lines(
    tree: Path, ctx: RunContext[ToolContext], arguments: dict[str, Any], expected: list[str]
) -> None:
    assert (await call(ctx, "search_files", **arguments)).splitlines() == expected


async def test_search_numbers_lines_and_finds_each_once(root: Path, ctx: RunContext[ToolContext]) -> None:
    # Longer than several windows of matching, with a match in the last line, which has no end.
    lines = [f"{'needle needle' if number % 997 == 0 else 'hay'} {number}" for number in range(1, 60_001)]
    (root / "hay").write_text("\n".join(lines) + "\nneedle")

    found = (await call(ctx, "search_files", pattern="needle")).splitlines()

    expected = [f"hay:{number}: needle needle {number}" for number in range(997, 60_001, 997)]
    assert found == [*expected, "hay:60001: needle"]


async def test_search_skips_binary_files_and_cuts_long_lines(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "a.bin").write_bytes(b"\0needle")
    (root / "min.js").write_text("x" * 200_000 + "needle" + "y" * 200_000)

    (line,) = (await call(ctx, "search_files", pattern="needle")).splitlines()

    assert line.startswith("min.js:1: …xxx")
    assert "xneedley" in line
    assert line.endswith("y…")
    assert len(line) < limits.SEARCH_LINE_BYTES_MAX + 20


async def test_search_gives_so_many_lines_and_no_more(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "a").write_text("x\n" * 100_000)

    lines = (await call(ctx, "search_files", pattern="x")).splitlines()

    assert len(lines) == limits.SEARCH_MATCHES_MAX + 1
    assert lines[-1] == f"[only the first {limits.SEARCH_MATCHES_MAX} lines are shown]"


@pytest.mark.parametrize("pattern", ["(a", "*a", "(?=a)", "(a)\\1", "a{5000}", "\\pL{900}", "[z-a]", "x" * 2000])
async def test_a_pattern_that_is_not_valid_is_explained(ctx: RunContext[ToolContext], pattern: str) -> None:
    assert (await failure(ctx, "search_files", pattern=pattern)).startswith("The pattern ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*c", "(a|aa)+$", "(.*)*x", "(a|b)*a(a|b){900}c", "a.{1000}c", "((a?){30}){30}c"]
)
async def test_no_pattern_hangs_a_search_or_the_event_loop(
    root: Path, ctx: RunContext[ToolContext], monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    (root / "line").write_text("ab" * 500_000 + "!")
    latest, stalled_s = time.monotonic(), 0.0

    async def watch() -> None:
        nonlocal latest, stalled_s
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            stalled_s, latest = max(stalled_s, now - latest), now

    monkeypatch.setattr(limits, "FILE_TIME_S", 2.0)
    watcher = asyncio.create_task(watch())
    try:
        result = await call(ctx, "search_files", pattern=pattern)
    finally:
        watcher.cancel()

    assert "No line matches" in result
    assert stalled_s < 1.0


@pytest.mark.parametrize(
    "glob", ["*a" * 40, "**/" * 60 + "x", "{" * 300, "[" * 300, "{a,b}" * 100, "[!", "[a\\]*", "}{,"]
)
async def test_no_glob_hangs_a_search(root: Path, ctx: RunContext[ToolContext], glob: str) -> None:
    (root / ("a" * 250)).write_text("x")

    assert await call(ctx, "search_files", pattern="x", glob=glob) in ("[No line matches.]", f"{'a' * 250}:1: x")


@pytest.mark.slow
async def test_a_search_that_is_cancelled_ends_its_thread(root: Path, ctx: RunContext[ToolContext]) -> None:
    for number in range(40):
        (root / f"{number}").write_text("ab" * 500_000)
    toolset = FileTools()
    tool = (await toolset.get_tools(ctx))["search_files"]
    task = asyncio.create_task(toolset.call_tool("search_files", {"pattern": "(a|b)*a(a|b){900}c"}, ctx, tool))
    await asyncio.sleep(0.2)
    began = time.monotonic()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert time.monotonic() - began < 0.5
    await asyncio.sleep(1.5)  # The window of text that it was at, and then some.
    used_s = time.process_time()
    await asyncio.sleep(0.5)
    assert time.process_time() - used_s < 0.2


# ── Escapes and traps ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "a/../../secret.txt",
        "/etc/passwd",
        "/workspace/../secret.txt",
        "/workspacex/a",
        "//workspace/a",
        "/proc/self/root/etc/passwd",
        "to_secret",
        "to_outside/secret.txt",
        "to_etc/passwd",
        "chain",
        "to_proc/self/root/etc/passwd",
    ],
)
async def test_no_tool_leaves_the_workspace(root: Path, ctx: RunContext[ToolContext], path: str) -> None:
    outside = root.parent
    (outside / "secret.txt").write_text("secret")
    (root / "a").mkdir()
    (root / "to_secret").symlink_to("../secret.txt")
    (root / "to_outside").symlink_to(outside)
    (root / "to_etc").symlink_to("/etc")
    (root / "to_proc").symlink_to("/proc")
    (root / "chain").symlink_to("a/chain")
    (root / "a/chain").symlink_to("../to_secret")

    for name, arguments in {
        "read_file": {},
        "write_file": {"content": "mine"},
        "edit_file": {"old": "secret", "new": "mine"},
        "list_files": {},
        "search_files": {"pattern": "."},
    }.items():
        assert "outside" in await failure(ctx, name, path=path, **arguments)
    assert (outside / "secret.txt").read_text() == "secret"
    assert "secret" not in await call(ctx, "search_files", pattern="secret")
    assert await call(ctx, "list_files", recursive=True) == "a/"


async def test_a_fifo_hangs_no_tool(root: Path, ctx: RunContext[ToolContext]) -> None:
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to("pipe")

    for path in ("pipe", "link"):
        assert "not a regular file" in await failure(ctx, "read_file", path=path)
        assert "not a regular file" in await failure(ctx, "write_file", path=path, content="x")
        assert "not a regular file" in await failure(ctx, "edit_file", path=path, old="x", new="y")
    assert await call(ctx, "list_files") == "[The folder is empty.]"
    assert await call(ctx, "search_files", pattern=".") == "[No line matches.]"


async def test_a_folder_is_no_file(root: Path, ctx: RunContext[ToolContext]) -> None:
    (root / "d").mkdir()

    assert "is a folder" in await failure(ctx, "read_file", path="d")
    assert "is a folder" in await failure(ctx, "write_file", path="d", content="x")
    assert "names no file" in await failure(ctx, "write_file", path="", content="x")


@pytest.mark.parametrize("path", ["a\0b", "a" * 300, "a/" * 3000, "\ud800", "\\x00", "\\x2e\\x2e/secret"])
async def test_a_path_that_can_not_be_is_explained(ctx: RunContext[ToolContext], path: str) -> None:
    for name, arguments in {"read_file": {}, "write_file": {"content": "x"}, "list_files": {}}.items():
        try:
            message = await failure(ctx, name, path=path, **arguments)
        except ValidationError:  # pydantic takes no lone surrogate for text.
            continue
        assert len(message) < 300


async def test_a_name_that_is_not_utf8_is_shown_and_can_be_used(root: Path, ctx: RunContext[ToolContext]) -> None:
    os.close(os.open(os.fsencode(root) + b"/caf\xe9\n.txt", os.O_CREAT | os.O_WRONLY))

    shown = (await call(ctx, "list_files")).split("\t")[0]

    assert shown == "caf\\xe9\\x0a.txt"
    await call(ctx, "write_file", path=shown, content="bytes")
    assert await call(ctx, "read_file", path=shown) == "bytes"
    assert await call(ctx, "search_files", pattern="bytes") == f"{shown}:1: bytes"
    assert os.listdir(os.fsencode(root)) == [b"caf\xe9\n.txt"]  # noqa: PTH208


async def test_the_scope_of_the_session_holds(root: Path) -> None:
    ctx = context(root, FileAccess.parse({"read": ["pub", "in"], "write": ["out"]}))
    for folder in ("pub", "pub2", "in", "out"):
        (root / folder).mkdir()
        (root / folder / "a").write_text(f"needle {folder}")
    (root / "pub/link").symlink_to("../pub2/a")

    assert await call(ctx, "read_file", path="pub/a") == "needle pub"
    for path in ("pub2/a", "out/a", "pub/link", "pub/../out/a", "nothing"):
        assert "outside what this session may use" in await failure(ctx, "read_file", path=path)
    assert await call(ctx, "search_files", pattern="needle") == "in/a:1: needle in\npub/a:1: needle pub"
    assert await call(ctx, "list_files", recursive=True) == "in/\nin/a\t9\npub/\npub/a\t10"
    assert await call(ctx, "write_file", path="out/b", content="x") == "Created out/b (1 bytes)."
    for path in ("pub/a", "pub/b", "new/b"):
        assert "outside what this session may use" in await failure(ctx, "write_file", path=path, content="x")
    assert "outside" in await failure(ctx, "edit_file", path="pub/a", old="needle", new="x")
    assert sorted(path.name for path in root.iterdir()) == ["in", "out", "pub", "pub2"]
