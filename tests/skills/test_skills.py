"""Skills over HTTP, and what an agent makes of them."""

import json
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import to_thread

from fakes import Answer, FakeOpenAIChat, ToolCall
from files.served import KEY, PROGRAM, Files, Served, error_of, eventually
from skills.hostile import hostile, zipped
from turnwire.skills.limits import SKILLS_MAX

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*arguments: str, **env: str) -> Served:
        started.append(Served(tmp_path, env, arguments))
        return started[-1]

    yield start
    for server in started:
        server.close(kill=True)
        assert "request_failed" not in server.log.read_text()


def skill_md(name: str, description: str = "Does things.") -> bytes:
    return f"---\nname: {name}\ndescription: {description}\n---\n\n# {name}\n".encode()


def skill(name: str, *entries: tuple[str, bytes], description: str = "Does things.", top: str = "") -> bytes:
    return zipped(*entries, skill_md=skill_md(name, description), top=top)


def post(server: Served, name: str, content: Any, kind: str = "application/zip") -> httpx.Response:
    return server.client.post(f"/v1/skills/{name}", content=content, headers={"Content-Type": kind})


def names(server: Served) -> list[str]:
    return [record["name"] for record in server.client.get("/v1/skills").json()]


def test_the_life_of_a_skill(start: Callable[..., Served]) -> None:
    server = start()
    assert server.client.get("/v1/skills").json() == []

    new = post(server, "pdf-tools", skill("pdf-tools", ("pdf-main/scripts/run.py", b"print()"), top="pdf-main/"))
    other = post(server, "a", skill("a", description="'Two\n\n  lines'"))
    again = post(server, "pdf-tools", skill("pdf-tools", ("more.md", b"x" * 100), description="Better."))

    assert (new.status_code, other.status_code, again.status_code) == (201, 201, 200)
    listed = server.client.get("/v1/skills").json()
    assert [(s["name"], s["description"]) for s in listed] == [("a", "Two lines"), ("pdf-tools", "Better.")]
    assert all(set(s) == {"name", "description", "size", "modified"} for s in listed)
    assert listed[1] == again.json() and listed[1]["size"] == 100 + len(skill_md("pdf-tools", "Better."))
    folder = server.data / "skills" / "default" / "pdf-tools"
    assert sorted(path.name for path in folder.iterdir()) == ["SKILL.md", "more.md"]
    server.close()
    server.start()
    assert server.client.get("/v1/skills").json() == listed
    assert server.client.delete("/v1/skills/pdf-tools").status_code == 204
    assert error_of(server.client.delete("/v1/skills/pdf-tools")) == (404, "not_found")
    assert names(server) == ["a"]
    assert server.client.post("/v1/skills", content=b"").status_code == 405


def test_what_is_no_skill_is_refused_and_said(start: Callable[..., Served]) -> None:
    server = start()
    good = skill("good")
    post(server, "good", good)

    for name in ("Good", "a_b", "-a", "a-", "a--b", "x" * 65, "%2e%2e", ".staging", "caf%c3%a9", "a.b"):
        assert error_of(post(server, name, good)) == (400, "invalid_request"), name
    assert error_of(post(server, "other", good)) == (400, "invalid_request")
    for kind in ("application/json", "text/plain", "multipart/form-data"):
        assert error_of(post(server, "good", good, kind)) == (415, "unsupported_media_type")
    attacks = hostile()
    for what, status in (
        ("symlink", 400), ("encrypted", 400), ("name '../evil'", 400), ("an entry twice", 400), ("no zip", 400),
        ("names that differ in case", 400), ("bomb by ratio", 413), ("bomb by count", 413), ("bomb by total", 413),
    ):  # fmt: skip
        assert post(server, "demo", attacks[what]).status_code == status, what
    assert error_of(post(server, "good", iter([b"x" * 1_000_000] * 40))) == (413, "payload_too_large")
    assert names(server) == ["good"]
    for number in range(1, SKILLS_MAX):
        assert post(server, f"s{number}", skill(f"s{number}")).status_code == 201
    assert error_of(post(server, "one-more", skill("one-more"))) == (409, "conflict")
    assert post(server, "good", good).status_code == 200


def test_a_torn_upload_changes_nothing(start: Callable[..., Served]) -> None:
    server = start()
    post(server, "demo", skill("demo", description="Before."))
    content = skill("demo", ("a", bytes(range(256)) * 100), description="After.")
    staging = server.data / "skills" / ".staging"

    for size in (0, 10, len(content) - 1):
        with server.connected() as sock:
            head = f"POST /v1/skills/demo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            head += f"Content-Type: application/zip\r\nContent-Length: {len(content)}\r\n\r\n"
            sock.sendall(head.encode() + content[:size])
            eventually(lambda: list(staging.iterdir()))
        eventually(lambda: not list(staging.iterdir()))

    assert server.client.get("/v1/skills").json()[0]["description"] == "Before."


def test_a_skill_is_replaced_at_once(start: Callable[..., Served]) -> None:
    server = start()
    folder = server.data / "skills" / "default" / "demo"
    versions = [skill("demo", (f"v{n}", b"x" * n), description=f"Version {n}.") for n in range(2)]
    post(server, "demo", versions[0])
    done = threading.Event()
    gaps = 0
    looks = 0

    def look() -> None:
        nonlocal gaps, looks
        while not done.is_set():
            looks += 1
            gaps += not (folder / "SKILL.md").exists()

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(60):
        assert post(server, "demo", versions[number % 2]).status_code == 200
    done.set()
    thread.join()

    assert looks > 100 and gaps == 0


