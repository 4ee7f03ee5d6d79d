"""Files over HTTP: what is written is read, by every path and under every condition."""

import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from urllib.parse import quote

import httpx
import pytest

from files.served import KEY, Files, Served, error_of, eventually

pytestmark = pytest.mark.slow

TEN = b"0123456789"


# Writing and reading


def test_a_new_file_is_201_and_a_replaced_one_200(files: Files) -> None:
    first = files.put("notes/a.txt", b"one")
    second = files.put("notes/a.txt", b"three")

    assert (first.status_code, second.status_code) == (201, 200)
    assert set(second.json()) == {"path", "size", "modified"}
    assert (second.json()["path"], second.json()["size"]) == ("notes/a.txt", 5)
    assert abs(second.json()["modified"] - time.time()) < 60
    answer = files.get("notes/a.txt")
    assert answer.content == b"three"
    assert answer.headers["etag"] == second.headers["etag"] != first.headers["etag"]


def test_a_file_may_be_empty(files: Files) -> None:
    assert files.put("empty").json()["size"] == 0

    assert (files.get("empty").status_code, files.get("empty").content) == (200, b"")
    assert files.get("empty", Range="bytes=0-").status_code == 416


def test_a_folder_is_listed_by_both_addresses(files: Files) -> None:
    files.put("data/b.csv", b"12")
    files.put("data/inner/c", b"1")

    by_query = files.request("GET", params={"path": "data"})

    assert by_query.json() == files.get("data").json() == files.get("data/").json()
    assert [(e["name"], e["type"], e["size"]) for e in by_query.json()] == [
        ("b.csv", "file", 2),
        ("inner", "directory", 0),
    ]
    assert all(set(e) == {"name", "type", "size", "modified"} for e in by_query.json())
    assert files.names() == ["data"]
    assert error_of(files.request("GET", params={"path": "data/b.csv"})) == (409, "conflict")
    assert error_of(files.request("GET", params={"path": "nowhere"})) == (404, "not_found")


def test_a_long_list_comes_in_pages(files: Files, server: Served) -> None:
    files.put("many/x")
    for number in range(250):
        (server.shared / "many" / f"n{number:03}").touch()

    names: list[str] = []
    url: str | None = f"{files.root}/many?limit=100"
    sizes: list[int] = []
    while url:
        answer = server.client.get(url)
        sizes.append(len(answer.json()))
        names += [entry["name"] for entry in answer.json()]
        url = answer.links.get("next", {}).get("url")

    assert sizes == [100, 100, 51]
    assert names == [*(f"n{number:03}" for number in range(250)), "x"]
    for limit in ("0", "1001", "x"):
        assert error_of(files.request("GET", "many", params={"limit": limit})) == (400, "invalid_request")


def test_delete_takes_files_and_empty_folders(files: Files) -> None:
    files.put("d/a")

    assert error_of(files.delete("d")) == (409, "conflict")
    assert files.delete("d/a").status_code == 204
    assert error_of(files.delete("d/a")) == (404, "not_found")
    assert files.delete("d").status_code == 204
    assert files.raw("DELETE", b"/").status == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [("d", 409), ("d/", 400), ("f/below", 409), ("%2e", 400), ("a%00b", 400), ("x" * 300, 400), ("%5cx2f", 400)],
)
def test_what_names_no_file_can_not_be_written(files: Files, path: str, status: int) -> None:
    files.put("d/inner")
    files.put("f")

    answer = files.raw("PUT", b"/" + path.encode(), b"new")

    assert answer.status == status
    assert files.names() == ["d", "f"]


def test_a_session_that_is_not_there_has_no_files(server: Served) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = server.client.request(method, "/v1/sessions/sess_000000000000/files/a")
        assert answer.status_code == 404
    assert httpx.get(f"{server.url}/v1/sessions/sess_000000000000/files", trust_env=False).status_code == 401
    assert server.client.post("/v1/sessions/sess_000000000000/files/a").status_code == 405


def test_what_a_put_can_not_be_is_said(files: Files) -> None:
    assert error_of(files.put("a", b"x", Content_Range="bytes 0-0/5")) == (400, "invalid_request")
    assert error_of(files.put("a", b"x", Content_Encoding="gzip")) == (415, "unsupported_media_type")
    assert error_of(files.get("nowhere")) == (404, "not_found")


