"""The rules of PROTOCOL.md by their numbers: what a failure quotes."""

import re
from importlib import resources
from pathlib import Path

_RULE = re.compile(r"^- \*\*\[(P-\d+\.\d+)\]\*\* (.*?)(?=^- \*\*\[P-|^#|^\||\Z)", re.MULTILINE | re.DOTALL)


def protocol_text() -> str:
    """PROTOCOL.md: an installed package holds it, a checkout has it at its root."""
    installed = resources.files("turnwire.conformance") / "PROTOCOL.md"
    if installed.is_file():
        return installed.read_text("utf-8")
    return (Path(__file__).resolve().parents[3] / "PROTOCOL.md").read_text("utf-8")


def read_rules(text: str | None = None) -> dict[str, str]:
    """Number → the rule, on one line."""
    found = _RULE.findall(protocol_text() if text is None else text)
    return {number: " ".join(rule.split()) for number, rule in found}


def quoted(rule: str, rules: dict[str, str], length_max: int = 240) -> str:
    """A rule and its number, cut to a length that a table takes."""
    text = rules.get(rule, "")
    shown = text if len(text) <= length_max else text[: length_max - 1] + "…"
    return f"[{rule}] {shown}"
