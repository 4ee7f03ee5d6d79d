"""Patterns that a model wrote, for RE2: time is linear in the text, so none can hang a search.

`re2` hands Python's lock back while it matches, so that a slow pattern does not stop the event loop either.
"""

import importlib
from collections.abc import Iterator
from typing import Any, Protocol, cast

from turnwire.seams.tool import ToolFailed
from turnwire.tools import limits

re2: Any = importlib.import_module("re2")  # It comes without types; those of what is used of it are below.


class Found(Protocol):
    """A match: `span()` in bytes."""

    def span(self) -> tuple[int, int]: ...


class Pattern(Protocol):
    """A compiled pattern over bytes."""

    def search(self, text: bytes, pos: int, endpos: int) -> Found | None: ...

    def fullmatch(self, text: bytes) -> Found | None: ...


def compile_pattern(pattern: str) -> Pattern:
    """A pattern to search lines by: `^` and `$` are a line's ends, and no match goes over a line's end.

    Raises ToolFailed, with a sentence that says what is wrong.
    """
    return _compile("(?m)" + pattern, pattern)


def _compile(source: str, shown: str) -> Pattern:
    if len(shown) > limits.PATTERN_CHARS_MAX:
        raise ToolFailed(f"The pattern is {len(shown)} characters long; {limits.PATTERN_CHARS_MAX} is the most.")
    options = re2.Options()
    options.max_mem = limits.PATTERN_MEMORY_BYTES_MAX
    options.never_nl = True
    options.never_capture = True
    options.log_errors = False
    try:
        return cast(Pattern, re2.compile(source.encode(), options))
    except UnicodeEncodeError as error:
        raise ToolFailed("The pattern can't hold half of a surrogate pair.") from error
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else "syntax error"
        raise ToolFailed(
            f"The pattern {shown!r} is not valid: {reason}. It must be an RE2 regular expression "
            "(no look-around, no back-references); write \\( for a literal parenthesis."
        ) from error
    finally:
        re2.purge()  # Its cache would keep 128 patterns of strangers, each with its megabyte.


def find_lines(pattern: Pattern, text: bytes) -> Iterator[tuple[int, int, int, int] | None]:
    """The lines of `text` that match: (line number from 1, line's start, its end without LF, the match's start).

    Yields None between windows of text, so that the caller can look at the clock. A line longer than a window is
    matched in pieces.
    """
    line, counted, position = 1, 0, 0
    while position < len(text):
        window = _window_end(text, position)
        found = pattern.search(text, position, window)
        if found is None:
            position = window
            yield None
            continue
        at = found.span()[0]
        start = text.rfind(b"\n", 0, at) + 1
        end = text.find(b"\n", at)
        end = len(text) if end < 0 else end
        line += text.count(b"\n", counted, start)
        counted = start
        yield line, start, end, at
        position = end + 1


def _window_end(text: bytes, position: int) -> int:
    """A line's end, about a window further on; within a very long line, just a window further on."""
    furthest = position + limits.SEARCH_WINDOW_BYTES
    if furthest >= len(text):
        return len(text)
    line_end = text.rfind(b"\n", position, furthest)
    return furthest if line_end < 0 else line_end + 1


def compile_glob(glob: str) -> Pattern:
    """A glob over whole paths: `*` and `?` stay within a component, `**` does not, `[…]` and `{a,b}` are as in shells.

    Without a slash it is about names in any folder, as in .gitignore. Raises ToolFailed.
    """
    anywhere = "" if "/" in glob else "(?:.*/)?"
    return _compile(f"(?s){anywhere}{_glob_source(glob.removeprefix('/'))}", glob)


def _glob_source(glob: str) -> str:
    source: list[str] = []
    position, braces = 0, 0
    while position < len(glob):
        taken, piece = _glob_piece(glob, position, braces)
        braces += {"(?:": 1, ")": -1}.get(piece, 0)
        source.append(piece)
        position += taken
    return "".join(source) + ")" * braces


def _glob_piece(glob: str, position: int, braces: int) -> tuple[int, str]:
    """How many characters of the glob the next piece takes, and what it is in RE2."""
    rest = glob[position:]
    if rest.startswith("**/"):
        return 3, "(?:.*/)?"
    if rest.startswith("**"):
        return 2, ".*"
    match rest[0]:
        case "*":
            return 1, "[^/]*"
        case "?":
            return 1, "[^/]"
        case "[" if (end := rest.find("]", 2)) > 0:
            inner = rest[1:end].replace("\\", "\\\\").replace("[", "\\[")
            return end + 1, f"[{'^' + inner[1:] if inner[0] in '!^' else inner}]"
        case "{":
            return 1, "(?:"
        case "}" if braces:
            return 1, ")"
        case "," if braces:
            return 1, "|"
        case other:
            return 1, re2.escape(other)
