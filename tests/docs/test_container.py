"""The Dockerfile and the compose file: linted, and their commands run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clusters import PASSWORD, Cluster
from docs import container
from docs.blocks import ROOT
from e2e.harness import Server

IMAGE = container.read(ROOT / "Dockerfile")


def test_hadolint_finds_nothing_wrong_with_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_build_context_holds_what_is_copied_and_nothing_secret() -> None:
    allowed = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")]
    copied = [word for name, rest in IMAGE.instructions if name == "COPY" for word in rest.split()[:-1]]

    assert (ROOT / ".dockerignore").read_text().startswith("*\n")
    assert all((ROOT / word).exists() for word in copied)
    assert all(any(Path(word).match(pattern) for pattern in allowed) for word in copied)


def test_the_image_runs_as_a_user_of_its_own_with_its_data_in_the_volume() -> None:
    assert IMAGE.last("USER") == "10001:10001"
    assert IMAGE.env["TURNWIRE_DATA_DIR"] == IMAGE.last("VOLUME") == "/data"


@pytest.mark.parametrize("name", ["compose.yaml", "compose.postgres.yaml"])
def test_the_compose_files_are_such(name: str) -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", ROOT / name]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


def test_the_compose_file_fits_the_image() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    (service,) = compose["services"].values()

    assert service["volumes"] == ["data:/data"] and set(compose["volumes"]) == {"data"}
    assert service["ports"] == [f"127.0.0.1:8080:{IMAGE.last('EXPOSE')}"]
    assert int(service["stop_grace_period"].rstrip("s")) > 10 + 3  # shutdown_grace_s, and the closing of connections
    assert {"seccomp=unconfined", "systempaths=unconfined"} <= set(service["security_opt"])


def test_the_compose_file_of_postgresql_adds_to_the_other_and_holds_no_password() -> None:
    compose = yaml.safe_load((ROOT / "compose.postgres.yaml").read_text())
    base = yaml.safe_load((ROOT / "compose.yaml").read_text())
    ours, theirs = compose["services"]["turnwire"], compose["services"]["postgres"]

    assert set(base["services"]) == {"turnwire"} and "postgres" not in base["volumes"]
    assert ours["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert theirs["volumes"] == ["postgres:/var/lib/postgresql"] and set(compose["volumes"]) == {"postgres"}
    passwords = [line for line in (*ours["environment"], *theirs["environment"]) if "PASSWORD=" in line]
    assert len(passwords) == 2 and all("${POSTGRES_PASSWORD:?" in line for line in passwords)


@pytest.mark.slow
@pytest.mark.tool("postgres")
def test_what_the_compose_file_of_postgresql_says_works_on_a_postgresql(cluster: Cluster, tmp_path: Path) -> None:
    services = yaml.safe_load((ROOT / "compose.postgres.yaml").read_text())["services"]
    environment = dict(line.split("=", 1) for line in services["turnwire"]["environment"])
    environment["PGPASSWORD"] = PASSWORD
    # Beside a container's name this machine has a port.
    there = f"turnwire@127.0.0.1:{cluster.port}/"
    environment["TURNWIRE_DATABASE_URL"] = environment["TURNWIRE_DATABASE_URL"].replace("turnwire@postgres/", there)
    cluster.sql("CREATE DATABASE turnwire")

    _, program, *words = services["postgres"]["healthcheck"]["test"]
    healthy = subprocess.run([cluster.programs / program, *words, "-p", str(cluster.port)], capture_output=True)
    with Server(tmp_path, env=environment) as server:
        session = server.api().create()["id"]

    assert healthy.returncode == 0, healthy.stdout
    assert cluster.sql("SELECT id FROM turnwire.sessions", "turnwire") == session


@pytest.mark.slow
@pytest.mark.tool("overlay")
@pytest.mark.timeout(600)
def test_the_commands_of_the_dockerfile_run_and_the_server_starts_as_the_image_says(tmp_path: Path) -> None:
    copy, build, enter = tmp_path / "copy", tmp_path / "build.sh", tmp_path / "enter.sh"
    copy.mkdir()
    build.write_text(container.build_script(IMAGE, ROOT))
    enter.write_text(container.ENTER)
    image = {
        "user": IMAGE.last("USER"),
        "workdir": IMAGE.last("WORKDIR"),
        "command": IMAGE.command,
        "healthcheck": IMAGE.healthcheck,
    }
    checks = [str(Path(__file__).with_name("container_checks.py")), json.dumps(image)]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TURNWIRE_", "VIRTUAL_ENV"))}

    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "bash",
            enter,
            copy,
            "bash",
            "-euc",
            '. "$0"; exec unshare --net python "$@"',
            build,
            *checks,
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=550,
    )

    assert done.stdout.endswith("as it should be\n"), done.stdout[-2000:] + done.stderr[-3000:]
