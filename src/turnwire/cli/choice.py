"""Which model a server would use, and why."""

import asyncio
import os

from turnwire.models.discover import Choice, choose_default
from turnwire.models.errors import ModelSpecError
from turnwire.models.specs import parse_spec
from turnwire.settings import Settings, SettingsError


def choose_model(settings: Settings, origins: dict[str, str]) -> Choice:
    """The model of the settings, else what the environment and this machine offer.

    Raises:
        SettingsError: the settings name a model that can't be.
    """
    if settings.model is None:
        return asyncio.run(choose_default(os.environ))
    origin = origins.get("model", "the settings")
    try:
        spec = str(parse_spec(settings.model))
    except ModelSpecError as exc:
        raise SettingsError(f"{origin}: {exc}") from exc
    return Choice(spec, f"It is named by {origin}.")
