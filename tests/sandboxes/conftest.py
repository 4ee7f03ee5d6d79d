"""A server's machine, for each kind of user that a server may be."""

from collections.abc import Iterator

import pytest

from sandboxes.helpers import USERS, Machine, machine


@pytest.fixture(params=USERS, ids=lambda user: f"{user} user")
def box(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with machine(request.param) as made:
        # The server's environment, which it hands on to nobody.
        monkeypatch.setenv("TURNWIRE_API_KEY", made.secret)
        yield made
