"""For everybody: by keyboard, by screen reader, on a phone, in light and dark."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from console.pages import Visit, answered, say
from e2e.harness import Server
from plugins.tools import CLIENTS

pytestmark = pytest.mark.tool("chromium", "npm-clients")

AXE = CLIENTS / "node_modules" / "axe-core" / "axe.min.js"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
RICH = """\
# A heading

Some **text** with `code`, [a link](https://example.org/) and [a file](a.txt).

| a | b |
|---|--:|
| 1 | 2 |

- [x] done
- [ ] to do

> A quotation.

```python
def f(x):
    return x + 1  # a very long line of code that is wider than any phone's screen, and scrolls by itself, or should
```
"""


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or worse. It is run as a debugger would: the page's policy allows no such script."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{it['id']}: {node['html'][:200]} {node['failureSummary']}"
        for it in found["violations"]
        if it["impact"] in ("serious", "critical")
        for node in it["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desk", "phone"])
def test_axe_finds_nothing_serious(visit: Visit, server: Server, scheme: str, size: str) -> None:
    options: dict[str, Any] = {"color_scheme": scheme, **(PHONE if size == "phone" else {})}
    page = visit(key=None, **options)
    expect(page.get_by_label("Key")).to_be_visible()
    assert faults(page) == []

    page = visit(**options)
    page.get_by_text("Options of this session").click()
    assert faults(page) == []
    session = server.api().create(persistent=True, workspace="private", approvals=["write_file"])["id"]
    page = visit(f"?s={session}", **options)
    say(page, f'/think Hm.\n/text {json.dumps(RICH)}\n/call read_file {{"path": "nope"}}\n/then\n/fail 400')
    expect(page.locator(".problem")).to_be_visible()
    say(page, '/call write_file {"path": "a.txt", "content": "one"}')
    expect(page.get_by_role("button", name="Allow once")).to_be_enabled()
    assert faults(page) == []
    page.get_by_role("button", name="Allow once").click()
    answered(page, 2)
    for name in ("Files", "Events"):
        page.locator("header").get_by_role("button", name=name, exact=True).click()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        if name == "Files":
            page.get_by_role("button", name="a.txt").click()
        else:
            page.locator("button.event-row").last.click()
        assert faults(page) == []
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Session settings").click()
    assert faults(page) == []


def test_on_a_phone_nothing_is_wider_than_the_screen_and_all_is_reached(visit: Visit, server: Server) -> None:
    page = visit(**PHONE)
    say_by_button(
        page, f"/text {json.dumps(RICH)}\n/call write_file {json.dumps({'path': 'x' * 200, 'content': 'y' * 300})}"
    )
    answered(page)

    def is_within() -> bool:
        return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth && window.scrollY === 0")

    assert is_within()
    page.get_by_role("button", name="Sessions").click()
    expect(page.get_by_role("navigation", name="Sessions")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Files", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("x" * 30)
    assert is_within()
    page.get_by_role("button", name="Close the panel").click()
    page.get_by_role("button", name="Events", exact=True).first.click()
    expect(page.get_by_role("dialog")).to_contain_text("message.completed")
    page.get_by_role("tab", name="Files").click()
    page.get_by_role("button", name="Close the panel").click()
    # Buttons are as large as a finger.
    box = page.get_by_role("button", name="Attach files").bounding_box()
    assert box and min(box["width"], box["height"]) >= 44


def say_by_button(page: Page, text: str) -> None:
    """On a touch screen Enter is a new line."""
    box = page.get_by_label("Message", exact=True)
    box.fill(text)
    box.press("Enter")
    expect(box).to_have_value(f"{text}\n")
    page.get_by_role("button", name="Send").click()


def test_all_is_done_by_keyboard(visit: Visit) -> None:
    page = visit()
    box = page.get_by_label("Message", exact=True)
    box.focus()
    page.keyboard.type("/stream 3000 50")
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    # The focus stays where somebody writes.
    expect(box).to_be_focused()
    page.keyboard.press("Control+.")
    expect(page.get_by_text("Stopped.")).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(box).to_have_value("/stream 3000 50")
    page.keyboard.press("Control+k")
    expect(page.get_by_label("Find a session")).to_be_focused()


def test_enter_of_an_input_method_sends_nothing(visit: Visit) -> None:
    page = visit()
    box = page.get_by_label("Message", exact=True)
    box.fill("日本")
    for init in ({"key": "Enter", "isComposing": True}, {"key": "Enter", "keyCode": 229}):
        box.dispatch_event("keydown", init)

    expect(box).to_have_value("日本")
    assert page.locator(".said").count() == 0
    box.press("Enter")
    answered(page)


def test_a_draft_is_kept_for_each_session(visit: Visit) -> None:
    page = visit()
    say(page, "First.")
    answered(page)
    box = page.get_by_label("Message", exact=True)
    box.fill("Not sent yet")
    page.get_by_role("button", name="New session").click()
    expect(box).to_have_value("")
    page.go_back()
    expect(box).to_have_value("Not sent yet")
    page.reload()
    expect(box).to_have_value("Not sent yet")


def test_the_end_is_followed_until_somebody_scrolls_up(visit: Visit) -> None:
    page = visit()
    lines = "\\n\\n".join(f"Line {n}" for n in range(60))
    say(page, f'/text "{lines}"\n/stream 4000 100')
    expect(page.locator(".markdown").last).to_contain_text("10 11")
    scroller = page.locator(".scroller")

    def to_the_end() -> int:
        return scroller.evaluate("(it) => Math.round(it.scrollHeight - it.scrollTop - it.clientHeight)")

    assert to_the_end() <= 48
    scroller.hover()
    page.mouse.wheel(0, -300)
    expect(page.get_by_role("button", name="New", exact=True)).to_be_visible()
    expect(page.locator(".markdown").last).to_contain_text("150 151")
    assert to_the_end() >= 200
    page.get_by_role("button", name="New", exact=True).click()
    expect(page.get_by_role("button", name="New", exact=True)).to_have_count(0)
    assert to_the_end() <= 48
    page.get_by_role("button", name="Stop").click()


def test_what_was_unfolded_stays_while_the_turn_goes_on(visit: Visit) -> None:
    page = visit()
    say(page, "/think What to do.\n/stream 120 40")
    page.get_by_text("Thought for").click()
    expect(page.get_by_text("What to do.", exact=True)).to_be_visible()
    answered(page)

    expect(page.get_by_text("What to do.", exact=True)).to_be_visible()


def test_a_key_that_is_revoked_in_mid_use_asks_for_another_and_keeps_the_text(visit: Visit) -> None:
    page = visit()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    page.route("**/v1/**", lambda route: route.fulfill(status=401, json={"error": "unauthorized", "message": "No."}))
    page.get_by_label("Message", exact=True).fill("Kept")

    expect(page.get_by_text("This key no longer works. Your text is kept.")).to_be_visible()
    page.unroute("**/v1/**")
    page.get_by_label("Key").fill("tw_default_test-key-of-the-end-to-end-tests")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("Kept")


def test_a_session_that_is_gone_is_said_to_be(visit: Visit) -> None:
    page = visit("?s=sess_0123456789ab")

    expect(page.get_by_text("This session has expired.")).to_be_visible()
    page.get_by_role("button", name="New session").last.click()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()


def test_a_session_is_renamed_and_deleted(visit: Visit) -> None:
    page = visit()
    say(page, "To be renamed")
    answered(page)
    page.get_by_role("button", name="Session settings").click()
    page.get_by_label("Name").fill("Renamed")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Renamed")).to_be_visible()
    expect(page.get_by_role("navigation", name="Sessions")).to_contain_text("Renamed")
    page.get_by_role("button", name="Session settings").click()
    page.get_by_role("button", name="Delete session").click()
    page.get_by_role("button", name=re.compile("Delete it")).click()

    expect(page.get_by_role("navigation", name="Sessions")).not_to_contain_text("Renamed")
    expect(page.get_by_text("What should the agent do?")).to_be_visible()
