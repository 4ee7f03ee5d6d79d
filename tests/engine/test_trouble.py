"""A provider's error becomes a sentence for people, and a decision whether to try again."""

import re

import httpx
import pytest
from pydantic_ai.exceptions import (
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
    UserError,
)

from turnwire.engine.trouble import Silence, explain, is_provider_error

SPEC = "openai-chat:gpt-x"
SECRET = "sk-secret-of-the-provider"
BODY = {"message": SECRET}

TABLE: list[tuple[BaseException, bool, str]] = [
    (ModelAuthenticationError("m", SECRET), False, "OPENAI_API_KEY"),
    (ModelNotFoundError("m", SECRET), False, "TURNWIRE_MODEL"),
    (ModelQuotaExceededError("m", SECRET), False, "quota"),
    (ModelContextWindowExceededError("m", SECRET), False, "longer than"),
    (ModelRateLimitError("m", SECRET), True, "too many requests"),
    (ModelServerError("m", SECRET), True, "overloaded"),
    (ModelUnavailableError("m", SECRET), True, "overloaded"),
    (ModelTimeoutError("m", SECRET), True, "no connection"),
    (ModelConnectionError("m", SECRET), True, "no connection"),
    (ModelHTTPError(403, "m", BODY), False, "OPENAI_API_KEY"),
    (ModelHTTPError(404, "m", BODY), False, "404"),
    (ModelHTTPError(418, "m", BODY), False, "418"),
    (ModelHTTPError(529, "m", BODY), True, "529"),
    (ModelHTTPError(599, "m", BODY), True, "599"),
    (ModelRequestRejectedError("m", SECRET), False, "refused the request"),
    (ContentFilterError(SECRET), False, "content filter"),
    (UserError(SECRET), False, "does not take"),
    (UnexpectedModelBehavior(SECRET), False, "no answer that can be read"),
    (ModelAPIError("m", SECRET), True, "broke off"),
    (httpx.ReadError(SECRET), True, "broke off"),
    (ConnectionResetError(SECRET), True, "broke off"),
    (Silence(300, first=True), True, "sent nothing for 300 seconds"),
    (Silence(120, first=False), True, "fell silent"),
]


@pytest.mark.parametrize(("error", "transient", "words"), TABLE, ids=lambda value: type(value).__name__)
def test_the_sentence_says_what_to_do_and_no_more(error: BaseException, transient: bool, words: str) -> None:
    trouble = explain(error, SPEC)

    assert is_provider_error(error)
    assert trouble.transient == transient
    assert words in trouble.sentence and "gpt-x" in trouble.sentence
    assert 15 <= len(trouble.sentence) <= 600 and "\n" not in trouble.sentence
    assert SECRET not in trouble.sentence
    assert not re.search(r"\w+(Error|Exception)\b", trouble.sentence)


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x"), AssertionError(), RuntimeError("x")])
def test_a_bug_of_ours_is_no_providers_error(error: Exception) -> None:
    assert not is_provider_error(error)


@pytest.mark.parametrize(
    ("spec", "variable"), [("anthropic:c", "ANTHROPIC_API_KEY"), ("google:g", "GOOGLE_API_KEY"), ("other:x", "the key")]
)
def test_a_wrong_key_names_the_variable_of_its_provider(spec: str, variable: str) -> None:
    assert variable in explain(ModelHTTPError(401, "m"), spec).sentence
