"""The programs of the JavaScript page: what the page shows is what runs here, in Node and in Chromium."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from docs.blocks import blocks_of
from docs.chrome import chrome
from e2e.harness import KEY, Server
from plugins.tools import CLIENTS

PAGE = blocks_of("docs/guides/javascript.md")
BLOCKS = {block.attributes["file"]: block.code for block in PAGE if "file" in block.attributes}

pytestmark = [pytest.mark.slow, pytest.mark.tool("node", "npm-clients")]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the page's files and the packages that it asks for."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "node_modules").symlink_to(CLIENTS / "node_modules")
    for name, code in BLOCKS.items():
        (folder / name).write_text(code)
    return folder


def node(programs: Path, server: Server, *arguments: str, **environ: str) -> "subprocess.Popen[str]":
    env = {"PATH": os.environ["PATH"], "POKEE_API": server.url, "POKEE_KEY": KEY, **environ}
    return subprocess.Popen(["node", *arguments], cwd=programs, env=env, stdout=subprocess.PIPE, text=True)


ALL_EVENTS = """
import { textOf, turnwire } from "./turnwire.mjs";
const tw = turnwire(process.env.POKEE_API, process.env.POKEE_KEY);
const events = [];
console.log("ready");
for await (const event of tw.send(await tw.session(), process.argv[2])) {
  events.push(event);
  if (events.length === 8) console.log("began");
}
console.log(JSON.stringify({ events, text: textOf(events) }));
"""


def test_the_module_reads_on_when_the_server_is_killed_in_the_middle(programs: Path, tmp_path: Path) -> None:
    (programs / "all.mjs").write_text(ALL_EVENTS)
    with Server(tmp_path) as server, node(programs, server, "all.mjs", "/stream 30 20") as program:
        assert program.stdout
        assert [program.stdout.readline(), program.stdout.readline()] == ["ready\n", "began\n"]
        server.kill()
        server.restart()
        result = json.loads(program.stdout.readline())
        assert program.wait(20) == 0

    types = [event["type"] for event in result["events"]]
    assert [event["sequence_number"] for event in result["events"]] == list(range(len(types)))
    assert types.count("message.resumed") == 1
    assert types[-1] == "message.completed"
    assert result["text"] == "".join(f"{n} " for n in range(1, 31))


def test_the_module_says_what_the_server_refused(programs: Path, tmp_path: Path) -> None:
    program_text = """
    import { turnwire } from "./turnwire.mjs";
    const tw = turnwire(process.env.POKEE_API, process.env.POKEE_KEY);
    try {
      for await (const _ of tw.send("sess_000000000000", "hi")) {}
    } catch (error) {
      console.log(error.status, error.error, error.message);
    }
    """
    (programs / "refused.mjs").write_text(program_text)
    with Server(tmp_path) as server, node(programs, server, "refused.mjs") as program:
        said, _ = program.communicate(timeout=20)

    assert said.startswith("404 not_found ") and said.rstrip().endswith(".")


def test_the_module_gives_a_server_up_that_stays_away(programs: Path, tmp_path: Path) -> None:
    module = BLOCKS["turnwire.mjs"]
    assert "GIVE_UP_MS = 120_000" in module
    (programs / "turnwire.mjs").write_text(module.replace("GIVE_UP_MS = 120_000", "GIVE_UP_MS = 700"))
    (programs / "all.mjs").write_text(ALL_EVENTS)
    with Server(tmp_path) as server, node(programs, server, "all.mjs", "/stream 30 20") as program:
        assert program.stdout
        assert [program.stdout.readline(), program.stdout.readline()] == ["ready\n", "began\n"]
        server.kill()
        assert program.wait(20) == 1
        server.restart()


@pytest.mark.tool("chromium")
def test_the_web_page_follows_a_turn_by_its_ticket_over_a_restart(programs: Path, tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        with node(programs, server, "backend.mjs", PORT="0") as backend:
            assert backend.stdout
            address = backend.stdout.readline().strip()
            try:
                server.stop()
                server.restart(cors_origins=address)
                with chrome() as page:
                    page.goto(address)
                    page.get_by_role("textbox").fill("/stream 30 20")
                    page.get_by_role("button", name="Send").click()
                    page.wait_for_function("document.querySelector('pre').textContent.startsWith('1 2 3 ')")
                    server.kill()
                    server.restart()
                    page.wait_for_function("document.title === 'message.completed'")
                    text = page.locator("pre").text_content()
            finally:
                backend.terminate()

    assert text == "".join(f"{n} " for n in range(1, 31))


IMPORTS = {
    "eventsource-parser/stream": "/node_modules/eventsource-parser/dist/stream.js",
    "@microsoft/fetch-event-source": "/node_modules/@microsoft/fetch-event-source/lib/esm/index.js",
}


class _Quiet(SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        """As a bundler finds modules: an import may leave the `.js` away."""
        file = Path(super().translate_path(path))
        return str(file if file.exists() else file.with_suffix(".js"))

    def guess_type(self, path: object) -> str:
        return "text/javascript" if str(path).endswith(("js", "mjs")) else "text/html"

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.tool("chromium")
def test_the_module_and_fetch_event_source_read_a_turn_in_a_browser(programs: Path, tmp_path: Path) -> None:
    import_map = json.dumps({"imports": IMPORTS})
    (programs / "empty.html").write_text(f'<!doctype html><script type="importmap">{import_map}</script>')
    with serving(programs) as origin, Server(tmp_path, cors_origins=origin) as server, chrome() as page:
        page.goto(f"{origin}/empty.html")
        expression = f"""(async () => {{
            const {{ textOf, turnwire }} = await import("/turnwire.mjs");
            const {{ ask }} = await import("/with-fetch-event-source.mjs");
            const tw = turnwire({server.url!r}, {KEY!r}), session = await tw.session();
            const ours = [], theirs = [], message = "/think hm\\n/text One two three";
            for await (const event of tw.send(session, message)) ours.push(event);
            await ask({server.url!r}, {KEY!r}, session, message, (event) => theirs.push(event));
            return [textOf(ours), textOf(theirs), ours.length, theirs.length];
        }})()"""
        ours, theirs, our_count, their_count = page.evaluate(expression)

    assert ours == theirs == "One two three"
    assert our_count == their_count > 8
