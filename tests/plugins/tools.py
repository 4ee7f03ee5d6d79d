"""Tests that need a tool which a machine may lack say so: `@pytest.mark.tool("node")`.

Where the tool is missing the test is skipped, and the skipped are listed by name at the end. Where the
environment says `CI=true` nothing may be missing: there a skip, for whatever reason, is a failure.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

CLIENTS = Path(__file__).resolve().parent.parent / "clients"
CONSOLE = CLIENTS.parent.parent / "console"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def _on_path(*names: str) -> Callable[[], bool]:
    return lambda: any(shutil.which(name) for name in names)


def _can_unshare() -> bool:
    """A mount namespace of one's own: root in it, nothing outside."""
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


def _can_overlay() -> bool:
    """A changed copy of this machine's files, thrown away at once."""
    steps = (
        "mount -t tmpfs tmpfs /mnt",
        "mkdir /mnt/up /mnt/work",
        "mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt",
    )
    command = ["unshare", "--mount", "sh", "-c", " && ".join(steps)]
    return os.getuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


def _sandbox_works() -> bool:
    """Whether commands can be run in bubblewrap here. Imported late: most runs don't ask."""
    from turnwire.sandboxes.bubblewrap import Bubblewrap

    return Bubblewrap().status.available


def _has_matplotlib() -> bool:
    """What an agent finds in its sandbox: the Python of the machine, not this one."""
    command = ["/usr/bin/python3", "-c", "import matplotlib"]
    return Path(command[0]).exists() and subprocess.run(command, capture_output=True, env={}).returncode == 0


def _has_postgres() -> bool:
    """Debian keeps its programs out of PATH. Root runs it as the user whom its package makes."""
    from clusters import programs

    return programs() is not None and (os.getuid() != 0 or "postgres" in {user.pw_name for user in pwd.getpwall()})


# What a test may ask for: how to see that it is there, and how to get it.
TOOLS: dict[str, tuple[Callable[[], bool], str]] = {
    "node": (_on_path("node"), "install Node.js 18 or newer"),
    "npm-clients": (lambda: (CLIENTS / "node_modules" / ".turnwire").exists(), "run `make clients`"),
    "npm-console": (lambda: (CONSOLE / "node_modules" / ".turnwire").exists(), "run `make clients`"),
    "curl": (_on_path("curl"), "install curl"),
    "chromium": (_on_path(*CHROMIUM_NAMES), "install Chromium"),
    "bwrap": (_sandbox_works, "see `turnwire doctor`"),
    "matplotlib": (_has_matplotlib, "install python3-matplotlib"),
    "ip": (_on_path("ip"), "install iproute2"),
    "perl": (_on_path("perl"), "install perl"),
    "uv": (_on_path("uv"), "install uv"),
    "nginx": (_on_path("nginx"), "install nginx-light"),
    "caddy": (_on_path("caddy"), "install caddy"),
    "openssl": (_on_path("openssl"), "install openssl"),
    "postgres": (_has_postgres, "install postgresql"),
    "sqlite3": (_on_path("sqlite3"), "install sqlite3"),
    "zip": (_on_path("zip"), "install zip"),
    "tmux": (_on_path("tmux"), "install tmux"),
    "systemd-analyze": (_on_path("systemd-analyze"), "install systemd"),
    "overlay": (_can_overlay, "run as root, with overlayfs in the kernel"),
    "unshare": (_can_unshare, "install util-linux, and allow user namespaces"),
}


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"tool(*names): needs these on the machine: {', '.join(TOOLS)}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("tool"):
        for name in mark.args:
            if name not in TOOLS:
                raise pytest.UsageError(f"{item.nodeid} needs the unknown tool {name!r}; known: {', '.join(TOOLS)}")
            is_there, how = TOOLS[name]
            if not is_there():
                pytest.skip(f"{name} is missing here: {how}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _no_skip_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip_in_ci((yield))


def _no_skip_in_ci(report: Report) -> Report:
    """An expected failure is reported as skipped too, and stays one."""
    if report.skipped and not hasattr(report, "wasxfail") and in_ci():
        report.outcome = "failed"
        report.longrepr = f"Skipped, which in CI is a failure: {_reason(report)}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.getreports("skipped")
    if skipped:
        terminalreporter.section("skipped on this machine")
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {_reason(report)}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The text of the skip, which pytest keeps as (path, line, text)."""
    where_and_why = report.longrepr
    text = where_and_why[2] if isinstance(where_and_why, tuple) else str(where_and_why)
    return text.removeprefix("Skipped: ")
