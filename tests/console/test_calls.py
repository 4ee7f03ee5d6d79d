"""Calls that wait for somebody, and files on their way in and out."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from console.pages import Visit, answered, say
from e2e.harness import Api, Server

pytestmark = pytest.mark.tool("chromium")

RATE = {"type": "function", "name": "rate", "description": "A rate.", "parameters": {"type": "object"}}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def api(server: Server) -> Api:
    return server.api()


def in_session(visit: Visit, api: Api, **of: Any) -> Page:
    """A page with a new session of this kind open, with files of its own."""
    return visit(f"?s={api.create(persistent=True, workspace='private', **of)['id']}")


def test_an_approval_is_seen_everywhere_and_given_once(visit: Visit, api: Api) -> None:
    page = in_session(visit, api, approvals=["write_file"])
    say(page, '/call write_file {"path": "a.txt", "content": "one"}')

    card = page.locator(".card-asks")
    expect(card).to_contain_text("waiting for you")
    expect(card).to_have_attribute("open", "")
    expect(page.get_by_role("alert").filter(has_text="write_file waits for your approval.")).to_be_attached()
    expect(page.get_by_role("navigation", name="Sessions")).to_contain_text("needs you")
    expect(page).to_have_title(re.compile(r"^\? "))
    page.get_by_role("button", name="Allow once").click()

    answered(page)
    expect(page.locator(".card-done")).to_contain_text("write_file")
    assert page.get_by_role("button", name="Allow once").count() == 0


def test_buttons_that_appear_are_dead_for_half_a_second(visit: Visit, api: Api) -> None:
    page = in_session(visit, api, approvals=["write_file"])
    # Whatever a hasty finger hits in the moment in which the buttons come.
    page.evaluate(
        """() => {
          window.states = [];
          new MutationObserver(() => {
            const button = document.querySelector(".answer .primary");
            if (button && !window.states.length) window.states.push(button.disabled);
          }).observe(document.body, {childList: true, subtree: true});
        }"""
    )
    say(page, '/call write_file {"path": "a.txt", "content": "one"}')

    expect(page.get_by_role("button", name="Allow once")).to_be_enabled()
    assert page.evaluate("window.states") == [True]


def test_a_refusal_reaches_the_agent_with_its_reason(visit: Visit, api: Api) -> None:
    page = in_session(visit, api, approvals=["write_file"])
    say(page, '/call write_file {"path": "a.txt", "content": "one"}')
    page.get_by_role("button", name="Refuse…").click()
    page.get_by_label("Why not?").fill("Not in this folder.")
    page.get_by_role("button", name="Refuse", exact=True).click()

    answered(page)
    expect(page.locator(".card-refused")).to_contain_text("refused")
    expect(page.locator(".markdown").last).to_contain_text("Not in this folder.")


def test_a_call_is_allowed_with_other_input(visit: Visit, api: Api) -> None:
    page = in_session(visit, api, approvals=["write_file"])
    say(page, '/call write_file {"path": "a.txt", "content": "one"}')
    page.get_by_role("button", name="Change input…").click()
    page.get_by_label("Input").fill("{")
    expect(page.get_by_text("This is no JSON object.")).to_be_visible()
    page.get_by_label("Input").fill('{"path": "b.txt", "content": "two"}')
    page.get_by_role("button", name="Allow with this input").click()

    answered(page)
    page.get_by_role("button", name="Files", exact=True).click()
    page.get_by_role("button", name="b.txt").click()
    expect(page.locator(".preview pre")).to_have_text("two")


def test_a_function_of_a_program_is_answered_by_hand(visit: Visit, api: Api) -> None:
    page = in_session(visit, api, tools=[RATE])
    say(page, "/call rate {}")
    expect(page.locator(".card-waits")).to_contain_text("waiting for your program")
    page.get_by_role("button", name="Answer by hand").click()
    page.get_by_label("Result: text or JSON").fill('{"usd": 1.08}')
    page.get_by_role("button", name="Send result").click()

    answered(page)
    expect(page.locator(".markdown").last).to_contain_text('{"usd":1.08}')


def test_a_session_is_begun_with_approvals(visit: Visit) -> None:
    page = visit()
    page.get_by_text("Options of this session").click()
    page.get_by_label("Ask me before it uses").fill("write_file, nope")
    say(page, '/call write_file {"path": "approved.txt", "content": "one"}')
    # What the server says against it, and what was typed, stay.
    expect(page.locator(".bottom .problem")).to_contain_text("nope")
    expect(page.get_by_label("Message", exact=True)).to_have_value(re.compile("^/call"))
    page.get_by_label("Ask me before it uses").fill("write_file")
    page.get_by_role("button", name="Try again").click()

    page.get_by_role("button", name="Allow once").click()
    answered(page)


DROP = """([selector, name, type, data]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(data), (it) => it.charCodeAt(0))], name, {type}));
  const target = document.querySelector(selector);
  for (const kind of ["dragenter", "dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
  }
}"""


def drop(page: Page, selector: str, name: str, content: bytes, kind: str = "text/plain") -> None:
    """Drop a file of this machine."""
    page.evaluate(DROP, [selector, name, kind, base64.b64encode(content).decode()])


def test_files_are_dropped_looked_at_saved_and_deleted(visit: Visit, api: Api, tmp_path: Path) -> None:
    page = in_session(visit, api)
    page.get_by_role("button", name="Files", exact=True).click()
    expect(page.get_by_text("No files here.")).to_be_visible()
    drop(page, ".files", "notes.md", b"# Notes\n<b>bold</b>\n")
    drop(page, ".files", "dot.png", PIXEL, "image/png")

    page.get_by_role("button", name="dot.png").click()
    expect(page.locator(".preview img")).to_have_js_property("naturalWidth", 1)
    page.get_by_role("button", name="Back to the list").click()
    page.get_by_role("button", name="notes.md").click()
    expect(page.locator(".preview pre")).to_have_text("# Notes\n<b>bold</b>\n")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download").click()
    saved.value.save_as(tmp_path / "notes.md")
    assert (tmp_path / "notes.md").read_bytes() == b"# Notes\n<b>bold</b>\n"
    page.get_by_role("button", name="Delete this file").click()
    page.get_by_role("button", name="Delete this file").click()
    expect(page.locator(".entries")).to_have_text(re.compile("^dot.png"))


DROP_AT_ONCE = """(data) => new Promise((done) => {
  new MutationObserver((_, observer) => {
    if (!document.querySelector(".files")) return;
    observer.disconnect();
    done((%s)(data));
  }).observe(document.body, {childList: true, subtree: true});
  [...document.querySelectorAll("button")].find((it) => it.textContent === "Files").click();
})"""


def test_a_file_that_is_dropped_the_moment_the_list_shows_is_taken(visit: Visit, api: Api) -> None:
    page = in_session(visit, api)
    page.evaluate(DROP_AT_ONCE % DROP, [".files", "notes.md", "text/plain", base64.b64encode(b"# Notes").decode()])

    expect(page.get_by_role("button", name="notes.md")).to_be_visible()


def test_a_file_that_is_dropped_on_the_conversation_goes_with_the_message(visit: Visit, api: Api) -> None:
    page = in_session(visit, api)
    drop(page, "main", "bills.csv", b"a,b\n")
    expect(page.locator(".chips")).to_contain_text("bills.csv")
    say(page, "/history")

    answered(page)
    expect(page.locator(".said")).to_contain_text("- bills.csv")
    expect(page.locator(".chips")).to_have_count(0)


def test_pictures_of_the_workspace_show_in_an_answer(visit: Visit, api: Api) -> None:
    page = in_session(visit, api)
    page.get_by_role("button", name="Files", exact=True).click()
    drop(page, ".files", "dot.png", PIXEL, "image/png")
    expect(page.get_by_role("button", name="dot.png")).to_be_visible()
    say(page, '/text "Here: ![a dot](dot.png)"')

    expect(page.get_by_role("img", name="a dot")).to_have_js_property("naturalWidth", 1)


def test_events_are_listed_filtered_opened_and_replayed(visit: Visit, api: Api) -> None:
    page = in_session(visit, api)
    say(page, "/think Hm.\n/stream 300")
    answered(page)
    page.get_by_role("button", name="Events").first.click()
    rows = page.locator("button.event-row")
    expect(page.get_by_text("307 events")).to_be_visible()
    assert rows.count() <= 200

    page.get_by_label("Filter events").fill("completed")
    rows.click()
    expect(page.locator(".event-detail")).to_contain_text('"status": "completed"')
    # What the conversation alone is known of is fetched, and has no times.
    page.reload()
    page.get_by_role("button", name="Events").first.click()
    expect(rows.first).to_contain_text("–")
    expect(page.get_by_text("307 events")).to_be_visible()