# Types, and what a browser makes of them


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("a.txt", "text/plain; charset=utf-8", True),
        ("A.TXT", "text/plain; charset=utf-8", True),
        ("a.csv", "text/csv; charset=utf-8", True),
        ("a.png", "image/png", True),
        ("a.json", "application/json", True),
        ("a.html", "text/html; charset=utf-8", False),
        ("a.HTM", "text/html; charset=utf-8", False),
        ("a.svg", "image/svg+xml", False),
        ("a.xml", "text/xml; charset=utf-8", False),
        ("a.xhtml", None, False),
        ("a.js", None, False),
        ("a.tar.gz", "application/gzip", False),
        ("a", "application/octet-stream", False),
        ("data:text", "application/octet-stream", False),
        ("a.unheard-of", "application/octet-stream", False),
    ],
)
def test_types_go_by_name_and_no_download_is_a_page(files: Files, name: str, kind: str | None, shown: bool) -> None:
    files.put(name, b"<script>alert(1)</script>")

    answer = files.get(name)

    assert kind is None or answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert answer.headers["content-disposition"].startswith("inline" if shown else "attachment")
    assert "content-encoding" not in answer.headers


def test_a_name_can_not_forge_headers(files: Files) -> None:
    files.put("a%0d%0aX-Forged: 1%22;é.txt", b"x")

    answer = files.get("a%0d%0aX-Forged: 1%22;é.txt")

    assert answer.status_code == 200 and "x-forged" not in answer.headers
    assert "%C3%A9" in answer.headers["content-disposition"]


# Ranges


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-4", 206, b"4", "bytes 4-4/10"),
        ("bytes=5-", 206, b"56789", "bytes 5-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-100", 206, TEN, "bytes 0-9/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-9", 206, TEN, "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=10-20", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=99999999999999999999999-", 416, None, "bytes */10"),
        ("bytes=0-1,4-5", 200, TEN, None),
        ("bytes=5-2", 200, TEN, None),
        ("bytes=-", 200, TEN, None),
        ("bytes=a-b", 200, TEN, None),
        ("bytes=0-3;", 200, TEN, None),
        ("lines=0-3", 200, TEN, None),
        ("bytes", 200, TEN, None),
        ("", 200, TEN, None),
    ],
)
def test_ranges(files: Files, asked: str, status: int, content: bytes | None, content_range: str | None) -> None:
    files.put("ten", TEN)

    answer = files.get("ten", Range=asked)

    assert answer.status_code == status
    assert answer.headers.get("content-range") == content_range
    if content is None:
        assert error_of(answer) == (416, "range_not_satisfiable")
    else:
        assert answer.content == content
        assert answer.headers["content-length"] == str(len(content))
        assert answer.headers["accept-ranges"] == "bytes"


def test_a_part_is_given_only_of_the_file_that_the_caller_has_a_part_of(files: Files, server: Served) -> None:
    etag = files.put("ten", TEN).headers["etag"]
    os.utime(server.shared / "ten", (1_000_000_000, 1_000_000_000))
    etag = files.head("ten").headers["etag"]
    date = files.head("ten").headers["last-modified"]

    def status(if_range: str) -> int:
        return files.get("ten", Range="bytes=0-3", If_Range=if_range).status_code

    assert date == formatdate(1_000_000_000, usegmt=True)
    assert (status(etag), status(date)) == (206, 206)
    assert (status('"other"'), status("W/" + etag), status(formatdate(1_000_000_001, usegmt=True))) == (200, 200, 200)
    assert status("nonsense") == 200
    os.utime(server.shared / "ten")
    # Within the second of its change the date says too little.
    assert status(files.head("ten").headers["last-modified"]) == 200


# Conditions


