"""What a model, a file or a person says may be anything; in the console it is text."""

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from console.pages import Visit, answered, say
from e2e.harness import Api, Server

pytestmark = pytest.mark.tool("chromium")

HOSTILE = """\
<img src=x onerror="window.pwned = 1">
<script>window.pwned = 2</script>

<svg onload="window.pwned = 3"><a href="javascript:window.pwned=4">x</a></svg>

[a](javascript:window.pwned=5) [b](JaVaScRiPt:alert(1)) [c](data:text/html,<script>window.pwned=6</script>)
[d](vbscript:x) [e](//evil.invalid/x) [f](&#106;avascript:window.pwned=7) [g](java&#10;script:window.pwned=8)
<javascript:window.pwned=9> [h](#key=tw_default_other) ![i](https://evil.invalid/pixel.png)
![j](javascript:window.pwned=10)

| <img src=x onerror=window.pwned=11> | `<b>` |
|---|---|
| <iframe src=javascript:window.pwned=12></iframe> | [k](javascript:x) |

```html
<script>window.pwned = 13</script>
```

<details open ontoggle="window.pwned = 14"><summary>x</summary></details>
<a href="javascript:window.pwned=15" onclick="window.pwned=16">y</a>
<form action="https://evil.invalid"><input autofocus onfocus="window.pwned=17"></form>
"""

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="window.pwned=18"><script>window.pwned=19</script></svg>'
HTML = b"<!doctype html><body onload='window.pwned=20'><script>window.pwned=21</script><h1>Hi</h1>"


def opened(visit: Visit, api: Api, asked: list[str], **of: Any) -> Page:
    page = visit(f"?s={api.create(persistent=True, workspace='private', **of)['id']}")
    page.on("request", lambda request: asked.append(request.url))
    return page


def test_nothing_that_is_said_runs_loads_or_leads_anywhere(visit: Visit, server: Server) -> None:
    asked: list[str] = []
    page = opened(visit, server.api(), asked)
    say(page, f"/text {json.dumps(HOSTILE)}\n/think {json.dumps(HOSTILE)[1:200]}")
    answered(page)
    page.get_by_text("Thought").click()

    answer = page.locator(".answered")
    expect(answer).to_contain_text('<img src=x onerror="window.pwned = 1">')
    expect(answer).to_contain_text("<script>window.pwned = 2</script>")
    assert answer.locator("img, script, svg:not(.icon), iframe, form, input, style, object").count() == 0
    hrefs = answer.locator("a").evaluate_all("(links) => links.map((link) => link.getAttribute('href'))")
    assert hrefs == ["https://evil.invalid/pixel.png"]
    # The very words of a message, its title in the list and the window's among them, are text too.
    expect(page.locator(".said")).to_contain_text("ontoggle=")
    page.reload()
    answered(page)
    for button in answer.locator("button.link").all():
        assert (button.get_attribute("data-path") or "").startswith(("javascript:", "/")) is False
    assert page.evaluate("window.pwned") is None
    assert [url for url in asked if not url.startswith((server.url, "blob:"))] == []


@pytest.mark.parametrize(("name", "content"), [("page.html", HTML), ("drawing.svg", SVG)])
def test_files_that_could_act_are_shown_as_text(visit: Visit, server: Server, name: str, content: bytes) -> None:
    asked: list[str] = []
    api = server.api()
    page = opened(visit, api, asked)
    session = page.url.partition("?s=")[2]
    api.http.put(f"/v1/sessions/{session}/files/{name}", content=content).raise_for_status()
    page.get_by_role("button", name="Files", exact=True).click()
    page.get_by_role("button", name=name).click()

    expect(page.locator(".preview pre")).to_have_text(content.decode())
    assert page.locator(".preview img, .preview iframe, .preview h1").count() == 0
    assert page.evaluate("window.pwned") is None


def test_names_of_files_and_tools_are_text(visit: Visit, server: Server) -> None:
    asked: list[str] = []
    tool = {"type": "function", "name": "x", "description": "<b>", "parameters": {"type": "object"}}
    api = server.api()
    page = opened(visit, api, asked, tools=[tool], metadata={"title": "<img src=x onerror=window.pwned=1>"})
    session = page.url.partition("?s=")[2]
    api.http.put(f"/v1/sessions/{session}/files/%3Cimg%20src=x%20onerror=window.pwned=2%3E", content=b"x")
    page.get_by_role("button", name="Files", exact=True).click()
    say(page, '/call x {"path": "<img src=x onerror=window.pwned=3>"}')

    expect(page.locator(".card-waits")).to_contain_text("<img src=x onerror=window.pwned=3>")
    expect(page.locator(".entries")).to_contain_text("<img src=x onerror=window.pwned=2>")
    expect(page.locator("h1")).to_have_text("<img src=x onerror=window.pwned=1>")
    assert page.evaluate("window.pwned") is None


