"""What runs the pages' blocks: a block that fails, or shows what was not printed, fails its page."""

from pathlib import Path

import pytest

from docs import blocks
from docs.blocks import Block, blocks_of
from docs.shell import Shell
from docs.test_pages import assert_shown


def shown(code: str) -> Block:
    return Block("page.md", 1, "text", {"output": ""}, code)


@pytest.mark.parametrize(
    "code",
    ["one\n", "one\n…\nthree\n", "o…\nt…\n", "  one\n", "…\n", "two words\n", "two …\nthree\n"],
)
def test_what_was_printed_in_this_order_is_shown_rightly(code: str) -> None:
    assert_shown(shown(code), "one\ntwo words\nthree\n")


@pytest.mark.parametrize("code", ["four\n", "three\none\n", "two\n", "on\n", "one …\n", "one\none\n"])
def test_what_was_not_printed_or_in_another_order_fails(code: str) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:1 shows"):
        assert_shown(shown(code), "one\ntwo words\nthree\n")


@pytest.mark.parametrize(
    "script",
    ["false\n", "false | cat\n", 'echo "$never_set"\n', "echo one\nfalse\necho two\n", "exit 3\n", "python -c 'x'\n"],
)
def test_a_block_that_fails_fails_its_page(script: str, tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        with pytest.raises(AssertionError, match=r"page\.md:7: it failed"):
            shell.run(script, "page.md:7")


def test_blocks_share_a_shell_and_python_sees_what_it_exports(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        shell.run("word=hello; export WORD=$word; cd / && cd - > /dev/null")

        assert shell.run('echo "$word"') == "hello\n"
        assert shell.run_python("import os; print(os.environ['WORD'], os.getcwd())") == f"hello {shell.folder}\n"


def test_a_block_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        with pytest.raises(AssertionError, match="no end after"):
            shell.run("sleep 60", timeout_s=0.3)


PAGES = {
    "no-run without a reason: ```bash no-run\n```\n": "'no-run' is unknown",
    "a word that is none: ```bash sever\n```\n": "'sever' is unknown",
    "not closed: ```bash\necho\n": "is not closed",
}


@pytest.mark.parametrize("text", PAGES)
def test_a_fence_that_cannot_be_understood_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.md").write_text(text.partition(": ")[2])
    monkeypatch.setattr(blocks, "ROOT", tmp_path)

    with pytest.raises(ValueError, match=PAGES[text]):
        blocks_of("page.md")


def test_a_block_is_read_with_what_its_fence_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text(
        'x\n\n```toml settings file="a b.toml"\nport = 1\n```\n\n  ```text\n  in\n    deep\n  ```\n'
    )
    monkeypatch.setattr(blocks, "ROOT", tmp_path)

    first, second = blocks_of("page.md")

    assert first == Block("page.md", 4, "toml", {"settings": "", "file": "a b.toml"}, "port = 1\n")
    assert (second.language, second.code) == ("text", "in\n  deep\n")