def test_conditions_of_reading(files: Files) -> None:
    etag = files.put("a", b"1").headers["etag"]
    date = files.head("a").headers["last-modified"]

    for ask in (files.get, files.head):
        assert ask("a", If_None_Match=etag).status_code == 304
        assert ask("a", If_None_Match=f'"x", W/{etag}').status_code == 304
        assert ask("a", If_None_Match="*").status_code == 304
        assert ask("a", If_None_Match='"x"').status_code == 200
        assert ask("a", If_None_Match='"x"', If_Modified_Since=date).status_code == 200
        assert ask("a", If_Modified_Since=date).status_code == 304
        assert ask("a", If_Modified_Since="yesterday").status_code == 200
        assert ask("a", If_Match=etag).status_code == 200
        assert ask("a", If_Match="*").status_code == 200
        assert ask("a", If_Match='"x"').status_code == 412
        assert ask("a", If_Match=f"W/{etag}").status_code == 412
        assert ask("a", If_Unmodified_Since=formatdate(1, usegmt=True)).status_code == 412
        assert ask("a", If_Unmodified_Since=date).status_code == 200
    answer = files.get("a", If_None_Match=etag)
    assert (answer.content, answer.headers["etag"]) == (b"", etag)


def test_conditions_of_writing(files: Files) -> None:
    assert error_of(files.put("a", b"0", If_Match="*")) == (412, "precondition_failed")
    assert error_of(files.put("a", b"0", If_Match='"x"')) == (412, "precondition_failed")
    etag = files.put("a", b"1", If_None_Match="*").headers["etag"]
    assert error_of(files.put("a", b"2", If_None_Match="*")) == (412, "precondition_failed")
    assert error_of(files.put("a", b"2", If_None_Match=etag)) == (412, "precondition_failed")
    assert error_of(files.put("a", b"2", If_Match='"x"')) == (412, "precondition_failed")
    assert files.put("a", b"2", If_Match=etag).status_code == 200
    assert error_of(files.put("a", b"3", If_Match=etag)) == (412, "precondition_failed")
    assert error_of(files.delete("a", If_Match=etag)) == (412, "precondition_failed")
    assert files.get("a").content == b"2"
    assert files.delete("a", If_Match=files.head("a").headers["etag"]).status_code == 204
    assert error_of(files.delete("a", If_Match="*")) == (412, "precondition_failed")


@pytest.mark.parametrize("tags", ["{}", '"x", {}, "y"'])
def test_of_writers_that_all_saw_the_same_file_one_wins(files: Files, server: Served, tags: str) -> None:
    etag = files.put("counter", b"0").headers["etag"]
    headers = {"If-Match": tags.format(etag)}
    statuses: list[int] = []

    def write(number: int) -> None:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False) as client:
            content = f"{number}".encode() * 300_000
            answer = client.put(f"{files.root}/counter", content=content, headers=headers)
            statuses.append(answer.status_code)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [200] + [412] * 7
    assert len(set(files.get("counter").content)) == 1


# HEAD


def test_head_has_the_headers_of_get_and_no_body(files: Files) -> None:
    files.put("a.html", TEN)

    def of(answer: httpx.Response) -> dict[str, str]:
        return {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}

    assert of(files.head("a.html")) == of(files.get("a.html"))
    assert files.head("a.html").content == b""
    folder = files.request("HEAD", "%2e")
    assert folder.status_code == 200 and folder.headers["content-length"] == str(len(files.get("%2e").content))
    assert files.raw("HEAD", b"/nowhere").status == 404


# Paths


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/../x", 403),
        (b"/%2e%2e/x", 403),
        (b"/%2E%2E%2Fx", 403),
        (b"/a/../../x", 403),
        (b"/a/%2e%2e/%2e%2e/x", 403),
        (b"/%252e%252e/x", 404),
        (b"/%252e%252e%252fx", 404),
        (b"//etc/passwd", 403),
        (b"/%2fetc%2fpasswd", 403),
        (b"/%2Fetc/passwd", 403),
        (b"/..%2f..%2f..%2fetc%2fpasswd", 403),
        (b"/..%5c..%5cetc%5cpasswd", 404),
        (b"/%5cx2e%5cx2e/x", 400),
        (b"/%c0%ae%c0%ae/x", 404),
        (b"/proc/self/root/etc/passwd", 404),
        (b"/%00", 400),
        (b"/a%00.txt", 400),
        (b"/d/..", 200),
        (b"/d/../f", 200),
        (b"/%66", 200),
        (b"/d%2fin", 200),
        (b"//workspace/f", 200),
        (b"/%2fopt%2fsandbox%2fworkspace%2ff", 200),
        (b"/./d/./in", 200),
        (b"/" + b"a/" * 3000, 400),
        (b"?path=%2e%2e", 403),
        (b"?path=..%2f..", 403),
        (b"?path=/etc", 403),
        (b"?path=%252e%252e", 404),
        (b"?path=d", 200),
        (b"?path=/workspace/d", 200),
    ],
)
def test_no_path_leads_out(files: Files, server: Served, target: bytes, status: int) -> None:
    files.put("d/in", b"in")
    files.put("f", b"f")

    answer = files.raw("GET", target)

    assert answer.status == status, answer
    assert b"root:" not in answer.body
    for method in ("PUT", "DELETE"):
        if status == 403 and not target.startswith(b"?"):
            assert files.raw(method, target, b"x").status == 403
    assert not (server.shared.parent / "x").exists()


