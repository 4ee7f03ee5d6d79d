"""What tests do on a page of the console."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

Visit = Callable[..., Page]
"""The fixture `visit`."""


def say(page: Page, text: str) -> None:
    """Send a message by the keys that do so on every screen."""
    box = page.get_by_label("Message", exact=True)
    box.fill(text)
    box.press("Control+Enter")


def answered(page: Page, count: int = 1) -> None:
    """Wait until so many turns have ended."""
    expect(page.locator("article.answered[aria-busy=false]")).to_have_count(count)
