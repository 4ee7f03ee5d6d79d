"""Runs inside the built copy, in a network of its own: start the server as the image does, and look at it.

Argument: a JSON object {user, workdir, command, healthcheck}. Standard library only.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

URL = "http://127.0.0.1:8080"
AS_USER = ["--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all"]


def main(image: dict) -> None:
    with socket.socket() as sock:  # the loopback of a new network is down
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh", b"lo", 1))
    uid, gid = image["user"].split(":")
    user = ["setpriv", "--reuid", uid, "--regid", gid, *AS_USER]
    env = {**os.environ, "HOME": image["workdir"], "TURNWIRE_MODEL": "demo"}
    server = subprocess.Popen(
        [*user, *image["command"]], env=env, cwd=image["workdir"], stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 40
        while subprocess.run([*user, *image["healthcheck"]], env=env, capture_output=True).returncode:
            assert server.poll() is None and time.monotonic() < deadline, "not healthy"
            time.sleep(0.2)
        key = subprocess.run(
            [*user, image["command"][0], "keys", "show"], env=env, capture_output=True, text=True
        ).stdout
        said = ask(key.strip(), '/call bash {"command": "echo $((6 * 7)); touch /workspace/made"}')
        assert '"content":"42' in said and '"is_error":false' in said, said
        assert Path("/data/turnwire.db").stat().st_uid == int(uid)
        assert Path("/data/workspaces/default/shared/made").exists()
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(20)
    assert code == 0, code
    assert subprocess.run([*user, *image["healthcheck"]], env=env, capture_output=True).returncode != 0
    print("as it should be")


def ask(key: str, message: str) -> str:
    """The whole stream of one message."""
    session = json.loads(post(key, "/v1/sessions", {}))["id"]
    return post(key, f"/v1/sessions/{session}/messages", {"message": message})


def post(key: str, path: str, body: dict) -> str:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