@pytest.mark.parametrize(
    ("target", "name", "shown"),
    [
        (b"/caf%c3%a9", b"caf\xc3\xa9", "café"),
        (b"/caf%C3%A9%20", b"caf\xc3\xa9 ", "café "),
        (b"/caf%e9", b"caf\xe9", "caf\\xe9"),
        (b"/%ff%fe", b"\xff\xfe", "\\xff\\xfe"),
        (b"/a%0ab", b"a\nb", "a\\x0ab"),
        (b"/a+b", b"a+b", "a+b"),
        (b"/100%25", b"100%", "100%"),
        (b"/%3f%23", b"?#", "?#"),
        (b"/%e2%80%ae.txt", b"\xe2\x80\xae.txt", "\\xe2\\x80\\xae.txt"),
        (b"/back%5cslash", b"back\\slash", "back\\slash"),
        (b"/%f0%9f%90%8d", b"\xf0\x9f\x90\x8d", "🐍"),
    ],
)
def test_every_name_is_shown_and_reached_by_what_is_shown(
    files: Files, server: Served, target: bytes, name: bytes, shown: str
) -> None:
    assert files.raw("PUT", target, b"content").status == 201

    assert os.listdir(os.fsencode(server.shared)) == [name]  # noqa: PTH208
    assert files.names() == [shown]
    assert files.get(quote(shown, safe="")).content == b"content"
    assert files.raw("GET", target).body == b"content"
    assert files.raw("DELETE", target).status == 204


def test_a_folder_is_reached_by_a_query_that_is_no_utf8(files: Files, server: Served) -> None:
    files.raw("PUT", b"/%ff/in", b"x")

    assert b'"name":"in"' in files.raw("GET", b"?path=%ff").body
    assert files.names("\\xff") == ["in"]


def test_behind_a_root_path_the_same_files_are_there(start: Callable[..., Served]) -> None:
    server = start(root_path="/agents")
    files = server.session()

    assert files.put("files/v1/a", b"x").status_code == 201
    assert server.client.get(f"/agents{files.root}/files/v1/a").content == b"x"
    assert files.get("files/v1/a").content == b"x"


# What is no file


def test_fifos_and_devices_are_refused_at_once(files: Files, server: Served) -> None:
    files.put("real")
    os.mkfifo(server.shared / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(server.shared / "socket"))
    (server.shared / "link").symlink_to("/etc/passwd")
    (server.shared / "inside").symlink_to("real")
    (server.shared / "device").symlink_to("/dev/zero")
    names = ["fifo", "socket"]
    if os.geteuid() == 0:
        try:
            os.mknod(server.shared / "node", stat.S_IFCHR | 0o666, os.makedev(1, 5))
            names.append("node")
        except PermissionError:
            pass
    began = time.monotonic()

    assert files.names() == ["real"]
    for name in names:
        assert error_of(files.get(name)) == (404, "not_found")
        assert files.head(name).status_code == 404
        assert error_of(files.put(name, b"x")) == (409, "conflict")
    for name in ("link", "device"):
        assert error_of(files.get(name)) == (403, "forbidden")
        assert error_of(files.put(name, b"x")) == (403, "forbidden")
        assert error_of(files.delete(name)) == (403, "forbidden")
    assert files.get("inside").status_code == 200
    assert time.monotonic() - began < 5


# Scopes


