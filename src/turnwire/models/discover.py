"""Which model to use when none is set: what the environment, this machine and the installation offer."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx2

from turnwire.models.errors import ModelUnavailable
from turnwire.models.local import missing_wheels
from turnwire.models.specs import (
    DEFAULT_MODELS,
    TITLES,
    VENDOR_KEYS,
    key_of,
    ollama_url,
    openai_base_url,
    vllm_base_url,
)

# A server on this machine answers in milliseconds, or in more when it is busy; the start of ours must not wait for one
# that only listens.
LOCAL_TIMEOUT_S = 0.5
# One that is named in OPENAI_BASE_URL may be far away.
NAMED_TIMEOUT_S = 3.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class Choice:
    """A model, and the sentence that says why it is the one."""

    spec: str
    why: str


async def choose_default(env: Mapping[str, str]) -> Choice:
    """The model to use when none is set. Looks at keys first, then asks local servers; never raises."""
    for provider in ("anthropic", "openai", "google"):
        if provider == "openai" and _is_elsewhere(env):
            return await _named_server(env)
        if key_of(provider, env):
            variable = next(name for name in VENDOR_KEYS[provider] if env.get(name, "").strip())
            return Choice(
                f"{provider}:{DEFAULT_MODELS[provider]}", f"{variable} is set, so it is {TITLES[provider]}'s."
            )
    ollama, vllm = await asyncio.gather(_ollama(env), _vllm(env))
    for found in (ollama, vllm):
        if isinstance(found, Choice):
            return found
    note = f"{ollama} " if isinstance(ollama, str) else ""
    missing = missing_wheels()
    if not missing:
        return Choice(
            "local",
            f"{note}No key is set and no Ollama or vLLM answers here, so it is the embedded model: small, for a first "
            "try, and without tools. For real work set a key, or TURNWIRE_MODEL.",
        )
    return Choice(
        "demo",
        f"{note}No key is set, no Ollama or vLLM answers here, and the embedded model is not installed "
        f"({' and '.join(missing)}), so it is the demo model, which only follows rules. "
        "Set a key, or run `turnwire models pull-local`.",
    )


def _is_elsewhere(env: Mapping[str, str]) -> bool:
    url = env.get("OPENAI_BASE_URL", "").strip()
    return bool(url) and "api.openai.com" not in url


async def _named_server(env: Mapping[str, str]) -> Choice:
    """OPENAI_BASE_URL names a server: take the model that it has."""
    default = DEFAULT_MODELS["openai"]
    try:
        url = openai_base_url(env)
    except ModelUnavailable as error:
        return Choice(f"openai-chat:{default}", str(error))
    key = key_of("openai", env)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    names = _listed(await _get(f"{url}/models", NAMED_TIMEOUT_S, headers))
    if default in names or not names:
        what = "has it" if names else "doesn't say what it has; set TURNWIRE_MODEL if it is another one"
        return Choice(f"openai-chat:{default}", f"OPENAI_BASE_URL is set, and the server there {what}.")
    return Choice(f"openai-chat:{names[0]}", "OPENAI_BASE_URL is set, and it is the first model of the server there.")


async def _ollama(env: Mapping[str, str]) -> Choice | str | None:
    """A model that an Ollama has, or a remark about one that has none."""
    try:
        url = ollama_url(env)
    except ModelUnavailable as error:
        return str(error)
    answer = await _get(f"{url}/api/tags", LOCAL_TIMEOUT_S)
    if not isinstance(answer, dict) or "models" not in answer:
        return f"OLLAMA_HOST is set, but no Ollama answers at {url}." if env.get("OLLAMA_HOST") else None
    names = [name for model in _dicts(cast("dict[str, Any]", answer)["models"]) if (name := _chat_model(model))]
    if not names:
        return f"The Ollama at {url} has no model: `ollama pull qwen3` gets one."
    return Choice(f"ollama:{names[0]}", f"No key is set, and an Ollama answers at {url}; it has this model.")


def _chat_model(model: dict[str, Any]) -> str | None:
    """The model's name, unless it only makes embeddings."""
    name = model.get("name") or model.get("model")
    family = str(cast("dict[str, Any]", model.get("details") or {}).get("family", ""))
    if not isinstance(name, str) or "embed" in name or "bert" in family:
        return None
    return name


async def _vllm(env: Mapping[str, str]) -> Choice | None:
    try:
        url = vllm_base_url(env)
    except ModelUnavailable:
        return None
    names = _listed(await _get(f"{url}/models", LOCAL_TIMEOUT_S))
    if not names:
        return None
    return Choice(f"vllm:{names[0]}", f"No key is set, and a vLLM answers at {url}; it has this model.")


def _listed(answer: object) -> list[str]:
    """The names in an OpenAI-compatible list of models; none when it is something else."""
    if not isinstance(answer, dict):
        return []
    models = _dicts(cast("dict[str, Any]", answer).get("data"))
    return [m["id"] for m in models if isinstance(m.get("id"), str) and m.get("object", "model") == "model"]


def _dicts(items: object) -> list[dict[str, Any]]:
    if not isinstance(items, list):
        return []
    return [cast("dict[str, Any]", item) for item in cast("list[object]", items) if isinstance(item, dict)]


async def _get(url: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON at the URL, or None for whatever goes wrong: nothing here is worth an error."""
    local = url.startswith(("http://127.", "http://localhost", "http://[::1]"))
    # Without TLS no certificates are needed, and to read them takes tens of milliseconds of the start.
    client = httpx2.AsyncClient(timeout=timeout_s, trust_env=not local, verify=url.startswith("https:"))
    try:
        async with client, asyncio.timeout(timeout_s):
            answer = await client.get(url, headers=dict(headers or {}))
        return answer.json() if answer.status_code == 200 and len(answer.content) <= ANSWER_BYTES_MAX else None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError, ValueError):
        return None
