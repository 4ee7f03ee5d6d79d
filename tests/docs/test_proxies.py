"""The proxies' configurations, as the page shows them, in front of a real server."""

import itertools
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from docs.blocks import blocks_of
from e2e.harness import KEY, Server, eventually

PAGE = "docs/guides/reverse-proxy.md"
BLOCKS = {block.attributes["file"]: block.code for block in blocks_of(PAGE) if "file" in block.attributes}

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), heartbeat_interval_s=0.5) as server:
        yield server


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for agents.example, and its key."""
    pem, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=agents.example", "-addext", "subjectAltName=DNS:agents.example"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*command, "-keyout", key, "-out", pem, "-days", "2"], check=True, capture_output=True)
    return pem, key


def replaced(text: str, changes: dict[str, str]) -> str:
    """Each must be there: else the page has changed, and this test would test something else."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def nginx_files(folder: Path, server: Server, port: int, *, page: str = BLOCKS["turnwire.conf"]) -> Path:
    """nginx's own file, which includes the page's; only addresses and paths are changed."""
    pem, key = certificate(folder)
    (folder / "turnwire.conf").write_text(
        replaced(
            page,
            {
                "127.0.0.1:8080": f"127.0.0.1:{server.port}",
                "listen 443": f"listen 127.0.0.1:{port}",
                "/etc/ssl/agents.example.pem": str(pem),
                "/etc/ssl/private/agents.example.key": str(key),
                "/var/log/nginx/turnwire.log": str(folder / "access.log"),
            },
        )
    )
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log info;\n"
        f"events {{}}\nhttp {{\n{temporary}include {folder}/turnwire.conf;\n}}\n"
    )
    return main


def nginx_says(main: Path) -> str:
    """What `nginx -t` says of its configuration."""
    done = subprocess.run(
        ["nginx", "-t", "-c", main, "-p", main.parent, "-e", main.parent / "error.log"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@contextmanager
def running(command: list[str | Path], port: int, env: dict[str, str] | None = None) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env) as process:

        def listens() -> bool:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        try:
            eventually(listens)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # it waits for streams that go on
                process.kill()


@contextmanager
def nginx(folder: Path, server: Server, *, page: str = BLOCKS["turnwire.conf"]) -> Iterator["Named"]:
    port = free_port()
    main = nginx_files(folder, server, port, page=page)
    folder.chmod(0o755)
    command: list[str | Path] = ["nginx", "-c", main, "-p", folder, "-e", folder / "error.log", "-g", "user root;"]
    if os.getuid() != 0:
        command = command[:-2]
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    with running(command, port):
        # The name is that of the certificate, the address this machine's.
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {KEY}", "Host": f"agents.example:{port}"},
            verify=context,
            timeout=30,
            trust_env=False,
        ) as client:
            yield Named(client)


