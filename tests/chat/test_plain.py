"""What models and files say controls no terminal."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire.chat.plain import json_line, moment, one_line, plain, visible


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    for left in plain(text):
        assert left in "\n\t" or unicodedata.category(left) not in ("Cc", "Cs"), hex(ord(left))


def test_sequences_for_terminals_are_only_text_then() -> None:
    assert plain("a\x1b[31mb\x1b]0;title\x07c\x9b2Jd\x90e\r\x08\x7ff") == "a[31mb]0;titlec2Jdef"
    assert plain("\u202eevil\u2066\ufeff\u200f") == "evil"
    assert plain("one\u2028two\ttabs\nand 漢字 é 🙂") == "one\ntwo\ttabs\nand 漢字 é 🙂"


@given(st.text(), st.text())
def test_it_may_be_used_on_deltas(one: str, two: str) -> None:
    assert plain(one + two) == plain(one) + plain(two)


def test_one_line_is_short() -> None:
    assert one_line("a\n b\x1b\t c") == "a b c"
    assert one_line("x" * 600) == "x" * 500 + "…"
    assert len(one_line("\n" * 10**7 + "x", 20)) <= 21


@given(st.text())
def test_what_a_person_judges_has_nothing_left_out(text: str) -> None:
    assert visible(text) == visible(plain(text)) or len(visible(text)) > len(plain(text))
    assert visible("rm \u202etxt\x1b[2K") == "rm \\u202etxt\\x1b[2K"
    assert visible("x\u200by\u061cz\u3164") == "x\\u200by\\u061cz\\u3164"


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "ascii", "iso-8859-1"])
@given(value=st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_is_whole_on_one_line_and_controls_nothing(value: Any, encoding: str) -> None:
    line = json_line(value, encoding)

    assert json.loads(line.encode(encoding, "backslashreplace").decode(encoding)) == value
    assert plain(line) == line
    assert "\n" not in line


@pytest.mark.parametrize("time_s", [1e20, -1e20, float("inf"), float("nan")])
def test_a_time_that_is_none_is_no_failure(time_s: float) -> None:
    assert moment(time_s) == "?"
