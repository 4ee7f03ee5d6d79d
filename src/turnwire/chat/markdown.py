"""Finished pieces as rows of a terminal. Imported late: rich's Markdown and Pygments take some 65 ms."""

from typing import Any, ClassVar

from rich import markdown as rich_markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

from turnwire.chat.blocks import Code, Piece, parser
from turnwire.chat.plain import plain

HIGHLIGHTED_LINES_MAX = 400
"""A fence's colours are found from its first line on, each time that lines of it are printed. Behind so many lines, or
characters, it goes on without colours."""

HIGHLIGHTED_CHARACTERS_MAX = 20_000

PREVIEWED_CHARACTERS_MAX = 4000
"""Of a longer open block its end alone is shown, as it stands: it is drawn several times a second."""

LEVELS_MAX = 16
"""What is nested deeper is shown as it stands: no columns would be left for it, and the parser gives up at 20."""

CODE_THEME = "ansi_dark"
"""The terminal's own sixteen colours, so that it can be read on light and on dark."""

Row = list[Segment]

PARSER = parser()


class _Heading(rich_markdown.Heading):
    LEVEL_ALIGN: ClassVar[Any] = {}


class _CodeBlock(rich_markdown.CodeBlock):
    """As it is, without a background: what is copied from the terminal is the code."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        yield _code(str(self.text).rstrip("\n"), self.lexer_name)


class _Rendered(rich_markdown.Markdown):
    """Of tokens from our own parser. The addresses of links are shown: what a link's text says may be anything."""

    elements: ClassVar[Any] = {
        **rich_markdown.Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
    }

    def __init__(self, source: str) -> None:
        super().__init__("", code_theme=CODE_THEME, hyperlinks=False)
        self.markup = source
        self.parsed = PARSER.parse(source)
        for token in self.parsed:
            for child in token.children or ():
                child.content = plain(child.content)  # once more: the parser has read "&#x202e;"
                if child.type == "image":  # a terminal shows none
                    child.type, child.tag = "text", ""
                    child.content = f"[image: {child.content}] ({child.attrs.get('src', '')})"
                    child.children = None


def rows_of(piece: Piece, console: Console) -> list[Row]:
    """A finished piece. Lines of code are not wrapped, so that they can be copied."""
    rows = [_row(text, console) for text in _code_lines(piece)] if isinstance(piece, Code) else []
    if not isinstance(piece, Code):
        rows = _markdown_rows(piece.source, console, console.width)
    return [[], *rows] if piece.gap and rows else rows


def preview_rows(piece: Piece, console: Console, width: int, rows_max: int) -> list[Row]:
    """The last rows of a piece that is not finished yet."""
    if isinstance(piece, Code):
        return [_row(text, console) for text in _code_lines(piece)[-rows_max:]]
    if len(piece.source) > PREVIEWED_CHARACTERS_MAX:
        end = piece.source[-width * (rows_max + 2) :]
        return _trimmed(console.render_lines(Text(end), console.options.update(width=width), pad=False))[-rows_max:]
    return _markdown_rows(piece.source, console, width)[-rows_max:]


def _markdown_rows(source: str, console: Console, width: int) -> list[Row]:
    options = console.options.update(width=width, height=None)
    rendered: Any = _Rendered(source)
    if any(token.level > LEVELS_MAX for token in rendered.parsed):
        rendered = Text(source)
    return _trimmed(console.render_lines(rendered, options, pad=False))


def _code_lines(piece: Code) -> list[Text]:
    before, lines = piece.before, piece.lines
    whole = [*before, *lines]
    if len(whole) > HIGHLIGHTED_LINES_MAX or sum(map(len, whole)) > HIGHLIGHTED_CHARACTERS_MAX:
        return [Text(line) for line in lines]
    # Pygments drops empty lines at the ends, so these are kept from being the ends.
    colored = list(_code("\n".join(whole), piece.language.partition(" ")[0]).split("\n", allow_blank=True))
    colored += [Text("")] * (len(whole) - len(colored))
    return colored[len(before) : len(whole)]


def _code(code: str, language: str) -> Text:
    return Syntax(code, language or "text", theme=CODE_THEME, background_color="default").highlight(code)


def _row(text: Text, console: Console) -> Row:
    text.expand_tabs(4)
    return [segment for segment in text.render(console) if segment.text != "\n"]


def _trimmed(lines: list[Row]) -> list[Row]:
    """Without the spaces at the ends of lines, and without empty lines at the ends."""
    rows = [_right_trimmed(line) for line in lines]
    while rows and not rows[-1]:
        rows.pop()
    first = next((number for number, row in enumerate(rows) if row), len(rows))
    return rows[first:]


def _right_trimmed(line: Row) -> Row:
    row = list(line)
    while row:
        text, style, control = row.pop()
        if control or (text := text.rstrip(" ")):
            return [*row, Segment(text, style or Style.null(), control)]
    return row
