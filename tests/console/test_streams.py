"""Connections that break, go silent, or are not wanted: a message is sent once, and a turn is read to its end."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from console.pages import Visit, answered, say
from e2e.harness import Server

pytestmark = pytest.mark.tool("chromium")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without heartbeats: a stream that says nothing is silent."""
    folder = tmp_path_factory.mktemp("silent")
    with Server(folder, model="demo", heartbeat_interval_s=3600, shutdown_grace_s=0) as server:
        yield server


def asked_for_events(page: Page) -> list[str]:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/events") else None)
    return asked


def test_a_message_whose_answer_is_lost_is_sent_again_and_is_one_turn(visit: Visit, server: Server) -> None:
    page = visit()
    keys: list[str] = []

    def lose_the_first(route: Route) -> None:
        if route.request.method != "POST":
            return route.continue_()
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > 1:
            return route.continue_()
        route.fetch()
        return route.abort()

    page.route("**/messages", lose_the_first)
    say(page, "Only once.")

    answered(page)
    assert len(keys) == 2 and len(set(keys)) == 1
    session = page.url.partition("?s=")[2]
    assert len(server.api().get(f"/v1/sessions/{session}/responses")) == 1
    expect(page.get_by_label("Message", exact=True)).to_have_value("")


def test_a_message_to_a_session_that_another_window_uses_is_kept(visit: Visit) -> None:
    first = visit()
    say(first, "Hello.")
    answered(first)
    second = visit(f"?s={first.url.partition('?s=')[2]}")
    answered(second)
    # It is not told that a turn has begun.
    second.route("**/v1/sessions?*", lambda route: route.abort())
    say(first, "/stream 120 40")
    expect(first.locator(".markdown").last).to_contain_text("3 4")
    say(second, "Mine.")

    expect(second.get_by_text("Another window's turn.")).to_be_visible()
    expect(second.get_by_label("Message", exact=True)).to_have_value("Mine.")
    expect(second.locator(".markdown").last).to_contain_text("8 9")
    answered(second, 2)
    expect(second.locator(".markdown").last).to_contain_text("119 120")


def test_a_silent_connection_is_given_up_and_read_on(visit: Visit) -> None:
    page = visit()
    page.clock.install()
    asked = asked_for_events(page)
    say(page, "/stream 5\n/stall 4\n/text The end.")
    expect(page.locator(".markdown")).to_contain_text("4 5")
    page.clock.fast_forward(36_000)

    answered(page)
    expect(page.locator(".markdown").last).to_have_text("The end.")
    assert len(asked) >= 1


def test_a_tab_that_nobody_sees_lets_go_of_its_stream_until_it_is_seen(visit: Visit) -> None:
    page = visit()
    page.clock.install()
    asked = asked_for_events(page)
    say(page, "/stream 260 20")
    expect(page.locator(".markdown")).to_contain_text("2 3")
    _be_hidden(page, True)
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/messages")):
        page.clock.fast_forward(61_000)
    assert asked == []
    _be_hidden(page, False)

    answered(page)
    assert len(asked) == 1
    expect(page.locator(".markdown")).to_have_text(re.compile(r"^1 2 3 .* 259 260\s*$"))


def _be_hidden(page: Page, is_hidden: bool) -> None:
    page.evaluate(
        """(isHidden) => {
          Object.defineProperty(document, "hidden", {configurable: true, get: () => isHidden});
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )
