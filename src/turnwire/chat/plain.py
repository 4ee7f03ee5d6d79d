"""Text of models and files, made harmless for a terminal."""

import json
import re
import time
from typing import Any

BAD = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1: with them a terminal is remote-controlled
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"  # what makes text read in another order than it is
    r"\U000e0000-\U000e007f\ud800-\udfff]"  # tags that nobody sees; halves of characters
)
BREAKS = re.compile("[\u2028\u2029]")
UNSEEN = re.compile("[\xad\u034f\u115f\u1160\u180e\u200b\u2060-\u2065\u206a-\u206f\u3164\uffa0]")
"""What takes no room, or that of a space, where no script needs it."""


def plain(text: str) -> str:
    """The text without control characters. Of any two pieces it is the sum of theirs: it can be used on deltas."""
    return BAD.sub("", BREAKS.sub("\n", text) if not text.isascii() else text)


def one_line(text: str, characters_max: int = 500) -> str:
    """Harmless, and on one line."""
    cut = text[: 4 * characters_max]
    line = " ".join(plain(cut).split())
    return line if len(line) <= characters_max and len(cut) == len(text) else line[:characters_max] + "…"


def visible(text: str) -> str:
    """The same, with an escape in the place of each such character and of others that nobody sees: for what a person
    has to judge."""
    return UNSEEN.sub(_escape, BAD.sub(_escape, BREAKS.sub(r"\\u2028", text)))


def json_line(value: Any, encoding: str = "utf-8") -> str:
    """`value` as JSON on one line, for a stream of this encoding: it is valid and harmless on a terminal, too."""
    if not encoding.lower().replace("-", "").startswith("utf"):
        return json.dumps(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() and text.isprintable() else BREAKS.sub(_json_escape, BAD.sub(_json_escape, text))


def moment(time_s: float) -> str:
    """A time of the epoch as people read it, here."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))
    except (OverflowError, ValueError, OSError):  # servers may say anything
        return "?"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _json_escape(found: re.Match[str]) -> str:
    return json.dumps(found[0]).strip('"') if found[0] != "\x7f" else r"\u007f"
