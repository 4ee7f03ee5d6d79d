"""A caller's thinking level → the settings with which each provider thinks so, and shows it."""

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic_ai.profiles.anthropic import ANTHROPIC_THINKING_BUDGET_MAP, anthropic_model_profile
from pydantic_ai.profiles.google import google_model_profile
from pydantic_ai.profiles.openai import openai_model_profile
from pydantic_ai.settings import ModelSettings

from turnwire.models.specs import Spec, openai_base_url, parse_spec

ThinkingLevel = Literal["off", "low", "medium", "high"]
# The least that Anthropic takes as a budget.
BUDGET_LEAST = 1024


def thinking_settings(
    spec: str, level: ThinkingLevel | None, *, env: Mapping[str, str], max_tokens: int | None = None
) -> ModelSettings:
    """The settings to merge into a request's; none where the model can't think or the level is None.

    `max_tokens` is the request's limit: a budget of Anthropic's older models has to stay below it.
    """
    understood = parse_spec(spec)
    if level is None:
        return ModelSettings()
    match understood.provider:
        case "anthropic":
            return _anthropic(understood.name, level, max_tokens)
        case "openai":
            return _openai_responses(understood.name, level)
        case "openai-chat" if openai_base_url(env) is None:
            return ModelSettings(thinking=_unified(level))
        case "google":
            return ModelSettings(thinking=_unified(level))
        case "openai-chat" | "ollama" | "vllm" | "local-file":
            return _compatible(understood, level)
        case _:
            return ModelSettings()


def thinks(spec: str, *, env: Mapping[str, str]) -> bool:
    """Whether the model is known to think when asked. Of other people's servers nothing is known: False."""
    understood = parse_spec(spec)
    match understood.provider:
        case "anthropic":
            profile: Mapping[str, Any] | None = anthropic_model_profile(understood.name)
        case "openai":
            profile = openai_model_profile(understood.name)
        case "openai-chat" if openai_base_url(env) is None:
            profile = openai_model_profile(understood.name)
        case "google":
            profile = google_model_profile(understood.name)
        case "demo" | "scripted":
            return True
        case _:
            profile = None
    return bool(profile and profile.get("supports_thinking"))


def _unified(level: ThinkingLevel) -> Literal[False, "low", "medium", "high"]:
    return False if level == "off" else level


def _anthropic(name: str, level: ThinkingLevel, max_tokens: int | None) -> ModelSettings:
    profile: Mapping[str, Any] = anthropic_model_profile(name) or {}
    if not profile.get("supports_thinking"):
        return ModelSettings()
    if level == "off":
        return ModelSettings(thinking=False)
    if profile.get("anthropic_supports_adaptive_thinking"):
        # Newer models leave the text of their thinking out unless it is asked for.
        adaptive: dict[str, Any] = {"anthropic_thinking": {"type": "adaptive", "display": "summarized"}}
        if profile.get("anthropic_supports_effort"):
            adaptive["anthropic_effort"] = level
        return cast(ModelSettings, adaptive)
    budget = ANTHROPIC_THINKING_BUDGET_MAP[level]
    if max_tokens is not None and budget >= max_tokens:
        budget = max_tokens // 2
        if budget < BUDGET_LEAST:
            return ModelSettings(thinking=False)
    # The limit is of thinking and answer together, and the default one may be lower than the budget.
    settings = {"anthropic_thinking": {"type": "enabled", "budget_tokens": budget}}
    return cast(ModelSettings, settings | {"max_tokens": max_tokens or budget + 8192})


def _openai_responses(name: str, level: ThinkingLevel) -> ModelSettings:
    if not openai_model_profile(name).get("supports_thinking"):
        return ModelSettings()
    settings: dict[str, Any] = {"thinking": _unified(level)}
    if level != "off":
        # OpenAI shows its reasoning as a summary only.
        settings["openai_reasoning_summary"] = "auto"
    return cast(ModelSettings, settings)


def _compatible(spec: Spec, level: ThinkingLevel) -> ModelSettings:
    """For servers that speak OpenAI's chat completions, each in its own way."""
    if spec.provider in ("local-file", "vllm"):
        # llama.cpp and vLLM hand this to the model's chat template.
        return ModelSettings(extra_body={"chat_template_kwargs": {"enable_thinking": level != "off"}})
    if level == "off":
        # Ollama knows this value. Of an unknown server it can't be expected, and a strict one would refuse it.
        return (
            cast(ModelSettings, {"openai_reasoning_effort": "none"}) if spec.provider == "ollama" else ModelSettings()
        )
    return cast(ModelSettings, {"openai_reasoning_effort": level})