def test_file_access_is_held(files: Files, server: Served) -> None:
    files.put("pub/x", b"1")
    files.put("pub2/x", b"2")
    files.put("deep/er/y", b"3")
    (server.shared / "pub" / "out").symlink_to("../pub2/x")
    narrow = server.session(file_access={"read": ["pub", "deep/er"], "write": ["in"]})

    assert narrow.names() == ["deep", "pub"]
    assert narrow.names("deep") == ["er"]
    assert narrow.get("pub/x").content == b"1"
    for path in ("pub2/x", "pub2", "in", "in/a", "pub/out", "deep/other", "pub/../pub2/x", "nowhere"):
        assert error_of(narrow.get(path)) == (403, "forbidden"), path
    assert narrow.put("in/a", b"written").status_code == 201
    assert narrow.put("in/b", b"1", If_None_Match="*").status_code == 201
    assert error_of(narrow.put("in/b", b"1", If_None_Match="*")) == (412, "precondition_failed")
    for path in ("pub/x", "pub/new", "other"):
        assert error_of(narrow.put(path, b"x")) == (403, "forbidden")
        assert error_of(narrow.delete(path)) == (403, "forbidden")
    assert files.get("in/a").content == b"written"
    assert files.names("pub") == ["x"]
    nothing = server.session(file_access={})
    assert nothing.names() == []
    assert error_of(nothing.put("a", b"x")) == (403, "forbidden")


def test_a_private_workspace_is_the_sessions_own(files: Files, server: Served) -> None:
    private = server.session(workspace="private")
    private.put("mine", b"1")
    files.put("ours", b"2")

    assert (private.names(), files.names()) == (["mine"], ["ours"])
    assert server.client.delete(f"/v1/sessions/{private.id}").status_code == 204
    assert error_of(private.get("mine")) == (404, "not_found")
    eventually(lambda: not list((server.data / "workspaces" / "default" / "private").iterdir()))


# Limits


def test_an_upload_has_a_limit_told_or_not(start: Callable[..., Served]) -> None:
    server = start(upload_bytes_max=1000)
    files = server.session()

    assert files.put("a", b"x" * 1000).status_code == 201
    assert error_of(files.put("a", b"x" * 1001)) == (413, "payload_too_large")
    assert error_of(files.put("b", iter([b"x" * 600, b"x" * 600]))) == (413, "payload_too_large")
    assert files.get("a").content == b"x" * 1000
    assert files.names() == ["a"]
    assert server.leftovers() == []


def test_a_workspace_has_a_quota(start: Callable[..., Served]) -> None:
    server = start(workspace_quota_bytes=10_000, workspace_files_max=5)
    files = server.session()

    assert files.put("a", b"x" * 6000).status_code == 201
    assert error_of(files.put("b", b"x" * 6000)) == (507, "insufficient_storage")
    assert error_of(files.put("b", iter([b"x" * 3000, b"x" * 3000]))) == (507, "insufficient_storage")
    assert files.names() == ["a"]
    assert files.put("a", b"y" * 9000).status_code == 200
    (server.shared / "by-command").write_bytes(b"z" * 5000)
    time.sleep(0.2)  # a measurement is good for twenty times as long as it took
    assert error_of(files.put("b", b"x" * 10)) == (507, "insufficient_storage")
    files.delete("by-command")
    assert files.put("b", b"x" * 10).status_code == 201
    other = server.session(workspace="private")
    assert other.put("b", b"x" * 9000).status_code == 201
    assert files.put("d/c").status_code == 201
    assert files.put("d/e").status_code == 201
    assert error_of(files.put("f")) == (507, "insufficient_storage")
    assert files.put("d/e", b"again").status_code == 200
    assert server.leftovers() == []


def test_uploads_at_once_draw_on_one_quota(start: Callable[..., Served]) -> None:
    server = start(workspace_quota_bytes=1_000_000)
    files = server.session()
    statuses: list[int] = []

    def chunks() -> "list[bytes]":
        return [b"x" * 50_000] * 6

    def upload(number: int) -> None:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False) as client:
            statuses.append(client.put(f"{files.root}/f{number}", content=iter(chunks())).status_code)

    threads = [threading.Thread(target=upload, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(statuses) <= {201, 507} and statuses.count(201) <= 3
    assert sum(path.stat().st_size for path in server.shared.iterdir()) <= 1_000_000
    assert files.put("last", b"x" * (1_000_000 - 300_000 * statuses.count(201))).status_code == 201
