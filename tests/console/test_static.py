"""The console's files: who may have them, how long they keep, and what they may do."""

import gzip
import re
from collections.abc import Iterator

import httpx
import pytest

from e2e.harness import Server
from turnwire.console import STATIC, Assets

BUDGET_BYTES = 60_000
"""Of all that a browser may load, gzipped: the page is there in a second on a poor line."""


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


def assets_of(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="(assets/[^"]+)"', page)


def test_the_page_needs_no_key_and_names_files_that_are_there(http: httpx.Client) -> None:
    page = http.get("/")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    addresses = assets_of(page.text)
    assert {address.rpartition(".")[2] for address in addresses} == {"js", "css", "svg"}
    for address in addresses:
        assert http.get(f"/{address}").status_code == 200


def test_nothing_may_run_or_load_but_what_is_the_consoles_own(http: httpx.Client) -> None:
    for address in ("/", *assets_of(http.get("/").text)):
        answer = http.get(address)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_is_asked_for_again_and_its_files_never(http: httpx.Client) -> None:
    page = http.get("/")
    asset = http.get(f"/{assets_of(page.text)[0]}")

    assert page.headers["cache-control"] == "no-cache"
    assert "immutable" in asset.headers["cache-control"]
    again = http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_page_from_before_an_upgrade_gets_files_that_it_does_not_keep(http: httpx.Client) -> None:
    answer = http.get("/assets/0123456789abcdef/console.js")

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


def test_head_has_the_headers_alone(http: httpx.Client) -> None:
    answer = http.head("/")

    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 100


@pytest.mark.parametrize(
    ("accepted", "is_packed"), [("gzip, deflate, br", True), ("identity", False), ("gzip;q=0", False), ("br", False)]
)
def test_who_takes_gzip_gets_it(http: httpx.Client, accepted: str, is_packed: bool) -> None:
    path = f"/{assets_of(http.get('/').text)[-1]}"
    with http.stream("GET", path, headers={"Accept-Encoding": accepted}) as answer:
        raw = b"".join(answer.iter_raw())

    assert (answer.headers.get("content-encoding") == "gzip") == is_packed
    assert (gzip.decompress(raw) if is_packed else raw) == http.get(path).content


@pytest.mark.parametrize(
    "path", ["/assets/x/nope.js", "/assets/x/../settings.py", "/assets/x/%2e%2e/__init__.py", "/assets"]
)
def test_what_is_no_file_of_it_is_404_as_everywhere(http: httpx.Client, path: str) -> None:
    answer = http.get(path)

    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


@pytest.mark.parametrize("path", ["/v1/nope", "/nope"])
def test_it_shadows_no_error_of_the_api(http: httpx.Client, path: str) -> None:
    answer = http.get(path)

    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


def test_the_page_takes_no_other_method(http: httpx.Client) -> None:
    answer = http.post("/", json={})

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert answer.json()["error"] == "method_not_allowed"


def test_the_api_document_does_not_speak_of_it_and_stays_what_it_was(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]

    assert "/" not in paths and not any(path.startswith("/assets") for path in paths)
    assert "content-security-policy" not in http.get("/docs").headers


def test_it_can_be_turned_off(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Server(tmp_path_factory.mktemp("off"), model="demo", console="false") as server:
        answer = httpx.get(server.url, trust_env=False)

        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
        assert not any(line.strip().startswith("console") for line in server.start_lines)


def test_all_of_it_stays_within_its_budget() -> None:
    files = [path for path in STATIC.rglob("*") if path.is_file() and path.suffix != ".txt"]

    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in files}
    assert sum(sizes.values()) <= BUDGET_BYTES, sizes


def test_the_files_of_the_checkout_are_served() -> None:
    assert re.fullmatch("[0-9a-f]{16}", Assets().digest)
    assert Assets().find("LICENSES.txt") is not None
    assert Assets().find("nope.js") is None
