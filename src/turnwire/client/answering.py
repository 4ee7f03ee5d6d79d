"""Calls that wait for the caller, answered: by its functions, and by its word."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

from turnwire.client.api import Api, json_request
from turnwire.client.functions import ClientTool, content_of
from turnwire.client.steps import Flow, Outcome, Raised, Run
from turnwire.protocol.codec import encode_json
from turnwire.protocol.errors import Conflict, InvalidRequest, NotFound, PayloadTooLarge
from turnwire.protocol.events import ToolCallRequested

log = logging.getLogger("turnwire.client")

ERROR_CHARACTERS_MAX = 65_536
"""Of a function's error, which may hold all of what it was about: servers take bodies of some MiB at most."""

Answer = dict[str, Any]
"""An item of `results` as the server takes it."""


class Answerer:
    """What the caller has for the calls of a session's turns."""

    def __init__(self, tools: Sequence[ClientTool] = (), on_approval: Callable[[ToolCallRequested], Any] | None = None):
        self._tools = {tool.name: tool for tool in tools if tool.function is not None}
        self._on_approval = on_approval

    def can_answer(self, call: ToolCallRequested) -> bool:
        return call.name in self._tools if call.kind == "tool" else self._on_approval is not None

    def answer(self, api: Api, session_path: str, calls: Sequence[ToolCallRequested]) -> Flow[None]:
        """Answer calls, functions before approvals. An error of `on_approval` comes through: nothing is approved."""
        functions = [call for call in calls if call.kind == "tool"]
        if functions:
            outcomes: list[Outcome] = yield Run(
                [partial(self._tools[call.name].call, call.input) for call in functions]
            )
            yield from post_answers(api, session_path, map(_result, functions, outcomes))
        for call in calls:
            if call.kind == "approval":
                assert self._on_approval is not None
                (outcome,) = yield Run([partial(self._on_approval, call)])
                if isinstance(outcome, Raised):
                    raise outcome.error
                yield from post_answers(api, session_path, [approval(call.id, outcome.value)])


def post_answers(api: Api, session_path: str, answers: Iterable[Answer], *, strict: bool = False) -> Flow[None]:
    """Send answers. Unless `strict`, those that come too late, or are not the first, are dropped, and of a result that
    the server does not take the model is told."""
    answers = list(answers)
    try:
        yield from api.call(json_request("POST", f"{session_path}/tool_results", {"results": answers}))
    except (Conflict, NotFound, InvalidRequest, PayloadTooLarge) as exc:
        if strict:
            raise
        if len(answers) > 1:  # all of a request are taken, or none
            for answer in answers:
                yield from post_answers(api, session_path, [answer])
        elif isinstance(exc, Conflict | NotFound):
            log.warning("The answer to the call %s came too late, or was not the first: %s", answers[0]["id"], exc)
        elif answers[0].get("is_error", True):
            raise
        else:
            log.warning("The result of the call %s can't be sent: the model is told so. %s", answers[0]["id"], exc)
            refused = {"id": answers[0]["id"], "content": f"The result can't be sent: {exc}", "is_error": True}
            yield from post_answers(api, session_path, [refused])


def approval(call_id: str, said: Any) -> Answer:
    """The answer to an approval: True, False, (False, "the reason"), or a dict, which is a yes with this input."""
    match said:
        case bool():
            return {"id": call_id, "approve": said}
        case dict():
            return {"id": call_id, "approve": True, "input": cast("dict[str, Any]", said)}
        case (False, str() as reason):
            return {"id": call_id, "approve": False, "message": reason}
        case _:
            raise TypeError(f"on_approval must return True, False, (False, reason) or an input, not {said!r}.")


def _result(call: ToolCallRequested, outcome: Outcome) -> Answer:
    if isinstance(outcome, Raised):
        error = outcome.error
    else:
        try:
            content = content_of(outcome.value)
            encode_json(content)  # here, where what can't be sent is the function's fault
            return {"id": call.id, "content": content, "is_error": False}
        except Exception as exc:  # the value's own methods may raise whatever they like
            error = TypeError(f"the function returned what is no JSON: {_words(exc)}")
    log.warning("The function %s failed: the model is told so.", call.name, exc_info=error)
    return {"id": call.id, "content": f"{type(error).__name__}: {_words(error)}", "is_error": True}


def _words(error: BaseException) -> str:
    try:
        return str(error)[:ERROR_CHARACTERS_MAX]
    except Exception:
        return "its message can't be read"
