"""Results shown: a table for people, JUnit's XML for machines."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from turnwire.conformance.cases import Case
from turnwire.conformance.rules import quoted, read_rules
from turnwire.conformance.run import Result

COLOURS = {"passed": "green", "failed": "bold red", "not offered": "yellow"}
WIDTH_WITHOUT_TERMINAL = 140


def console() -> Console:
    """Standard output; wide enough for whole sentences when it is a file."""
    shown = Console(highlight=False)
    return shown if shown.is_terminal else Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def print_table(results: Sequence[Result], out: Console) -> None:
    """A row a case; of what did not pass, the rule of PROTOCOL.md and the reason."""
    rules = read_rules()
    table = Table(show_lines=False, pad_edge=False, box=None)
    for name in ("case", "", "rule", "what it shows"):
        table.add_column(name, no_wrap=name != "what it shows", overflow="fold")
    for result in results:
        text = escape(result.case.title)
        if result.verdict == "failed":
            text += f"\n[bold]{escape(result.why)}[/bold]\n{escape(quoted(result.rule, rules))}"
        elif result.verdict == "not offered":
            text += f"\n{escape(result.why)}"
        colour = COLOURS[result.verdict]
        table.add_row(result.case.id, f"[{colour}]{result.verdict}[/{colour}]", result.rule, text)
    out.print(table)
    counts = Counter(result.verdict for result in results)
    out.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in COLOURS) + ".")


def print_list(cases: Sequence[Case], out: Console) -> None:
    """A row a case: its rules, and what it needs."""
    table = Table(pad_edge=False, box=None)
    for name in ("case", "rules", "needs", "what it shows"):
        table.add_column(name, overflow="fold", no_wrap=name == "case")
    for case in cases:
        needs = [*case.needs, *(["a key of another tenant"] if case.other_tenant else [])]
        table.add_row(case.id, " ".join(case.rules), ", ".join(needs), escape(case.title))
    out.print(table)


def write_junit(results: Sequence[Result], path: Path) -> None:
    """`path` as JUnit's XML, a test case to a case."""
    counts = Counter(result.verdict for result in results)
    suite = ET.Element(
        "testsuite",
        name="turnwire conformance",
        tests=str(len(results)),
        failures=str(counts["failed"]),
        skipped=str(counts["not offered"]),
        errors="0",
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    rules = read_rules()
    for result in results:
        name = f"{result.case.id}: {result.case.title}"
        case = ET.SubElement(suite, "testcase", classname=result.rule, name=name, time=f"{result.seconds:.3f}")
        if result.verdict == "failed":
            failure = ET.SubElement(case, "failure", message=_xml_text(result.why))
            failure.text = _xml_text(f"{result.why}\n{quoted(result.rule, rules, 2000)}")
        elif result.verdict == "not offered":
            ET.SubElement(case, "skipped", message=_xml_text(result.why))
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _xml_text(text: str) -> str:
    """Without the characters that XML 1.0 can't hold, which an answer may have."""
    return "".join(c if c in "\t\n" or (c.isprintable() and not "\ud800" <= c <= "\udfff") else "\ufffd" for c in text)
