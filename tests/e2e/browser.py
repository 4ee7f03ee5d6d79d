"""A real browser on a page of ours: headless Chromium, its own EventSource, and what it saw.

The page writes what comes into a list, and hands that in when its EventSource has closed for good. Nothing but the
loopback can be reached from it.
"""

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from e2e import wire
from plugins.tools import CHROMIUM_NAMES

FLAGS = (
    "--headless",
    "--no-sandbox",  # as root it starts without only
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",  # without it a headless browser ends when the page is loaded
)

PAGE = """<!doctype html><title>EventSource</title><script>
const seen = [], source = new EventSource(URL_HERE);
const say = (path, value) => fetch(path, {method: "POST", body: JSON.stringify(value)});
let opened = 0;
source.onopen = () => { opened++; say("/opened/" + opened, null); };
source.onerror = () => {
  if (source.readyState === EventSource.CLOSED) say("/closed", {seen, opened});
};
for (const name of NAMES_HERE) {
  source.addEventListener(name, (event) => {
    seen.push([event.type, event.lastEventId, JSON.parse(event.data)]);
    if (seen.length === 1) say("/first", event.type);
  });
}
source.onmessage = (event) => seen.push(["message", event.lastEventId, event.data]);
</script>"""


class _PageServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page = ""
        self.said: queue.Queue[tuple[str, Any]] = queue.Queue()


class _Handler(BaseHTTPRequestHandler):
    server: _PageServer

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/" else 404, self.server.page.encode())

    def do_POST(self) -> None:
        value = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(200, b"")
        self.server.said.put((self.path, value))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Browser:
    """A browser that has a page open."""

    def __init__(self, server: _PageServer) -> None:
        self._server = server
        self._said: dict[str, Any] = {}

    def wait_for(self, path: str, timeout_s: float = 30.0) -> Any:
        """What the page says under `path`: "/first" (event), "/opened/1" (connection), "/closed" (for good)."""
        while path not in self._said:
            said, value = self._server.said.get(timeout=timeout_s)
            self._said[said] = value
        return self._said[path]


class Pages:
    """A local server for pages: they come from another origin than turnwire's."""

    def __init__(self) -> None:
        self._server = _PageServer()
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def event_source(self, url: str, profile: Path) -> Iterator[Browser]:
        """A browser whose page follows `url` by its own EventSource."""
        names = json.dumps(list(wire.KEYS))
        self._server.page = PAGE.replace("URL_HERE", json.dumps(url)).replace("NAMES_HERE", names)
        program = next(path for name in CHROMIUM_NAMES if (path := shutil.which(name)))
        command = [program, *FLAGS, f"--user-data-dir={profile}", f"{self.origin}/"]
        with (profile.parent / "browser.log").open("wb") as log:
            process = subprocess.Popen(
                ["sh", "-c", '"$@" 3<&0 4>/dev/null', "sh", *command], stdin=subprocess.PIPE, stdout=log, stderr=log
            )
            try:
                yield Browser(self._server)
            finally:
                assert process.stdin is not None
                process.stdin.close()  # the pipe's end is the browser's
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    @contextmanager
    def serving(self) -> Iterator["Pages"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
