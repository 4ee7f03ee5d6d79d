"""What a person does at the wrong moment: goes elsewhere, signs out, sends before all is there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, Route, expect

from console.pages import Visit, answered, say
from e2e.harness import KEY, Server

pytestmark = pytest.mark.tool("chromium")


@contextmanager
def held(page: Page, address: re.Pattern[str], method: str) -> Iterator[list[Route]]:
    """Requests that are made in the block wait for its end; those that are taken out of the list go on waiting."""
    waiting: list[Route] = []
    holds = True

    def take(route: Route) -> None:
        if holds and route.request.method == method:
            waiting.append(route)
        else:
            route.fallback()

    page.route(address, take)
    yield waiting
    holds = False
    for route in waiting:
        route.continue_()


def a_session(server: Server, title: str) -> str:
    return server.api().create(persistent=True, metadata={"title": title})["id"]


def attach(page: Page, *names: str) -> None:
    files = [{"name": name, "mimeType": "text/plain", "buffer": b"x"} for name in names]
    page.locator(".composer input[type=file]").set_input_files(files)


def test_who_goes_elsewhere_while_a_session_is_made_stays_there(visit: Visit, server: Server) -> None:
    there = a_session(server, "There already")
    page = visit()
    link = page.get_by_role("link", name="There already")
    expect(link).to_be_visible()
    with held(page, re.compile("/v1/sessions$"), "POST"):
        say(page, "/text Somewhere else.")
        link.click()
        expect(page.locator("h1")).to_have_text("There already")

    expect(page.get_by_role("link", name="/text Somewhere else.")).to_be_visible()
    assert page.url.endswith(f"?s={there}")


def test_a_message_may_be_sent_before_the_conversation_is_there(visit: Visit, server: Server) -> None:
    session = a_session(server, "Slow")
    page = visit()
    with held(page, re.compile(f"/v1/sessions/{session}/messages"), "GET"):
        page.get_by_role("link", name="Slow").click()
        say(page, "/text At once.")
        expect(page.locator(".answered")).to_contain_text("At once.")

    answered(page)
    page.wait_for_timeout(300)
    expect(page.locator(".answered")).to_contain_text("At once.")
    expect(page.locator(".problem")).to_have_count(0)


def test_the_draft_of_a_session_that_was_made_for_its_files_goes_with_it(visit: Visit) -> None:
    page = visit()
    box = page.get_by_label("Message", exact=True)
    box.fill("/text With a file.")
    attach(page, "a.txt")
    expect(page.locator(".chips")).to_contain_text("a.txt")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.get_by_role("button", name="Send").click()
    answered(page)
    page.get_by_role("button", name="New session").click()

    expect(box).to_have_value("")


def test_a_message_that_is_sent_before_its_file_is_there_goes_when_it_is(visit: Visit) -> None:
    page = visit()
    with held(page, re.compile("/files/"), "PUT"):
        attach(page, "bills.csv")
        say(page, "/text All there.")
        expect(page.locator(".due")).to_be_visible()
        expect(page.locator(".said")).to_have_count(0)

    answered(page)
    expect(page.locator(".said")).to_contain_text("- bills.csv")
    expect(page.locator(".due")).to_have_count(0)
    expect(page.locator(".chips")).to_have_count(0)


def test_a_message_without_one_of_its_files_is_not_sent_unasked(visit: Visit) -> None:
    page = visit()
    with held(page, re.compile("/files/"), "PUT") as waiting:
        attach(page, "bills.csv")
        say(page, "/text All there.")
        expect(page.locator(".due")).to_be_visible()
        waiting.pop().fulfill(status=413, json={"error": "too_large", "message": "Too large."})
        expect(page.locator(".chips .failed")).to_contain_text("Too large.")

    expect(page.locator(".due")).to_have_count(0)
    expect(page.get_by_label("Message", exact=True)).to_have_value("/text All there.")
    page.wait_for_timeout(300)
    expect(page.locator(".said")).to_have_count(0)


def test_a_file_that_had_failed_before_holds_back_no_message(visit: Visit) -> None:
    page = visit()
    with held(page, re.compile("/files/"), "PUT") as waiting:
        attach(page, "first.csv", "second.csv")
        expect(page.locator(".chips")).to_contain_text("first.csv")
        while not waiting:
            page.wait_for_timeout(10)
        waiting.pop().fulfill(status=413, json={"error": "too_large", "message": "Too large."})
        expect(page.locator(".chips .failed")).to_contain_text("Too large.")
        say(page, "/text All there.")
        expect(page.locator(".due")).to_be_visible()

    answered(page)
    expect(page.locator(".said")).to_contain_text("- second.csv")
    expect(page.locator(".said")).not_to_contain_text("first.csv")


def test_who_writes_on_while_a_file_is_on_its_way_sends_again(visit: Visit) -> None:
    page = visit()
    with held(page, re.compile("/files/"), "PUT"):
        attach(page, "bills.csv")
        say(page, "/text Half")
        expect(page.locator(".due")).to_be_visible()
        page.get_by_label("Message", exact=True).press_sequentially(" a word")
        expect(page.locator(".due")).to_have_count(0)

    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.wait_for_timeout(300)
    expect(page.locator(".said")).to_have_count(0)


def test_who_signs_out_leaves_nothing_behind(visit: Visit, server: Server) -> None:
    session = a_session(server, "My secret plan")
    page = visit(f"?s={session}")
    expect(page).to_have_title(re.compile("My secret plan"))
    page.get_by_label("Message", exact=True).fill("a secret that is not sent")
    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_label("Key")).to_be_visible()
    expect(page).to_have_title("turnwire")
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert KEY not in kept
    assert "secret" not in kept
    assert "secret" not in page.content()


def test_a_late_no_to_an_earlier_key_is_none_to_the_next_one(visit: Visit) -> None:
    page = visit()
    box = page.get_by_label("Message", exact=True)
    expect(box).to_be_visible()
    with held(page, re.compile("/v1/sessions\\?limit=100"), "GET") as waiting:
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_timeout(200)
        (early,) = waiting
        waiting.clear()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Key").fill(f"{KEY} ")
    page.get_by_role("button", name="Sign in").click()
    expect(box).to_be_visible()
    early.fulfill(status=401, json={"error": "unauthorized", "message": "No valid key."})
    page.wait_for_timeout(300)

    expect(box).to_be_visible()
