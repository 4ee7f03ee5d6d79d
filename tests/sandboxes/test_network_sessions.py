"""Sessions with and without a network, through a real server."""

from collections.abc import Iterator

import pytest

from files.served import Files, Served
from turnwire.sandboxes.bubblewrap import Bubblewrap

pytestmark = pytest.mark.slow

LINKS = "ls /proc/sys/net/ipv4/conf | xargs"


@pytest.fixture(scope="module", params=["off", "session", "on"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"), {"TURNWIRE_SANDBOX_NETWORK": request.param})
    yield made
    made.close()


def links(files: Files) -> str:
    """What links a command of the session has."""
    message = f'/call bash {{"command": "{LINKS}"}}'
    answer = files.server.client.post(f"/v1/sessions/{files.id}/messages", json={"message": message})
    assert answer.status_code == 200, answer.text
    return "eth0" if "all default eth0 lo" in answer.text else "lo" if "all default lo" in answer.text else answer.text


@pytest.mark.tool("bwrap")
def test_a_session_has_the_network_that_it_and_the_setting_say(server: Served) -> None:
    rule = server.env["TURNWIRE_SANDBOX_NETWORK"]
    there = Bubblewrap(network="on").status.network
    assert there.by or there.todo
    refused = server.client.post("/v1/sessions", json={"network": True})
    if rule == "off" or not there.by:
        assert refused.status_code == 403
        assert refused.json()["error"] == "forbidden"
        assert ("sandbox_network is off" if rule == "off" else "turnwire doctor") in refused.json()["message"]
    else:
        assert links(server.session(network=True)) == "eth0"

    assert links(server.session(network=False)) == "lo"
    assert links(server.session()) == ("eth0" if rule == "on" and there.by else "lo")


def test_a_network_that_is_no_boolean_is_refused(server: Served) -> None:
    answer = server.client.post("/v1/sessions", json={"network": "yes"})

    assert answer.status_code == 400
    assert "network" in answer.json()["message"]


def test_null_leaves_it_to_the_server(server: Served) -> None:
    assert server.client.post("/v1/sessions", json={"network": None}).status_code == 201
