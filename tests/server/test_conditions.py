"""Conditional headers as hostile callers write them."""

import time

import pytest
from starlette.datastructures import Headers

from turnwire.server.conditions import Conditions


@pytest.mark.parametrize(
    "value",
    [f'"a"{" " * 60_000}x', f"{' ' * 60_000}x", '"   ' * 15_000, "W/" * 30_000, '"' + "a" * 60_000, '""x' * 20_000],
)
def test_a_header_takes_time_in_proportion_to_its_length(value: str) -> None:
    """Nothing else is served meanwhile."""
    began = time.process_time()
    Conditions.of(Headers({"If-Match": value, "If-None-Match": value}))

    assert time.process_time() - began < 1


def test_tags_are_found_with_and_without_space_around_them() -> None:
    for value in ('"a","b",W/"c"', '  "a" , "b" ,W/"c"  ', '"a"\t,\t"b",, W/"c"'):
        tags = Conditions.of(Headers({"If-Match": value})).if_match
        assert tags is not None
        assert (tags.strong, tags.weak) == ({"a", "b"}, {"c"})
