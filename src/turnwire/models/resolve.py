"""From a model spec to a pydantic-ai model, and what a server can be asked for.

`Models` is what a server holds: it makes each model once, knows the default one, says which others a caller may name,
and ends the local processes. SDKs are imported with the first model of their provider (`preload` does it early).
"""

import asyncio
import importlib
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model
from pydantic_ai.providers import Provider as ModelProvider
from pydantic_ai.settings import ModelSettings

from turnwire.models.demo import DemoModel
from turnwire.models.errors import ModelError, ModelSpecError, ModelUnavailable
from turnwire.models.gguf import read_gguf
from turnwire.models.local import LocalModel, LocalSettings, missing_wheels
from turnwire.models.scripted import ScriptedModel
from turnwire.models.specs import (
    ANTHROPIC_URL,
    DEFAULT_MODELS,
    OPENAI_URL,
    Provider,
    Spec,
    anthropic_base_url,
    is_configured,
    key_of,
    missing_key,
    ollama_url,
    openai_base_url,
    parse_spec,
    vllm_base_url,
)
from turnwire.models.thinking import ThinkingLevel, thinking_settings, thinks

# The engine retries a step, and says so in the log; a second retry below it would only multiply the waiting.
NO_RETRIES = ModelSettings(max_retries=0)
# Callers choose names. A model that is dropped may still be in use; its connections end when nobody holds it.
MODELS_KEPT = 256
# Tokens of context of a model of which nobody says how many it has: what most hosted ones have at least. A provider
# that refuses a conversation as too long corrects it.
CONTEXT_TOKENS_DEFAULT = 128_000
# Servers that need no key get this one: the SDK wants something.
NO_KEY = "none"
SDKS: dict[Provider, tuple[str, ...]] = {
    "anthropic": ("pydantic_ai.models.anthropic", "pydantic_ai.providers.anthropic"),
    "google": ("pydantic_ai.models.google", "pydantic_ai.providers.google"),
    "openai": ("pydantic_ai.models.openai", "pydantic_ai.providers.openai"),
    **dict.fromkeys(("openai-chat", "ollama", "vllm", "local", "local-file"), ("turnwire.models.openai_chat",)),
}


class Entry(msgspec.Struct, frozen=True):
    """A model that callers may name, as `GET /v1/models` lists it."""

    id: str
    provider: str
    default: bool
    tools: bool
    thinking: bool
    images: bool


class Capabilities(msgspec.Struct, frozen=True):
    """What a model can be given: tools, a thinking level, images and files in a message."""

    tools: bool
    thinking: bool
    images: bool
    files: bool


