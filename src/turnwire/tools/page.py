"""A web page as text: headings, paragraphs, lists and links, in the manner of Markdown; no scripts, no styles.

One pass over the tags, without a tree: a tree's rules make parsers take quadratic time for pages that are nested
deeply, and any page may be hostile. Takes time in proportion to the page's length.
"""

import html
import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

# What is in these is not text for readers; their content ends at their own end tag.
SKIPPED = frozenset(("script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "select"))
BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset"),
        *("figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main"),
        *("nav", "ol", "p", "pre", "section", "summary", "table", "tr", "ul", "title"),
    )
)
_TAG = re.compile(r"(/?)([a-zA-Z][a-zA-Z0-9]{0,30})(?![a-zA-Z0-9])")
_HREF = re.compile(r"""\shref\s{0,9}=\s{0,9}(?:"([^"]{0,2000})"|'([^']{0,2000})'|([^\s"'>]{1,2000}))""", re.IGNORECASE)
_ENDS = {name: re.compile(rf"</{name}(?![a-zA-Z0-9])", re.IGNORECASE) for name in SKIPPED}
_TRAILING = re.compile(r"[ \t\r\f\v\u00a0]{1,100}\n")


def page_text(page: str, url: str) -> str:
    """The text, the page's title first. `url` is where it came from, for links."""
    text = "".join(_pieces(page, url))
    return re.sub(r"\n{3,}", "\n\n", _TRAILING.sub("\n", text)).strip()


def _pieces(page: str, url: str) -> Iterator[str]:
    preformatted = 0
    links: list[str] = []
    for name, closing, tag, text in _tokens(page):
        if text:
            text = _unescaped(text)
            yield text if preformatted else re.sub(r"\s+", " ", text)
        if name == "pre":
            preformatted = 0 if closing else 1
        if name == "a" and not closing:
            target = _target(tag, url)
            links.append(target)
            yield "[" if target else ""
        elif name == "a" and links:
            target = links.pop()
            yield f"]({target})" if target else ""
        else:
            yield _break(name, closing=closing)


def _tokens(page: str) -> Iterator[tuple[str, bool, str, str]]:
    """Each tag as (name, whether it closes, its attributes, the text before it); at last the text behind all."""
    at, text_from = 0, 0
    while (start := page.find("<", at)) >= 0:
        if page.startswith("<!--", start):
            end = page.find("-->", start + 4)
            yield "", False, "", page[text_from:start]
            at = text_from = len(page) if end < 0 else end + 3
            continue
        found = _TAG.match(page, start + 1)
        if found is None and page[start + 1 : start + 2] not in ("!", "?"):
            at = start + 1  # a lone "<" is text
            continue
        end = page.find(">", start)
        end = len(page) if end < 0 else end
        name = found[2].lower() if found else ""
        closing = bool(found and found[1])
        yield name, closing, page[start + 1 : end], page[text_from:start]
        at = text_from = end + 1
        if name in SKIPPED and not closing:
            over = _ENDS[name].search(page, at)
            at = text_from = len(page) if over is None else over.start()
    yield "", False, "", page[text_from:]


def _break(name: str, *, closing: bool) -> str:
    if name not in BLOCKS:
        return {"br": "\n", "td": " | ", "th": " | "}.get(name, "") if not closing else ""
    if closing:
        return "\n\n" if name not in ("li", "tr") else ""
    if len(name) == 2 and name[0] == "h" and name[1].isdigit():
        return f"\n\n{'#' * int(name[1])} "
    return {"li": "\n- ", "tr": "\n"}.get(name, "\n\n")


def _target(tag: str, url: str) -> str:
    """Where a link leads, when that is another page."""
    found = _HREF.search(tag)
    href = _unescaped(found[1] or found[2] or found[3] or "").strip() if found else ""
    if not href or href.startswith("#"):
        return ""
    try:
        target = urljoin(url, href)
        return target if urlsplit(target).scheme in ("http", "https") and len(target) <= 500 else ""
    except ValueError:
        return ""


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # a number of thousands of digits
        return text
