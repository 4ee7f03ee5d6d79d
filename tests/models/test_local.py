"""The embedded model itself: nothing here is a stand-in but where a file is damaged on purpose."""

import asyncio
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from turnwire.models import local, local_process
from turnwire.models.errors import ModelUnavailable
from turnwire.models.fitting import fitted
from turnwire.models.gguf import read_gguf
from turnwire.models.local import LocalModel, LocalSettings, small_weights
from turnwire.models.resolve import Models, openai_chat

from .played_helpers import said

SHORT = {"max_tokens": 12}


@pytest.fixture(scope="module")
async def model():
    """One for all who leave it alive."""
    model = LocalModel(openai_chat)
    yield model
    await model.aclose()


@pytest.fixture
async def own():
    """One to kill."""
    model = LocalModel(openai_chat, settings=LocalSettings(n_ctx=512))
    yield model
    await model.aclose()


@pytest.fixture
async def tight():
    """One with a short context: reading a long prompt takes seconds."""
    model = LocalModel(openai_chat, settings=LocalSettings(n_ctx=384, n_parallel=1))
    yield model
    await model.aclose()


async def ask(model, messages, settings=SHORT, tools=()) -> ModelResponse:
    parameters = ModelRequestParameters(function_tools=[ToolDefinition(name=name) for name in tools])
    async with model.request_stream(messages, settings, parameters) as stream:
        async for _ in stream:
            pass
    return stream.get()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_it_answers_with_text_a_delta_at_a_time_and_its_usage(model):
    events = []
    async with model.request_stream([said("Write a poem")], SHORT, ModelRequestParameters()) as stream:
        events = [event async for event in stream]

    response = stream.get()
    assert len(response.text) > 10
    assert len(events) > 5
    assert response.usage.input_tokens > 10
    assert response.usage.output_tokens == 12
    assert response.finish_reason == "length"


async def test_four_are_answered_at_once(model):
    responses = await asyncio.gather(*(ask(model, [said(f"Number {i}")]) for i in range(6)))

    assert all(response.text for response in responses)


async def test_it_is_offered_no_tools_and_says_so(model):
    response = await ask(model, [said("Call f")], tools=("f",))

    assert not model.supports_tools
    assert not model.profile["supports_tools"]
    assert response.tool_calls == []
    assert not Models("local", env={}).capabilities().tools


async def test_its_process_serves_only_this_machine_and_only_with_its_key(model):
    running = await model._process.running()
    request = urllib.request.Request(f"{running.base_url}/models")

    with pytest.raises(urllib.error.HTTPError) as refused:
        await asyncio.to_thread(urllib.request.urlopen, request)
    refused.value.close()
    command = Path(f"/proc/{running.pid}/cmdline").read_text() + Path(f"/proc/{running.pid}/environ").read_text()

    assert running.base_url.startswith("http://127.0.0.1:")
    assert refused.value.code == 401
    assert running.api_key not in command


async def test_it_is_told_no_secrets(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-secret-of-ours")
    model = LocalModel(openai_chat)
    environment = Path(f"/proc/{await model.pid()}/environ").read_text()
    await model.aclose()

    assert "a-secret-of-ours" not in environment


async def test_starting_twice_is_one_process(model):
    await asyncio.gather(model.start(), model.start())
    first = await model.pid()
    await model.start()

    assert await model.pid() == first


@pytest.mark.slow
async def test_it_is_restarted_when_it_dies_and_a_request_finds_it(own):
    first = await own.pid()
    os.kill(first, signal.SIGKILL)
    response = await ask(own, [said("hello")])

    assert response.text
    assert await own.pid() != first


@pytest.mark.slow
async def test_a_request_that_is_under_way_when_it_dies_ends_in_an_error(own):
    pid = await own.pid()
    seen = 0
    with pytest.raises(ModelAPIError):
        async with own.request_stream([said("Tell a story")], None, ModelRequestParameters()) as stream:
            async for _ in stream:
                seen += 1
                if seen == 5:
                    os.kill(pid, signal.SIGKILL)

    assert seen >= 5


@pytest.mark.slow
async def test_it_waits_longer_before_each_restart_and_then_tells(own, monkeypatch):
    monkeypatch.setattr(local_process, "PATIENCE_S", 0.1)
    for _ in range(2):
        pid = await own.pid()
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: not Path(f"/proc/{pid}").exists())
        await asyncio.sleep(0.05)
        with pytest.raises(ModelUnavailable, match="does not come up: it has died"):
            await own.start()
        monkeypatch.setattr(local_process, "PATIENCE_S", 10)
        await own.start()
        monkeypatch.setattr(local_process, "PATIENCE_S", 0.1)