class Models:
    """The models of one server. `default` is the spec in its settings; `env` the environment, for keys and addresses.

    Belongs to one event loop once a local model runs; `aclose()` ends that.
    """

    def __init__(
        self, default: str, *, env: Mapping[str, str] | None = None, local: LocalSettings | None = None
    ) -> None:
        self.default = parse_spec(default)
        self._env = os.environ if env is None else env
        self._local_settings = local
        self._models: OrderedDict[Spec, Model] = OrderedDict()
        self._locals: dict[Spec, LocalModel] = {}
        self._providers: dict[Provider, ModelProvider[Any]] = {}
        self._entered: list[ModelProvider[Any]] = []

    def resolve(self, spec: str | None = None) -> Model:
        """The model; raises `ModelSpecError` or `ModelUnavailable`. None is the default one."""
        understood = self.default if spec is None else parse_spec(spec)
        model = self._locals.get(understood) or self._models.get(understood)
        if model is None:
            try:
                model = self._make(understood)
            except UserError as error:
                raise ModelUnavailable(f"The model {understood} can't be used: {error}") from error
        if isinstance(model, LocalModel):
            self._locals[understood] = model
        else:
            self._models[understood] = model
            self._models.move_to_end(understood)
            if len(self._models) > MODELS_KEPT:
                self._models.popitem(last=False)
        return model

    async def import_sdk(self, spec: str | None = None) -> None:
        """Import what the model's provider needs, in a thread: a server goes on serving meanwhile."""
        understood = self.default if spec is None else parse_spec(spec)
        for module in SDKS.get(understood.provider, ()):
            if module not in sys.modules:
                await asyncio.to_thread(importlib.import_module, module)

    async def preload(self, spec: str | None = None) -> None:
        """Import what the model needs and, if it is a local one, start it. Raises what `resolve` does."""
        await self.import_sdk(spec)
        model = self.resolve(spec)
        if isinstance(model, LocalModel):
            await model.start()
        provider = self._providers.get(self.default.provider if spec is None else parse_spec(spec).provider)
        if provider is not None and provider not in self._entered:
            # Whoever uses a provider that nobody holds closes its connections when done; so it is held.
            self._entered.append(provider)
            await provider.__aenter__()

    async def aclose(self) -> None:
        """End local processes and close connections. Idempotent."""
        models: list[Any] = [*self._locals.values(), *self._models.values()]
        await asyncio.gather(*(model.aclose() for model in models if hasattr(model, "aclose")))
        while self._entered:
            await self._entered.pop().__aexit__(None, None, None)

    def is_allowed(self, spec: str) -> bool:
        """Whether a caller may name it: the default, or a model of a configured provider, but no file."""
        try:
            understood = parse_spec(spec)
        except ModelSpecError:
            return False
        if understood == self.default:
            return True
        if understood.provider == "local":
            return not missing_wheels()
        if understood.provider == "demo":
            return True
        return not understood.names_file and (
            is_configured(understood.provider, self._env) or understood.provider == self.default.provider
        )

    def catalogue(self) -> list[Entry]:
        """What callers can be told to choose from: the default first, then each configured provider's usual model."""
        specs = [self.default]
        specs += [Spec(p, DEFAULT_MODELS[p]) for p in ("anthropic", "openai", "google") if self._has_key(p)]
        specs += [Spec("local")] if not missing_wheels() else []
        specs.append(Spec("demo"))
        return [self._entry(spec) for spec in dict.fromkeys(specs)]

    def capabilities(self, spec: str | None = None) -> Capabilities:
        """What the model can be given; raises `ModelSpecError`."""
        understood = self.default if spec is None else parse_spec(spec)
        name = str(understood)
        match understood.provider:
            case "local":
                return Capabilities(tools=False, thinking=False, images=False, files=False)
            case "local-file":
                return self._file_capabilities(understood)
            case "demo" | "scripted":
                return Capabilities(tools=True, thinking=True, images=False, files=False)
            case "anthropic" | "openai" | "google":
                return Capabilities(tools=True, thinking=thinks(name, env=self._env), images=True, files=True)
            case _:
                # Other people's servers: images are common, files are OpenAI's own.
                own = understood.provider == "openai-chat" and not self._env.get("OPENAI_BASE_URL")
                return Capabilities(tools=True, thinking=thinks(name, env=self._env), images=True, files=own)

    def context_tokens(self, spec: str | None = None, most: int | None = None) -> int | None:
        """Tokens of the model's context, or `most` where that is given; None: it takes a conversation of any length,
        and leaves out what does not fit. Raises what `resolve` does."""
        understood = self.default if spec is None else parse_spec(spec)
        match understood.provider:
            case "local":
                return None  # too small to sum anything up
            case "demo" | "scripted":
                return most
            case "local-file":
                known = getattr(self.resolve(spec), "n_ctx", None)
                return min(filter(None, (known, most)), default=None)
            case _:
                return most or self.resolve(spec).context_window or CONTEXT_TOKENS_DEFAULT

    def thinking_settings(
        self, spec: str | None, level: ThinkingLevel | None, *, max_tokens: int | None = None
    ) -> ModelSettings:
        """The settings with which the model thinks so, and shows it (`thinking.py`)."""
        return thinking_settings(spec or str(self.default), level, env=self._env, max_tokens=max_tokens)

    def _has_key(self, provider: Provider) -> bool:
        return key_of(provider, self._env) is not None

    def _entry(self, spec: Spec) -> Entry:
        can = self.capabilities(str(spec))
        provider = "local" if spec.provider == "local-file" else spec.provider
        return Entry(str(spec), provider, spec == self.default, can.tools, can.thinking, can.images)

    def _file_capabilities(self, spec: Spec) -> Capabilities:
        model = self._locals.get(spec)
        if model is not None:
            return Capabilities(model.supports_tools, model.supports_thinking, images=False, files=False)
        try:
            gguf = read_gguf(Path(spec.name).expanduser())
        except ModelUnavailable:
            return Capabilities(tools=False, thinking=False, images=False, files=False)
        return Capabilities(gguf.takes_tools, gguf.thinks, images=False, files=False)

    def _make(self, spec: Spec) -> Model:
        match spec.provider:
            case "demo":
                return DemoModel()
            case "scripted":
                return ScriptedModel(Path(spec.name).expanduser())
            case "local":
                return LocalModel(openai_chat, None, self._local_settings)
            case "local-file":
                return LocalModel(openai_chat, Path(spec.name).expanduser(), self._local_settings)
            case "ollama":
                return openai_chat(spec.name, f"{ollama_url(self._env)}/v1", None, "ollama")
            case "vllm":
                return openai_chat(spec.name, vllm_base_url(self._env), self._env.get("VLLM_API_KEY"), "vllm")
            case "openai-chat":
                key, url = key_of("openai-chat", self._env), openai_base_url(self._env)
                if key is None and url is None:
                    raise missing_key("openai-chat")
                return openai_chat(spec.name, url or OPENAI_URL, key, "openai-compatible" if url else "openai")
            case "anthropic" | "openai" | "google":
                return self._of_vendor(spec)

    def _of_vendor(self, spec: Spec) -> Model:
        """A model of a vendor's SDK. All models of a vendor share one provider, and so its connections."""
        provider = self._providers.get(spec.provider)
        if provider is None:
            provider = self._providers[spec.provider] = self._new_provider(spec.provider)
        match spec.provider:
            case "anthropic":
                from pydantic_ai.models.anthropic import AnthropicModel

                # Anthropic caches only what it is told to; a conversation that grows is read from its cache.
                return AnthropicModel(spec.name, provider=provider, settings=NO_RETRIES | ModelSettings(cache=True))
            case "openai":
                from pydantic_ai.models.openai import OpenAIResponsesModel

                return OpenAIResponsesModel(spec.name, provider=provider, settings=NO_RETRIES)
            case _:
                from pydantic_ai.models.google import GoogleModel

                return GoogleModel(spec.name, provider=provider, settings=NO_RETRIES)

    def _new_provider(self, vendor: Provider) -> ModelProvider[Any]:
        """Raises `ModelUnavailable` when its key is missing."""
        key = key_of(vendor, self._env)
        if vendor == "openai":
            from pydantic_ai.providers.openai import OpenAIProvider

            url = openai_base_url(self._env)
            if key is None and url is None:
                raise missing_key(vendor)
            return OpenAIProvider(api_key=key or NO_KEY, base_url=url or OPENAI_URL)
        if key is None:
            raise missing_key(vendor)
        if vendor == "anthropic":
            from pydantic_ai.providers.anthropic import AnthropicProvider

            return AnthropicProvider(api_key=key, base_url=anthropic_base_url(self._env) or ANTHROPIC_URL)
        from pydantic_ai.providers.google import GoogleProvider

        return GoogleProvider(api_key=key)


def openai_chat(name: str, base_url: str, api_key: str | None, provider: str = "openai-compatible") -> Model:
    """A model on a server that speaks OpenAI's chat completions, read by our own reader."""
    from turnwire.models.openai_chat import OpenAIChatFast

    return OpenAIChatFast(name, base_url=base_url, api_key=api_key, provider=provider, settings=NO_RETRIES)


def resolve(spec: str, *, env: Mapping[str, str] | None = None) -> Model:
    """A single model, for those who hold no `Models`; a local one is theirs to `aclose()`."""
    return Models(spec, env=env).resolve()


__all__ = [
    "Capabilities",
    "Entry",
    "LocalModel",
    "ModelError",
    "ModelSpecError",
    "ModelUnavailable",
    "Models",
    "openai_chat",
    "resolve",
]
