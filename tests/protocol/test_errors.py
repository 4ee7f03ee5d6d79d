"""The error tree: names and statuses are those of the contract's section 3, and each has a sentence to show."""

import re

import pytest

from turnwire.protocol import errors
from turnwire.protocol.errors import ERRORS, SessionBusy, TurnwireError

CONTRACT = {
    "invalid_request": 400,
    "unauthorized": 401,
    "insufficient_credits": 402,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "session_busy": 409,
    "conflict": 409,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "idempotency_mismatch": 422,
    "rate_limited": 429,
    "insufficient_storage": 507,
    "internal_error": 500,
    "unavailable": 503,
}


def descendants(cls):
    return [
        cls for sub in cls.__subclasses__() if sub.__module__ == errors.__name__ for cls in (sub, *descendants(sub))
    ]


def test_names_and_statuses_are_those_of_the_contract():
    assert {name: cls.status for name, cls in ERRORS.items()} == CONTRACT


def test_every_error_of_the_tree_is_listed_under_a_name_of_its_own():
    tree = descendants(TurnwireError)

    assert sorted(cls.name for cls in tree) == sorted(CONTRACT)
    assert all(ERRORS[cls.name] is cls for cls in tree)


def test_the_tree_drawn_at_the_head_is_the_tree():
    drawn = re.findall(r"─ (\w+) +(\d{3}) (\w+)", errors.__doc__)

    assert {(cls, int(status), name) for cls, status, name in drawn} == {
        (cls.__name__, cls.status, cls.name) for cls in descendants(TurnwireError)
    }
    assert len(drawn) == len(CONTRACT)


@pytest.mark.parametrize("cls", descendants(TurnwireError))
def test_an_errors_docstring_is_one_sentence_and_its_message(cls):
    assert re.fullmatch(r"[A-Z][^\n]{14,}\.", cls.__dict__["__doc__"])
    assert cls().message == str(cls()) == cls.__doc__


def test_an_error_carries_its_own_words_and_what_the_headers_need():
    error = SessionBusy("Wait.", retry_after_s=3, response_id="msg_1")

    assert (error.message, error.retry_after_s, error.response_id) == ("Wait.", 3, "msg_1")
    assert (SessionBusy().retry_after_s, SessionBusy().response_id) == (None, None)


def test_a_busy_session_is_a_conflict_and_a_broken_grammar_is_no_answer():
    assert issubclass(SessionBusy, errors.Conflict)
    assert not issubclass(errors.ProtocolError, TurnwireError)
    assert issubclass(errors.LocalProtocolError, errors.ProtocolError)
    assert issubclass(errors.RemoteProtocolError, errors.ProtocolError)
