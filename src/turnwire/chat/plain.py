"""Text of models and files, made harmless for a terminal."""

import re

BAD = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1: with them a terminal is remote-controlled
    r"\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"  # what makes text read in another order than it is
    r"\U000e0000-\U000e007f\ud800-\udfff]"  # tags that nobody sees; halves of characters
)
BREAKS = re.compile("[\u2028\u2029]")


def plain(text: str) -> str:
    """The text without control characters. Of any two pieces it is the sum of theirs: it can be used on deltas."""
    return BAD.sub("", BREAKS.sub("\n", text) if not text.isascii() else text)


def one_line(text: str, characters_max: int = 500) -> str:
    """Harmless, and on one line."""
    cut = text[: 4 * characters_max]
    line = " ".join(plain(cut).split())
    return line if len(line) <= characters_max and len(cut) == len(text) else line[:characters_max] + "…"


def visible(text: str) -> str:
    """The same, with an escape in the place of each such character: for what a person has to judge."""
    return BAD.sub(lambda found: found[0].encode("unicode_escape").decode(), BREAKS.sub(r"\\u2028", text))
