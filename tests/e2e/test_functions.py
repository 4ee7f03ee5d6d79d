"""A caller's own functions, over the wire: odd inputs and odd answers."""

import json
from typing import Any

import pytest

from e2e.harness import Api

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}


@pytest.mark.parametrize("content", ["a\ud83db", {"k\ud83d": ["\ud83d"]}], ids=["text", "json"])
def test_an_answer_with_half_of_a_surrogate_pair_is_taken(api: Api, content: Any) -> None:
    session = api.create(tools=[LOOK])["id"]
    with api.sending(session, "/call look {}\n/then\ndone") as live:
        call = live.until("tool_call.requested")["id"]
        body = json.dumps({"id": call, "content": content})
        headers = {"Content-Type": "application/json"}
        path = f"/v1/sessions/{session}/tool_results"
        api.request("POST", path, content=body, headers=headers, status=202)
        result = live.until("tool_result")
        assert "message.completed" in [name for name, _ in live.rest()]

    text = content if isinstance(content, str) else r'{"k\ud83d":["\ud83d"]}'
    assert result == {"id": call, "content": text, "is_error": False}
    assert api.send(session, "/history").ending == "message.completed"


def test_an_input_with_half_of_a_surrogate_pair_is_shown_and_kept(api: Api) -> None:
    session = api.create(workspace="private")["id"]

    turn = api.send(session, '/call read_file {"path": "\\ud83d"}\n/then\ndone')

    assert turn.ending == "message.completed"
    assert turn.data("tool_use.executing")[0]["input"] == {"path": "\ud83d"}
    assert turn.data("tool_result")[0]["is_error"] is True
    assert api.send(session, "/history").ending == "message.completed"


@pytest.mark.parametrize("parameters", [{"$ref": "#"}, {"$id": "urn:a", "properties": {"x": {"$ref": "#/$defs/none"}}}])
def test_a_schema_that_can_not_be_applied_does_not_end_the_turn(api: Api, parameters: dict[str, Any]) -> None:
    session = api.create(tools=[LOOK | {"parameters": parameters}])["id"]

    turn = api.send(session, '/call look {"x": 1}\n/then\ndone')

    assert turn.ending == "message.completed"
    assert "tool_call.requested" not in turn.kinds
    assert turn.data("tool_result")[0]["is_error"] is True
