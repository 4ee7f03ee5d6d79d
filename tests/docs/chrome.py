"""A page in a real Chromium, by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from plugins.tools import CHROMIUM_NAMES


@contextmanager
def chrome() -> Iterator[Page]:
    """Within it no other event loop can run in this thread."""
    program = next(path for name in CHROMIUM_NAMES if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        # As root it starts without a sandbox only.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser.new_page()
        finally:
            browser.close()
