"""From a model spec to a pydantic-ai model."""
