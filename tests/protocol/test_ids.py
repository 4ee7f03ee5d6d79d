"""Ids are of the form that the contract gives, and none comes twice."""

import re

import pytest

from turnwire.protocol import ids


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (ids.new_session_id, r"sess_[0-9a-f]{12}"),
        (ids.new_response_id, r"msg_[0-9a-f]{24}"),
        (ids.new_message_id, r"msg_[0-9a-f]{24}"),
        (ids.new_call_id, r"call_[0-9a-f]{24}"),
        (ids.new_request_id, r"req_[0-9a-f]{24}"),
    ],
)
def test_an_id_has_its_form_and_never_comes_twice(make, form):
    made = [make() for _ in range(2000)]

    assert all(re.fullmatch(form, id_) for id_ in made)
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("pattern", "good"),
    [
        (ids.SESSION_ID, "sess_0123456789ab"),
        (ids.RESPONSE_ID, "msg_0123456789abcdef01234567"),
        (ids.CALL_ID, "call_0123456789abcdef01234567"),
    ],
)
def test_a_pattern_takes_the_whole_id_and_nothing_like_it(pattern, good):
    bad = [good[:-1], good + "0", good.upper(), good[:-1] + "g", "x" + good, good + "\n", ""]

    assert pattern.fullmatch(good)
    assert not [text for text in bad if pattern.fullmatch(text)]
