"""A real server, a real Chromium, and pages that are watched: what they log as an error, a blocked script included."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from console.pages import Visit
from e2e.harness import KEY, Server
from plugins.tools import CHROMIUM_NAMES

# In which a slow machine under load still does what a person waits for.
expect.set_options(timeout=20_000)

# Chromium tells of answers that are no 2xx by itself; tests that provoke one look at what the page says.
NOT_OURS = ("Failed to load resource",)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One to a module: as long as it is there, no other event loop can run in this thread."""
    program = next(path for name in CHROMIUM_NAMES if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        # As root it starts without a sandbox only.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the demo model. Tests make sessions of their own in it."""
    with Server(tmp_path_factory.mktemp("console"), model="demo", shutdown_grace_s=0) as server:
        yield server


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """What pages of the test said that is an error, a violation of the policy included: in the end there is none."""
    said: list[str] = []
    yield said
    assert said == []


@pytest.fixture
def visit(browser: Browser, server: Server, errors: list[str]) -> Iterator[Visit]:
    """`visit()`: a tab of its own, signed in by the link that the server prints. `key=None`: not signed in."""
    with ExitStack() as stack:

        def go(
            path: str = "", *, key: str | None = KEY, at: Server = server, beside: Page | None = None, **of: Any
        ) -> Page:
            options = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **of}
            context = beside.context if beside else browser.new_context(**options)
            if beside is None:
                stack.callback(context.close)
            page = context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: _note(message, errors))
            page.goto(f"{at.url}/{path}" + (f"#key={key}" if key else ""))
            return page

        yield go


def _note(message: ConsoleMessage, errors: list[str]) -> None:
    if message.type == "error" and not message.text.startswith(NOT_OURS):
        errors.append(message.text)
