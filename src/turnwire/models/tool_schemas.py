"""Tools' schemas as a vendor wants them, rewritten once.

pydantic-ai rewrites the schemas of all tools for each request, on deep copies: for five small tools that is a third
of what a request costs. A schema is the tool's own object and never changed, so its rewriting can be kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from pydantic_ai.tools import ToolDefinition

SCHEMAS_KEPT_MAX = 512
"""Rewritten schemas of a model, beyond which all are forgotten: sessions may bring tools of their own."""

Rewrite = Callable[[list[ToolDefinition]], list[ToolDefinition]]


class _Kept(NamedTuple):
    tool: ToolDefinition
    """The first with this schema: held, so that no other object can get the schema's id."""
    rewritten: ToolDefinition

    def of(self, tool: ToolDefinition) -> ToolDefinition:
        """`tool`, rewritten. Tools that turns share are so once for all of them, in memory too."""
        if tool is self.tool:
            return self.rewritten
        known = self.rewritten
        return replace(tool, parameters_json_schema=known.parameters_json_schema, strict=known.strict)


class ToolSchemas:
    """The rewritten schemas of one model."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, bool | None], _Kept] = {}

    def rewrite(self, tools: Sequence[ToolDefinition], rewrite: Rewrite) -> list[ToolDefinition]:
        """What `rewrite(tools)` gives; it is asked only for those that are new. It changes schema and `strict`."""
        if len(self._kept) + len(tools) > SCHEMAS_KEPT_MAX:
            self._kept.clear()
        new = [tool for tool in tools if _key(tool) not in self._kept]
        for tool, result in zip(new, rewrite(new), strict=True):
            self._kept[_key(tool)] = _Kept(tool, result)
        return [self._kept[_key(tool)].of(tool) for tool in tools]


def _key(tool: ToolDefinition) -> tuple[int, bool | None]:
    return id(tool.parameters_json_schema), tool.strict
