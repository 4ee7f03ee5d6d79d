"""Which server, and which key: a key of the environment goes to its own server alone."""

import pytest

from turnwire import Client, ClientError
from turnwire.client.address import find_server, is_local

TURNWIRE = {"TURNWIRE_URL": "http://ours:8080/", "TURNWIRE_KEY": "ours"}
POKEE = {"POKEE_API": "https://theirs.example", "POKEE_KEY": "theirs"}


@pytest.mark.parametrize(
    ("url", "key", "environ", "found"),
    [
        ("http://given:1", "given", TURNWIRE | POKEE, ("http://given:1", "given")),
        (None, None, TURNWIRE, ("http://ours:8080", "ours")),
        (None, None, POKEE, ("https://theirs.example", "theirs")),
        (None, None, TURNWIRE | POKEE, ("http://ours:8080", "ours")),
        (None, None, {"TURNWIRE_URL": "http://ours:8080"} | POKEE, ("http://ours:8080", None)),
        (None, "given", POKEE, ("https://theirs.example", "given")),
        ("https://theirs.example/", None, TURNWIRE | POKEE, ("https://theirs.example", "theirs")),
        ("http://given:1", None, TURNWIRE | POKEE, ("http://given:1", None)),
        ("http://given:1", None, {"TURNWIRE_KEY": "ours"}, ("http://given:1", "ours")),
        ("http://given:1", None, {"POKEE_KEY": "theirs"}, ("http://given:1", None)),
        ("http://given:1", " tw_a_b\n", {}, ("http://given:1", "tw_a_b")),
        ("http://given:1/below/", "k", {}, ("http://given:1/below", "k")),
    ],
)
def test_address_and_key_are_found(
    url: str | None, key: str | None, environ: dict[str, str], found: tuple[str, str | None]
) -> None:
    assert find_server(url, key, environ) == found


def test_without_an_address_it_is_said_what_to_set() -> None:
    with pytest.raises(ClientError, match=r"set TURNWIRE_URL \(or POKEE_API\)"):
        find_server(None, None, {"TURNWIRE_KEY": "x"})


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x:99999", "http://[::1", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address of a server"):
        find_server(url, "k", {})


def test_the_variable_that_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"^TURNWIRE_URL: 'here'"):
        find_server(None, None, {"TURNWIRE_URL": "here"})


def test_a_key_that_no_header_carries_is_refused() -> None:
    with pytest.raises(ValueError, match="no header can carry"):
        Client("http://127.0.0.1:1", "a\nb")


@pytest.mark.parametrize(
    ("url", "local"),
    [("http://127.0.0.1:1", True), ("http://localhost", True), ("http://[::1]:1", True), ("http://example.com", False)],
)
def test_servers_of_this_machine_are_known(url: str, local: bool) -> None:
    assert is_local(url) == local