def test_no_path_leads_out_of_the_workspace(visit: Visit, server: Server) -> None:
    """Else a picture in an answer would show the key to whatever else lies at this host, and a file's "Delete" would
    delete a session."""
    asked: list[str] = []
    tool = {"type": "function", "name": "x", "description": "", "parameters": {"type": "object"}}
    api = server.api()
    page = opened(visit, api, asked, tools=[tool])
    session = page.url.partition("?s=")[2]
    text = (
        "![a](../../../../else/a.png) ![b](/workspace/../../../../../else/b.png) ![c](x/..%2f..%2f..%2f..%2f..%2f"
        f"else/c.png) [report](../../{session}) [dot](./.) [up](..)"
    )
    path = {"path": f"../../{session}"}
    say(page, f"/text {json.dumps(text)}\n/call x {json.dumps(path)}")
    page.get_by_role("button", name="Open file").click()

    expect(page.locator(".answered .markdown")).to_have_text("a b c report dot up")
    assert page.locator(".answered .markdown").locator("[data-path], img").count() == 0
    delete = page.get_by_label("Delete this file")
    delete.click()
    delete.click()
    expect(page.locator(".preview .error")).to_contain_text("no path of a file in the workspace")
    allowed = (f"{server.url}/v1/sessions/{session}", f"{server.url}/?s=", f"{server.url}/languages/")
    strange = [url for url in asked if "else" in url or (session in url and not url.startswith(allowed))]
    assert strange == []
    assert api.http.get(f"/v1/sessions/{session}").status_code == 200


@pytest.mark.parametrize("text", [">" * 5000 + " x", "- " * 3000 + "x", "*" * 4000 + "a" + "*" * 4000])
def test_a_text_that_is_nested_too_deep_is_shown_as_it_was_written(visit: Visit, server: Server, text: str) -> None:
    page = opened(visit, server.api(), [])
    say(page, f"/text {json.dumps(text)}\n/text after")
    answered(page)

    for _ in range(2):  # as it streams, and from the history
        expect(page.locator(".answered .markdown").first).to_contain_text(text[:100])
        expect(page.locator(".answered .markdown").last).to_contain_text("after")
        page.reload()


def test_what_hides_in_a_call_is_written_out_where_it_is_to_be_allowed(visit: Visit, server: Server) -> None:
    page = opened(visit, server.api(), [], approvals=["bash"])
    command = "ls \u202e# \u2066;\u200brm" + "\n" * 60 + "rm -rf ."
    say(page, f"/call bash {json.dumps({'command': command})}")

    shown = page.locator(".card-asks pre")
    expect(shown).to_contain_text("ls \\u{202e}# \\u{2066};\\u{200b}rm")
    expect(page.locator(".card-asks .brief")).to_contain_text("ls \\u{202e}#")
    assert shown.evaluate("(it) => it.scrollHeight <= it.clientHeight")
    page.get_by_role("button", name="Stop").click()
    answered(page)


def test_a_number_that_a_browser_rounds_is_said_to_be_rounded(visit: Visit, server: Server) -> None:
    tool = {"type": "function", "name": "pay", "description": "", "parameters": {"type": "object"}}
    page = opened(visit, server.api(), [], tools=[tool])
    say(page, '/call pay {"sums": [1, 9007199254740991]}\n/then\n/call pay {"to": {"account": 12345678901234567891}}')
    for number in range(2):
        card = page.locator(".answer")
        expect(card).to_have_count(1)
        expect(card.get_by_text("its last digits are others")).to_have_count(number)
        card.get_by_role("button", name="Answer by hand").click()
        card.get_by_role("button", name="Send result").click()
        expect(page.locator(".card-done")).to_have_count(number + 1)


def test_the_browser_itself_refuses_to_take_text_for_html(visit: Visit, errors: list[str]) -> None:
    page = visit()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()

    refused = page.evaluate(
        """() => {
          try { document.createElement("p").innerHTML = "<b>x</b>"; return null; } catch (error) { return error.name; }
        }"""
    )

    assert refused == "TypeError"
    assert len(errors) == 1 and "TrustedHTML" in errors.pop()
