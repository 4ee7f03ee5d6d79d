"""What people do with the console, from the first visit on."""

import re

import pytest
from playwright.sync_api import expect

from console.pages import Visit, answered, say
from e2e.harness import KEY, Server

pytestmark = pytest.mark.tool("chromium")


def test_a_first_visit_from_the_key_to_an_answer(visit: Visit) -> None:
    page = visit(key=None)
    page.get_by_label("Key").fill("tw_default_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert").filter(has_text="not known here")).to_be_visible()
    page.get_by_label("Key").fill(f" {KEY}\n")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="What can you do?").click()

    answered(page)
    expect(page.locator(".answered .markdown")).to_contain_text("I am turnwire's demo model")
    expect(page.get_by_role("navigation", name="Sessions").get_by_role("link")).to_contain_text(["What can you do?"])
    expect(page.locator(".usage")).to_have_text(re.compile(r"\d+ in \d+ out"))
    expect(page).to_have_title("What can you do? · turnwire")
    assert re.search(r"\?s=sess_[0-9a-f]{12}$", page.url)


def test_the_link_of_the_start_up_lines_signs_in_and_keeps_no_key_in_the_address(visit: Visit) -> None:
    page = visit()

    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    assert "key" not in page.url
    page.get_by_role("button", name="Sign out").click()
    # The link, pasted into the same tab.
    page.evaluate("(key) => { location.hash = `key=${key}`; }", KEY)
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    assert "key" not in page.url
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()


def test_an_answer_streams_with_thinking_calls_and_results(visit: Visit) -> None:
    page = visit()
    say(
        page,
        "/think The caller wants a file.\nI'll write **it**.\n"
        '/call write_file {"path": "notes.txt", "content": "hi"}\n/call read_file {"path": "nope.txt"}\n'
        "/then\n/stream 90 30",
    )

    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.get_by_text("Thought for")).to_be_visible()
    expect(page.locator(".markdown strong")).to_have_text("it")
    expect(page.locator(".card-done")).to_contain_text("write_file")
    expect(page.locator(".card-failed")).to_contain_text("failed")
    expect(page.locator(".first-line")).to_have_text("There is no 'nope.txt' in the workspace.")
    expect(page.locator(".markdown").last).to_contain_text("12 13")
    expect(page.get_by_text("Writing…")).to_be_visible()
    expect(page).to_have_title(re.compile("^● "))
    answered(page)
    expect(page.locator(".markdown").last).to_contain_text("89 90")
    expect(page.get_by_role("status").filter(has_text="Answer complete")).to_be_attached()


def test_a_reload_in_mid_turn_goes_on_where_it_was(visit: Visit) -> None:
    page = visit()
    say(page, "/stream 200 40")
    expect(page.locator(".markdown")).to_contain_text("20 21")

    page.reload()

    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.locator(".markdown")).to_contain_text("1 2 3")
    answered(page)
    expect(page.locator(".markdown")).to_have_text(" ".join(map(str, range(1, 201))))


def test_a_turn_is_stopped(visit: Visit) -> None:
    page = visit()
    say(page, "/stream 2000 20")
    expect(page.locator(".markdown")).to_contain_text("3 4")

    page.get_by_role("button", name="Stop").click()

    expect(page.get_by_text("Stopped.")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_two_tabs_show_the_same(visit: Visit) -> None:
    first = visit()
    say(first, "/stream 120 30")
    expect(first.locator(".markdown")).to_contain_text("3 4")
    second = visit(f"?s={first.url.partition('?s=')[2]}", beside=first)

    expect(second.locator(".markdown")).to_contain_text("6 7")
    answered(first)
    answered(second)
    expect(second.locator(".markdown")).to_have_text(first.locator(".markdown").inner_text())
    # What begins in one is seen in the other.
    say(second, "And again.")
    answered(second, 2)
    answered(first, 2)
    expect(first.locator(".said").last).to_contain_text("And again.")


def test_a_restart_of_the_server_in_mid_turn_is_lived_through(
    visit: Visit, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Server(tmp_path_factory.mktemp("restarted"), model="demo") as server:
        page = visit(at=server)
        say(page, "/stream 150 30")
        expect(page.locator(".markdown")).to_contain_text("12 13")

        server.kill()
        expect(page.get_by_text("Connection lost. The turn goes on. Reconnecting…")).to_be_visible()
        server.restart()

        answered(page)
        expect(page.get_by_text("The server restarted; this step was made again.")).to_be_visible()
        expect(page.locator(".markdown")).to_have_text(" ".join(map(str, range(1, 151))))