class Named:
    """A client that asks for the certificate's name whatever the address."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.base_url = str(client.base_url).rstrip("/")

    def stream(self, method: str, path: str, **more: object):
        return self._client.stream(method, path, extensions={"sni_hostname": "agents.example"}, **more)  # type: ignore[arg-type]

    def request(self, method: str, path: str, **more: object) -> httpx.Response:
        return self._client.request(method, path, extensions={"sni_hostname": "agents.example"}, **more)  # type: ignore[arg-type]


@contextmanager
def caddy(folder: Path, server: Server) -> Iterator[Named]:
    port = free_port()
    page = replaced(
        BLOCKS["Caddyfile"],
        {"agents.example {": f"http://127.0.0.1:{port} {{", "127.0.0.1:8080": f"127.0.0.1:{server.port}"},
    )
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + page)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    with running(["caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"], port, env):
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, trust_env=False) as client:
            yield Named(client)


PROXIES = [
    pytest.param(nginx, marks=pytest.mark.tool("nginx", "openssl"), id="nginx"),
    pytest.param(caddy, marks=pytest.mark.tool("caddy"), id="caddy"),
]


def new_session(client: Named) -> str:
    answer = client.request("POST", "/v1/sessions", json={"persistent": True})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.mark.tool("nginx", "openssl")
def test_nginx_finds_nothing_wrong_with_the_page(tmp_path: Path, server: Server) -> None:
    assert "warn" not in nginx_says(nginx_files(tmp_path, server, free_port()))


@pytest.mark.tool("caddy")
def test_caddy_finds_nothing_wrong_with_the_page(tmp_path: Path) -> None:
    file = tmp_path / "Caddyfile"
    file.write_text(BLOCKS["Caddyfile"])
    done = subprocess.run(
        ["caddy", "adapt", "--config", file, "--adapter", "caddyfile", "--validate"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )

    assert done.returncode == 0, done.stderr
    assert "formatted" not in done.stderr, done.stderr


@pytest.mark.parametrize("proxy", PROXIES)
def test_events_come_through_one_by_one(proxy, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with proxy(tmp_path, server) as client:
        assert_one_by_one(client)


@pytest.mark.tool("nginx", "openssl")
def test_nginx_holds_no_stream_back_where_the_buffering_was_left_on(server: Server, tmp_path: Path) -> None:
    page = replaced(BLOCKS["turnwire.conf"], {"proxy_buffering off; ": "proxy_buffering on; "})
    with nginx(tmp_path, server, page=page) as client:
        assert_one_by_one(client)


@pytest.mark.tool("nginx", "openssl", "curl")
def test_events_come_through_one_by_one_over_http_2(server: Server, tmp_path: Path) -> None:
    with nginx(tmp_path, server) as client:
        session = new_session(client)
        auth = ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"]
        url = f"{client.base_url}/v1/sessions/{session}/messages"
        command = ["curl", "-sSNik", "--http2", *auth, "-d", '{"message": "/stream 8 10"}', url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
            assert curl.stdout
            first = curl.stdout.readline()
            seen = [time.monotonic() for line in curl.stdout if line == "event: text.delta\n"]

    assert first.startswith("HTTP/2 200")
    assert len(seen) == 8 and seen[-1] - seen[0] > 0.5


def assert_one_by_one(client: Named) -> None:
    session = new_session(client)
    seen: list[float] = []
    with client.stream("POST", f"/v1/sessions/{session}/messages", json={"message": "/stream 8 10"}) as response:
        assert response.status_code == 200
        assert response.headers["x-response-id"].startswith("msg_")
        rest = b""
        for piece in response.iter_raw():
            rest += piece
            while b"\n\n" in rest:
                frame, _, rest = rest.partition(b"\n\n")
                if b"event: text.delta" in frame:
                    seen.append(time.monotonic())

    gaps = [after - before for before, after in itertools.pairwise(seen)]
    assert len(seen) == 8
    assert sum(gap > 0.03 for gap in gaps) >= 5, gaps  # 0.1 s apart, not all at the end
    assert seen[-1] - seen[0] > 0.5


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_client_that_hangs_up_is_noticed_and_its_turn_goes_on(proxy, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with proxy(tmp_path, server) as client:
        session = new_session(client)
        path = f"/v1/sessions/{session}/messages"

        def ended() -> bool:
            """Whether the server has let go of the request: it logs each at its end."""
            return any("[info" in line and path in line for line in server.log.splitlines())

        with client.stream("POST", path, json={"message": "/stall 4\n/text on"}) as response:
            url = f"/v1/sessions/{session}/responses/{response.headers['x-response-id']}"
            time.sleep(0.7)  # a heartbeat or more
            assert not ended()
        eventually(ended, 3.0)

        assert client.request("GET", url).json()["status"] == "in_progress"
        eventually(lambda: client.request("GET", url).json()["status"] == "completed")


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_file_goes_up_and_down_whole(proxy, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    content = os.urandom(5_000_000)
    with proxy(tmp_path, server) as client:
        path = f"/v1/sessions/{new_session(client)}/files/{proxy.__name__}.bin"

        assert client.request("PUT", path, content=content).status_code == 201
        assert client.request("GET", path).content == content


@pytest.mark.tool("nginx", "openssl")
def test_below_a_path_the_ticket_and_the_pages_lead_back_to_the_server(tmp_path: Path) -> None:
    body = re.search(r"    location / \{.*?\n    \}\n", BLOCKS["turnwire.conf"], re.DOTALL)
    assert body
    page = BLOCKS["turnwire.conf"].replace(body[0], BLOCKS["path.conf"])
    (tmp_path / "server").mkdir()
    with Server(tmp_path / "server", root_path="/agents") as server, nginx(tmp_path, server, page=page) as client:
        answer = client.request("POST", "/agents/v1/sessions", json={})
        session = answer.json()["id"]
        with client.stream("POST", f"/agents/v1/sessions/{session}/messages", json={"message": "hi"}) as response:
            response.read()
        response_id = response.headers["x-response-id"]
        ticket = client.request("POST", f"/agents/v1/sessions/{session}/responses/{response_id}/ticket").json()["url"]

        assert ticket.startswith("/agents/v1/")
        assert b"event: message.completed" in client.request("GET", ticket).content
        assert "/agents/docs/static" in client.request("GET", "/agents/docs").text
        assert ticket.partition("ticket=")[2] not in (tmp_path / "access.log").read_text()
