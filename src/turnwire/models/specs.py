"""Model specs: `provider:model`, `local`, `local:FILE`, `demo`, `scripted:FILE`; and what each provider needs.

No SDK is imported here: an import of one takes most of a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from turnwire.models.errors import ModelSpecError, ModelUnavailable

Provider = Literal[
    "anthropic", "openai", "openai-chat", "google", "ollama", "vllm", "local", "local-file", "demo", "scripted"
]

# What is asked when only a vendor's key is known. The one place to bring up to date.
DEFAULT_MODELS = {
    "anthropic": "claude-sonnet-5-5",
    "openai": "gpt-6.1-terra",
    "google": "gemini-3.8-flash",
}
# Other ways to write a provider.
ALIASES: dict[str, Provider] = {
    "openai-responses": "openai",
    "google-gla": "google",
    "gemini": "google",
    "claude": "anthropic",
}
TITLES: dict[Provider, str] = {
    "anthropic": "Anthropic",
    "openai": "OpenAI",
    "openai-chat": "OpenAI Chat Completions",
    "google": "Google",
    "ollama": "Ollama",
    "vllm": "vLLM",
}
NAMED: tuple[Provider, ...] = ("anthropic", "openai", "openai-chat", "google", "ollama", "vllm")
VENDOR_KEYS: dict[Provider, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "openai-chat": ("OPENAI_API_KEY",),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
}
ANTHROPIC_URL = "https://api.anthropic.com"
OPENAI_URL = "https://api.openai.com/v1"
OLLAMA_URL = "http://127.0.0.1:11434"
VLLM_URL = "http://127.0.0.1:8000/v1"
FORMS = (
    "anthropic:NAME, openai:NAME, openai-chat:NAME, google:NAME, ollama:NAME, vllm:NAME, local, local:FILE.gguf, demo, "
    "scripted:FILE.yaml"
)


@dataclass(frozen=True)
class Spec:
    """A spec that was understood. `name` is the model's name, or the file's; empty for `local` and `demo`."""

    provider: Provider
    name: str = ""

    @property
    def names_file(self) -> bool:
        return self.provider in ("local-file", "scripted")

    def __str__(self) -> str:
        provider = "local" if self.provider == "local-file" else self.provider
        return f"{provider}:{self.name}" if self.name else provider


def parse_spec(text: str) -> Spec:
    """Raises `ModelSpecError`."""
    provider, colon, name = text.strip().partition(":")
    name = name.strip()
    if provider == "demo" and not colon:
        return Spec("demo")
    if provider == "local":
        if colon and not name:
            raise ModelSpecError(f"The model {_shown(text)} names no file: it is `local`, or `local:FILE.gguf`.")
        return Spec("local-file", name) if colon else Spec("local")
    if provider == "scripted":
        if not name:
            raise ModelSpecError(f"The model {_shown(text)} names no file: it must be `scripted:FILE.yaml`.")
        return Spec("scripted", name)
    known: Provider | None = ALIASES.get(provider) or next((p for p in NAMED if p == provider), None)
    if known is None:
        raise ModelSpecError(f"The model {_shown(text)} is unknown. It must be one of: {FORMS}.")
    if not name:
        raise ModelSpecError(f"The model {_shown(text)} lacks a name: write `{provider}:NAME`.")
    return Spec(known, name)


def key_of(provider: Provider, env: Mapping[str, str]) -> str | None:
    """The provider's key, from the vendor's own variable."""
    return next((env[name].strip() for name in VENDOR_KEYS.get(provider, ()) if env.get(name, "").strip()), None)


def openai_base_url(env: Mapping[str, str]) -> str | None:
    """`OPENAI_BASE_URL`, when it is set; raises `ModelUnavailable` when it is no URL."""
    return _base_url("OPENAI_BASE_URL", env)


def anthropic_base_url(env: Mapping[str, str]) -> str | None:
    """`ANTHROPIC_BASE_URL`, as for OpenAI."""
    return _base_url("ANTHROPIC_BASE_URL", env)


def vllm_base_url(env: Mapping[str, str]) -> str:
    """`VLLM_BASE_URL`, or where vLLM listens by default."""
    return _base_url("VLLM_BASE_URL", env) or VLLM_URL


def ollama_url(env: Mapping[str, str]) -> str:
    """`OLLAMA_HOST` as Ollama itself reads it: `host`, `host:port` or a URL; 0.0.0.0 is a server's way to say all."""
    text = env.get("OLLAMA_HOST", "").strip()
    if not text:
        return OLLAMA_URL
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts_invalid(url) or not host:
        raise ModelUnavailable(f"OLLAMA_HOST is no host, host:port or URL: {_shown(text)}.")
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    if port is None and "://" not in text:
        port = 11434
    shown = f"[{host}]" if ":" in host else host
    return f"{urlsplit(url).scheme}://{shown}{f':{port}' if port else ''}{urlsplit(url).path.rstrip('/')}"


def parts_invalid(url: str) -> bool:
    """Whether the text is no http URL."""
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        return parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        return True


def _base_url(variable: str, env: Mapping[str, str]) -> str | None:
    text = env.get(variable, "").strip().rstrip("/")
    if not text:
        return None
    if parts_invalid(text):
        raise ModelUnavailable(f"{variable} is no URL: {_shown(text)}.", "It must begin with http:// or https://.")
    return text


def missing_key(provider: Provider) -> ModelUnavailable:
    """What to say when a provider's key is not set."""
    names = " or ".join(VENDOR_KEYS[provider])
    if provider == "openai-chat":
        return ModelUnavailable(
            "The model can't be asked: neither OPENAI_API_KEY nor OPENAI_BASE_URL is set.",
            "Set the key, or for a server of your own its address, which needs no key if the server doesn't.",
        )
    return ModelUnavailable(
        f"{TITLES[provider]} can't be asked: no key is set.", f"Set {names} in the server's environment."
    )


def is_configured(provider: Provider, env: Mapping[str, str]) -> bool:
    """Whether the environment says how to reach the provider."""
    match provider:
        case "anthropic" | "google":
            return key_of(provider, env) is not None
        case "openai" | "openai-chat":
            return key_of(provider, env) is not None or bool(env.get("OPENAI_BASE_URL", "").strip())
        case "ollama":
            return bool(env.get("OLLAMA_HOST", "").strip())
        case "vllm":
            return bool(env.get("VLLM_BASE_URL", "").strip())
        case _:
            return False


def _shown(text: str) -> str:
    """A caller's text in an error: quoted, on one line, not too long."""
    return repr(text if len(text) <= 80 else text[:79] + "…")
