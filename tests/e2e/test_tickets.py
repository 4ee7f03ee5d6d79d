"""Tickets: a turn followed by a URL alone, as a browser's EventSource does."""

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.browser import Pages
from e2e.harness import Api, Server


def read(api: Api, url: str, **more: Any) -> tuple[httpx.Response, bytes]:
    """A URL as it is, without any key."""
    with httpx.stream("GET", api.server.url + url, timeout=30, trust_env=False, **more) as response:
        return response, response.read()


def flipped(ticket: str, at: int) -> str:
    """The ticket with one bit of its byte `at` changed."""
    raw = bytearray(base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4)))
    raw[at] ^= 1
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_ticket_follows_its_turn_without_a_key(api: Api) -> None:
    session = api.create()["id"]
    turn = api.send(session, "hello there")
    path = f"/v1/sessions/{session}/responses/{turn.id}"

    answer = api.request("POST", f"{path}/ticket", status=200).json()
    response, content = read(api, answer["url"])

    assert answer["url"].startswith(f"{path}/events?ticket=")
    ended_at = api.get(path)["ended_at"]
    assert answer["expires_at"] == pytest.approx(ended_at + 600)
    assert api.check_stream(response, content) == turn.events
    assert content == api.follow(session, turn.id).content


def test_a_ticket_of_a_running_turn_lasts_beyond_the_longest_that_the_turn_may_take(api: Api) -> None:
    session = api.create()["id"]

    with api.sending(session, "/stream 60 100") as live:
        path = f"/v1/sessions/{session}/responses/{live.id}"
        answer = api.request("POST", f"{path}/ticket", status=200).json()
        response, content = read(api, answer["url"])
        assert answer["expires_at"] == pytest.approx(time.time() + 5400 + 600, abs=5)

    events = api.check_stream(response, content)
    assert events[-1][0] == "message.completed"
    assert len([name for name, _ in events if name == "text.delta"]) == 60
    # The same ticket, on: what a reconnecting EventSource does with its first URL.
    last = len(events) - 1
    _, rest = read(api, answer["url"], headers={"Last-Event-ID": str(last - 1)})
    assert rest.startswith(f"id: {last}\nevent: message.completed\n".encode())
    assert read(api, answer["url"], headers={"Last-Event-ID": str(last)})[0].status_code == 204
    assert read(api, f"{answer['url']}&last_event_id={last}")[0].status_code == 204


def test_a_ticket_opens_nothing_but_the_events_of_its_turn(api: Api) -> None:
    session = api.create()["id"]
    turn, other = api.send(session, "hello"), api.send(session, "more")
    ticket = api.ticket(session, turn.id).partition("?ticket=")[2]
    nobody = api.server.api(key="")
    base = f"/v1/sessions/{session}"

    for method, path in [
        ("GET", f"{base}/responses/{other.id}/events"),
        ("GET", f"{base}/responses/{turn.id}"),
        ("GET", f"{base}/responses"),
        ("GET", f"{base}/messages"),
        ("GET", base),
        ("GET", "/v1/sessions"),
        ("GET", f"{base}/files"),
        ("POST", f"{base}/responses/{turn.id}/cancel"),
        ("POST", f"{base}/responses/{turn.id}/ticket"),
        ("POST", f"{base}/messages"),
        ("DELETE", base),
    ]:
        nobody.refused(method, path, 401, "unauthorized", params={"ticket": ticket})
    # It is no key either.
    api.server.api(key=ticket).refused("GET", base, 401, "unauthorized")


def test_a_ticket_that_was_changed_is_refused(api: Api) -> None:
    session = api.create()["id"]
    turn = api.send(session, "hello")
    url, _, ticket = api.ticket(session, turn.id).partition("?ticket=")
    nobody = api.server.api(key="")
    length = len(base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4)))

    forged = [flipped(ticket, at) for at in (0, 31, 32, length // 2, length - 1)]
    cut = [ticket[:n] for n in (0, 1, 10, 43, 60, len(ticket) - 2)]
    for text in [*forged, *cut, ticket * 2, "\u00fc", "%00", "=", "junk", "A" * 10_000]:
        nobody.refused("GET", url, 401, "unauthorized", params={"ticket": text})
    nobody.refused("GET", url, 401, "unauthorized")


def test_a_ticket_of_another_tenant_or_another_server_is_refused(api: Api, serve: Callable[..., Server]) -> None:
    session = api.create()["id"]
    turn = api.send(session, "hello")
    stranger = api.server.api(api.server.run("keys", "create", "stranger", "--tenant", "stranger").split()[-1])
    elsewhere = serve().api()

    stranger.refused("POST", f"/v1/sessions/{session}/responses/{turn.id}/ticket", 404, "not_found")
    assert read(elsewhere, api.ticket(session, turn.id))[0].status_code == 401


def test_a_ticket_of_a_session_that_is_gone_finds_nothing(api: Api) -> None:
    session = api.create()["id"]
    turn = api.send(session, "hello")
    url = api.ticket(session, turn.id)
    api.request("DELETE", f"/v1/sessions/{session}", status=204)

    assert read(api, url)[0].status_code == 404


def test_a_ticket_lasts_over_a_restart_and_is_in_no_log(serve: Callable[..., Server]) -> None:
    server = serve(ROOT_PATH="/agents")
    api = server.api()
    session = api.create()["id"]
    turn = api.send(session, "hello")
    url = api.ticket(session, turn.id)
    ticket = url.partition("?ticket=")[2]

    server.stop()
    server.restart()
    response, content = read(api, url)
    read(api, url.replace(ticket, flipped(ticket, 3)))

    assert url.startswith("/agents/v1/sessions/")
    assert response.status_code == 200
    assert content == api.follow(session, turn.id).content
    assert "/events" in server.log, "requests are logged"
    assert ticket not in server.log
    assert flipped(ticket, 3) not in server.log


@pytest.mark.slow
@pytest.mark.tool("chromium")
def test_a_browsers_own_event_source_reads_a_turn_across_a_restart_and_stops(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    with Pages().serving() as pages:
        server = serve(CORS_ORIGINS=pages.origin, SHUTDOWN_GRACE_S=0)
        api = server.api()
        session = api.create()["id"]
        with api.sending(session, "/text before the cut\n/call list_files {}\n/then\n/stream 40 20") as live:
            live.until("tool_result")
            with pages.event_source(server.url + api.ticket(session, live.id), tmp_path / "profile") as browser:
                assert browser.wait_for("/first") == "message.created"
                live.until("text.delta")
                server.stop()
                server.restart()
                browser.wait_for("/opened/2")
                api.when_idle(session)
                seen = browser.wait_for("/closed", 40)

    log = api.follow(session, live.id).events
    assert ("message.resumed", "server_restarted") in [(name, data.get("reason")) for name, data in log]
    # Each event once, in order, over both connections; and the third was answered by 204, so it closed.
    assert [(name, id_) for name, id_, _ in seen["seen"]] == [(name, str(n)) for n, (name, _) in enumerate(log)]
    assert [data for *_, data in seen["seen"]] == [{**data, "sequence_number": n} for n, (_, data) in enumerate(log)]
    assert seen["opened"] == 2
    assert "status=204" in server.log