async def test_closing_ends_its_process_and_it_stays_closed():
    model = LocalModel(openai_chat)
    pid = await model.pid()
    await model.aclose()
    await model.aclose()

    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(ModelAPIError, match=r"The local model local has been stopped\."):
        await ask(model, [said("hello")])


async def test_it_ignores_interrupts_and_has_a_session_of_its_own(model):
    pid = await model.pid()
    os.kill(pid, signal.SIGINT)
    await asyncio.sleep(0.1)

    assert alive(pid)
    assert os.getsid(pid) == pid


PARENT = """
import asyncio, os
from turnwire.models.local import LocalModel
from turnwire.models.resolve import openai_chat
async def main():
    model = LocalModel(openai_chat)
    if {early}:
        asyncio.create_task(model.start())
        while model._process._keeper is None: await asyncio.sleep(0)
        await asyncio.sleep(0.15)
        children = open(f"/proc/self/task/{{os.getpid()}}/children").read().split()
        print(children[0], flush=True)
    else:
        print(await model.pid(), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("early", [False, True], ids=["serving", "loading"])
async def test_it_dies_with_a_parent_that_is_killed(early):
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(early=early)], stdout=subprocess.PIPE, text=True)
    child = int(await asyncio.to_thread(parent.stdout.readline))
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()

    await until(lambda: not alive(child), 3)


@pytest.mark.slow
async def test_without_the_kernels_help_it_still_dies_with_its_parent(own):
    running = await own._process.running()
    # The innermost frame of the keeper that waits for the process, for its end of the pipe.
    process = own._process._keeper.get_coro().cr_await.cr_frame.f_locals["process"]
    process.stdin.close()

    await until(lambda: not alive(running.pid), 3)


# --- prompts longer than the context


@pytest.mark.slow
async def test_the_oldest_messages_are_left_out_when_there_are_too_many(tight):
    messages = []
    for _ in range(30):
        messages += [said("word " * 50), ModelResponse(parts=[TextPart("ok")])]
    response = await ask(tight, [*messages, said("bye")])

    assert response.text
    assert 100 < response.usage.input_tokens < tight.n_ctx


async def test_a_single_message_that_is_too_long_is_told(model):
    with pytest.raises(ModelAPIError, match=r"too long for the local model local: its context is 8192 tokens\."):
        await ask(model, [said("a b " * 9000)])


@pytest.mark.slow
async def test_an_estimate_that_was_too_low_is_halved(monkeypatch, tight):
    monkeypatch.setattr("turnwire.models.fitting.BYTES_PER_TOKEN", 1000)
    messages = []
    for _ in range(12):
        messages += [said("a b " * 25), ModelResponse(parts=[TextPart("ok")])]
    response = await ask(tight, [*messages, said("bye")])

    assert response.text


def test_whole_turns_are_left_out_and_system_prompts_stay():
    call = ToolCallPart("f", {"x": "y" * 300}, "c1")
    old = [
        ModelRequest(parts=[SystemPromptPart("Be kind."), *said("first").parts]),
        ModelResponse(parts=[call]),
        ModelRequest(parts=[ToolReturnPart("f", "z" * 300, "c1")]),
        ModelResponse(parts=[TextPart("done")]),
    ]
    new = [said("second")]

    assert fitted([*old, *new], 1000) == [*old, *new]
    (request,) = fitted([*old, *new], 100)
    assert [getattr(part, "content", "") for part in request.parts] == ["Be kind.", "second"]
    assert fitted(old, 0) == old
    assert fitted([], 0) == []


# --- other files


@pytest.mark.slow
async def test_any_gguf_file_runs_the_same_way(tmp_path):
    path = tmp_path / "some.gguf"
    path.symlink_to(small_weights())
    model = LocalModel(openai_chat, path, LocalSettings(n_ctx=512, n_parallel=1))
    try:
        response = await ask(model, [said("hello")])
    finally:
        await model.aclose()

    assert response.text
    assert (model.model_name, model.n_ctx) == ("local:some.gguf", 512)


def gguf(path: Path, pairs: dict[str, str]) -> Path:
    """A header, and no weights."""
    texts = [text.encode() for pair in pairs.items() for text in pair]
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    for key, value in zip(texts[::2], texts[1::2], strict=True):
        data += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    path.write_bytes(data)
    return path


def test_the_chat_template_says_whether_a_file_takes_tools_and_thinks(tmp_path):
    able = gguf(tmp_path / "able.gguf", {"tokenizer.chat_template": "{% if tools %}…{% endif %}<think>"})
    plain = gguf(tmp_path / "plain.gguf", {"tokenizer.chat_template": "{{ messages }}"})

    for path, can in ((able, True), (plain, False)):
        capabilities = Models(f"local:{path}", env={}).capabilities()
        assert (capabilities.tools, capabilities.thinking, capabilities.images) == (can, can, False)
        assert LocalModel(openai_chat, path).supports_tools is can


def test_the_embedded_file_says_what_it_is():
    read = read_gguf(small_weights())

    assert (read.architecture, read.context) == ("llama", 8192)
    assert "<|im_start|>" in read.chat_template
    assert not read.thinks


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "can't be read: No such file or directory."),
        (b"", "it does not begin with the letters GGUF."),
        (b"\x7fELF", "it does not begin with the letters GGUF."),
        (b"GGUF", "is no whole GGUF model."),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "its version, 9, is unknown."),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "its header is damaged."),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "its header is damaged."),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 100) + b"short", "it ends in the middle of its header."),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path, content, reason):
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ModelUnavailable) as refused:
        LocalModel(openai_chat, path)

    assert reason in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.slow
async def test_a_file_that_is_cut_off_is_told_and_not_tried_again_at_once(tmp_path):
    path = tmp_path / "cut.gguf"
    with small_weights().open("rb") as whole, path.open("wb") as cut:
        cut.write(whole.read(30_000_000))
    model = LocalModel(openai_chat, path)
    try:
        with pytest.raises(ModelUnavailable, match=r"The local model local:cut\.gguf can't be loaded"):
            await model.start()
        begun = time.perf_counter()
        with pytest.raises(ModelAPIError, match="can't be loaded"):
            await ask(model, [said("hello")])
        assert time.perf_counter() - begun < 0.2
        shutil.copy(small_weights(), path)
        await asyncio.sleep(0.6)
        assert (await ask(model, [said("hello")])).text
    finally:
        await model.aclose()


def test_missing_wheels_are_named_with_what_to_do(monkeypatch):
    find = local.importlib.util.find_spec
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda n: None if n == "xllamacpp" else find(n))

    assert local.missing_wheels() == ["xllamacpp"]
    with pytest.raises(ModelUnavailable, match=r"xllamacpp is not installed\. Run `turnwire models pull-local`"):
        LocalModel(openai_chat)


def test_the_child_without_a_parent_that_tells_it_what_to_do_ends():
    command = [sys.executable, "-m", "turnwire.models.local_child"]
    silent = subprocess.run(command, input=b"", capture_output=True, timeout=20)
    orphan = subprocess.run(command, input=json.dumps({"parent": 1}).encode() + b"\n", capture_output=True, timeout=20)

    assert (silent.returncode, silent.stdout) == (0, b"")
    assert (orphan.returncode, orphan.stdout) == (1, b"")
