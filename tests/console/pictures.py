"""Make the pictures of the web console in docs/images: a real server, a written scenario, a real browser.

.venv/bin/python tests/console/pictures.py
"""

import shutil
import sys
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from e2e.harness import KEY, Server  # noqa: E402
from plugins.tools import CHROMIUM_NAMES  # noqa: E402

IMAGES = ROOT / "docs" / "images"

SCENARIO = """
steps:
  - play:
      - thinking: The bills are in one CSV file. I'll read it, sum it by month, and draw the totals.
      - text: I'll look at the file first.
      - call: bash
        input: {command: "head -3 bills.csv && wc -l bills.csv"}
    usage: {input_tokens: 812, output_tokens: 64}
  - play:
      - call: update_plan
        input: {steps: [{step: Sum by month, state: in_progress}, {step: Sort the files, state: pending}]}
      - call: read_file
        input: {path: bils.csv}
    usage: {input_tokens: 1204, output_tokens: 71}
  - play:
      - text: |
          ## Totals by month

          The file holds **36 bills**; March was the most expensive month:

          | Month | Bills | Total |
          |---|--:|--:|
          | January | 12 | 1,204.50 |
          | February | 11 | 980.10 |
          | March | 13 | 1,612.75 |

          ```python
          totals = defaultdict(float)
          for row in csv.DictReader(open("bills.csv")):
              totals[row["month"]] += float(row["amount"])  # euros
          ```

          May I move the files into a folder a month?
      - call: bash
        input: {command: "mkdir -p 2026-{01,02,03} && mv *-01-*.pdf 2026-01/"}
    usage: {input_tokens: 2210, output_tokens: 340}
  - play:
      - text: |
          Done: 36 files are sorted. This is how the months compare:

          ![Totals by month](totals.png)
    usage: {input_tokens: 2600, output_tokens: 58}
"""

CHART = """<svg xmlns="http://www.w3.org/2000/svg" width="560" height="220" font-family="sans-serif" font-size="13">
<rect width="560" height="220" fill="#fff"/>
<g fill="#0b5fcc"><rect x="70" y="68" width="90" height="112"/><rect x="240" y="89" width="90" height="91"/>
<rect x="410" y="30" width="90" height="150"/></g><path d="M40 180h500" stroke="#808893"/>
<g fill="#1a1d21" text-anchor="middle"><text x="115" y="200">January</text><text x="285" y="200">February</text>
<text x="455" y="200">March</text><text x="115" y="60">1,204.50</text><text x="285" y="81">980.10</text>
<text x="455" y="22">1,612.75</text></g></svg>"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        scenario = Path(folder) / "bills.yaml"
        scenario.write_text(SCENARIO)
        program = next(path for name in CHROMIUM_NAMES if (path := shutil.which(name)))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with Server(Path(folder), model=f"scripted:{scenario}", shutdown_grace_s=0) as server:
            session = prepare(server, browser)
            light = visit(browser, server, session, color_scheme="light")
            ask(light)
            light.locator(".scroller").evaluate("(it) => { it.scrollTop = it.scrollHeight; }")
            light.get_by_role("button", name="Files", exact=True).click()
            light.wait_for_timeout(300)
            light.screenshot(path=IMAGES / "console-light.png")
            phone = visit(
                browser, server, session, viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True
            )
            phone.get_by_role("button", name="Allow once").wait_for()
            phone.wait_for_timeout(700)
            phone.screenshot(path=IMAGES / "console-phone.png")
            light.get_by_role("button", name="Allow once").click()
            dark = visit(browser, server, session, color_scheme="dark")
            dark.get_by_role("img", name="Totals by month").wait_for()
            dark.get_by_role("button", name="Events", exact=True).first.click()
            dark.wait_for_timeout(700)
            dark.screenshot(path=IMAGES / "console-dark.png")
        browser.close()


def prepare(server: Server, browser: Browser) -> str:
    """A session with files, and others beside it."""
    page = browser.new_page(viewport={"width": 560, "height": 220})
    page.set_content(f"<style>body{{margin:0}}</style>{CHART}")
    chart = page.screenshot()
    page.close()
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}) as http:

        def create(title: str, **more: object) -> str:
            body = {"persistent": True, "metadata": {"title": title}, **more}
            return http.post("/v1/sessions", json=body).json()["id"]

        for title in ("Quarterly report", "What changed in the API?"):
            create(title)
        session = create("Sort the bills", approvals=["bash"], workspace="private")
        rows = "".join(f"2026-{1 + n % 3:02},{20 + n * 1.75:.2f},bill-{n}.pdf\n" for n in range(36))
        files = {"bills.csv": f"month,amount,file\n{rows}".encode(), "totals.png": chart, "notes/todo.md": b"# To do\n"}
        for name, content in files.items():
            http.put(f"/v1/sessions/{session}/files/{name}", content=content).raise_for_status()
    return session


def visit(browser: Browser, server: Server, session: str, **options: object) -> Page:
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options})  # type: ignore[arg-type]
    page.goto(f"{server.url}/?s={session}#key={KEY}")
    page.get_by_label("Message", exact=True).wait_for()
    return page


def ask(page: Page) -> None:
    box = page.get_by_label("Message", exact=True)
    box.fill("Sum up my bills by month, and sort the files into folders.")
    box.press("Control+Enter")
    page.get_by_role("button", name="Allow once").click()
    page.get_by_text("May I move the files").wait_for()
    page.get_by_role("button", name="Allow once").wait_for()
    page.wait_for_timeout(900)


if __name__ == "__main__":
    main()