def test_skills_are_a_tenants_own(start: Callable[..., Served]) -> None:
    server = start()
    post(server, "demo", skill("demo"))
    made = subprocess.run(
        [PROGRAM, "keys", "create", "neighbour", "--tenant", "other", "--data-dir", server.data],
        env=server.env,
        capture_output=True,
        text=True,
        check=True,
    )
    key = next(word for word in made.stdout.split() if word.startswith("tw_"))
    other = {"Authorization": f"Bearer {key}"}

    assert server.client.get("/v1/skills", headers=other).json() == []
    assert server.client.delete("/v1/skills/demo", headers=other).status_code == 404


async def test_an_agent_is_told_of_skills_and_reads_them(start: Callable[..., Served]) -> None:
    def call(name: str, **arguments: str) -> ToolCall:
        return ToolCall(name, [json.dumps(arguments)])

    calls = [
        call("read_file", path="/skills/pdf-tools/SKILL.md"),
        call("list_files", path="/skills"),
        call("list_files", path="/skills/pdf-tools"),
        call("search_files", pattern="needle", path="/skills"),
        call("write_file", path="/skills/pdf-tools/SKILL.md", content="mine"),
        call("edit_file", path="/skills/pdf-tools/SKILL.md", old="Pages", new="x"),
        call("read_file", path="/skills/../../secret"),
        call("read_file", path="/skills/nowhere/SKILL.md"),
        call("read_file", path="SKILL.md"),
    ]
    async with FakeOpenAIChat([Answer.of(*calls), Answer.of("Done."), Answer.of("Bye.")]) as fake:
        vendor = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url, "TURNWIRE_INSTRUCTIONS": "Be kind."}
        server = await to_thread.run_sync(lambda: start("--model", "openai-chat:fake-model", **vendor))
        content = skill("pdf-tools", ("ref/notes.md", b"a needle"), description="Pages out of PDFs. Use it for PDFs.")
        assert (await to_thread.run_sync(post, server, "pdf-tools", content)).status_code == 201
        session = await to_thread.run_sync(server.session)
        results = await to_thread.run_sync(_results, session, "Go.")
        await to_thread.run_sync(server.client.delete, "/v1/skills/pdf-tools")
        await to_thread.run_sync(_results, session, "Again.")

    told = [str(request.body["messages"][0]["content"]) for request in fake.requests]
    line = "- pdf-tools: Pages out of PDFs. Use it for PDFs."
    assert "Be kind." in told[0] and line in told[0]
    assert told[1] == told[0]
    assert "Be kind." in told[2] and "/skills" not in told[2]
    (read, root, listed, found, written, edited, climbed, missing, relative) = results
    assert read == (skill_md("pdf-tools", "Pages out of PDFs. Use it for PDFs.").decode(), False)
    assert root == ("/skills/pdf-tools/", False)
    assert listed[0].splitlines()[0].startswith("/skills/pdf-tools/SKILL.md\t")
    assert found == ("/skills/pdf-tools/ref/notes.md:1: a needle", False)
    assert [result[1] for result in (written, edited, climbed, missing, relative)] == [True] * 5
    assert "only be read" in written[0]


async def test_a_script_of_a_skill_runs_in_the_sandbox(start: Callable[..., Served]) -> None:
    command = "cd /skills/counter && ./scripts/count.sh data; echo mine > SKILL.md; ls /skills /skills/.."
    call = ToolCall("bash", [json.dumps({"command": command})])
    async with FakeOpenAIChat([Answer.of(call), Answer.of("Done.")]) as fake:
        vendor = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        server = await to_thread.run_sync(lambda: start("--model", "openai-chat:fake-model", **vendor))
        script = zipfile.ZipInfo("scripts/count.sh")
        script.external_attr = 0o100755 << 16
        content = zipped((script, b"#!/bin/sh\nwc -l < $1\n"), ("data", b"1\n2\n3\n"), skill_md=skill_md("counter"))
        assert (await to_thread.run_sync(post, server, "counter", content)).status_code == 201
        session = await to_thread.run_sync(server.session)
        results = await to_thread.run_sync(_results, session, "Go.")

    if "bash" not in [tool["function"]["name"] for tool in fake.requests[0].body["tools"]]:
        pytest.skip("sandbox: none works on this machine")
    output = results[0][0]
    assert "3" in output.splitlines() and "counter" in output.splitlines()
    assert "Read-only file system" in output
    assert (server.data / "skills/default/counter/SKILL.md").read_bytes() == skill_md("counter")


def _results(session: Files, message: str) -> list[tuple[str, bool]]:
    """What the tools said in a turn, in the order of the calls."""
    answer = session.server.client.post(f"/v1/sessions/{session.id}/messages", json={"message": message})
    events = [
        (block.split("\n")[0].removeprefix("event: "), json.loads(block.split("\n")[1].removeprefix("data: ")))
        for block in answer.text.split("\n\n")[:-1]
        if not block.startswith(":")
    ]
    assert events[-1][0] == "message.completed", events[-1]
    results = {data["id"]: (data["content"], data["is_error"]) for name, data in events if name == "tool_result"}
    return [results[data["id"]] for name, data in events if name == "tool_use.start"]
