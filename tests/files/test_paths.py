"""A thousand hostile paths in URLs: whatever they hold, nothing outside the workspace is read, written or deleted."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from files.served import Files, Served

SECRET = b"what nobody may read"

_pieces = st.sampled_from(
    [b"..", b".", b"%2e%2e", b"%2E.", b".%2e", b"%252e%252e", b"%c0%ae%c0%ae", b"%5cx2e%5cx2e", b"%00", b"%0a", b"%ff",
     b"\xff", b"a", b"in", b"out", b"loop", b"fifo", b"real", b"secret", b"outside", b"workspace", b"private",
     b"shared", b"etc", b"passwd", b"proc", b"self", b"root", b"", b"%20", b"~", b"%", b"%zz", b";x=1", b"a%2fb",
     b"x" * 260]
)  # fmt: skip
_slashes = st.sampled_from([b"/", b"/", b"/", b"//", b"%2f", b"%2F", b"%5c", b"%252f", b"/./", b"\\"])


@st.composite
def targets(draw: st.DrawFn) -> bytes:
    first = draw(st.sampled_from([b"/", b"/", b"//", b"/%2f", b"?path=", b"?path=/", b"?path=%2f"]))
    parts = draw(st.lists(st.tuples(_pieces, _slashes), min_size=1, max_size=7))
    return first + b"".join(piece + slash for piece, slash in parts) + draw(_pieces)


def outside_state(server: Served, outside: Path) -> dict[str, bytes]:
    """All that is in the data folder and beside it, but for the workspace and the database."""
    found: dict[str, bytes] = {}
    for top in (server.data, outside):
        for folder, folders, files in os.walk(top):
            if Path(folder) == server.shared.parent:
                folders.remove("shared")
            for name in folders + files:
                path = Path(folder) / name
                if not name.startswith("turnwire.db"):
                    found[str(path)] = path.read_bytes() if path.is_file() else b""
    return found


@pytest.mark.slow
def test_a_thousand_paths_stay_inside(files: Files, server: Served, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    (outside / "real").write_bytes(SECRET)
    private = server.session(workspace="private")
    private.put("secret", SECRET)

    def prepare() -> None:
        files.put("in/real", b"inside")
        for name, target in (("out", outside), ("in/out", outside), ("loop", "loop"), ("secret", outside / "secret")):
            if not (server.shared / name).is_symlink():
                files.delete(name)
                (server.shared / name).symlink_to(target)
        if not (server.shared / "fifo").exists():
            os.mkfifo(server.shared / "fifo")

    prepare()
    before = outside_state(server, outside)

    @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(target=targets(), method=st.sampled_from(["GET", "GET", "HEAD", "PUT", "DELETE"]))
    def one(target: bytes, method: str) -> None:
        answer = files.raw(method, target, b"evil" if method == "PUT" else b"")

        assert answer.status in (200, 201, 204, 400, 403, 404, 405, 409), (target, answer)
        assert SECRET not in answer.body and b"root:" not in answer.body
        assert answer.status != 400 or method == "HEAD" or b'"error"' in answer.body
        if answer.status == 204:
            prepare()

    one()

    assert outside_state(server, outside) == before
    assert private.get("secret").content == SECRET
