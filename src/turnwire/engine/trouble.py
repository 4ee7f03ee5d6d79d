"""What went wrong with a model request: whether to try again, and a sentence for people that says what to do.

The sentence holds no class name, no secret and nothing of the provider's own text: that goes to the log.
"""

from typing import NamedTuple

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

_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "openai", "anthropic", "google", "anyio", "h11")
"""Packages whose own exceptions come through where a stream breaks off in the middle."""

_KEY_VARIABLES = {
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
    "openai-chat": "OPENAI_API_KEY",
    "openai-responses": "OPENAI_API_KEY",
    "google": "GOOGLE_API_KEY",
}


class TurnFailed(Exception):
    """The turn can't go on; the text is the sentence of its `message.error`."""


class Trouble(NamedTuple):
    """`transient`: the same request may well succeed when it is made again."""

    sentence: str
    transient: bool
    retry_after_s: float | None = None


class Silence(Exception):
    """The model sent nothing for too long."""

    def __init__(self, seconds: float, *, first: bool) -> None:
        super().__init__(seconds, first)
        self.seconds = seconds
        self.first = first


def is_provider_error(exc: BaseException) -> bool:
    """Whether the model, its provider or the way there failed, and not this program."""
    if isinstance(exc, ModelAPIError | UnexpectedModelBehavior | UserError | Silence | OSError):
        return True
    return type(exc).__module__.partition(".")[0] in _TRANSPORTS


def is_too_long(exc: BaseException) -> bool:
    """Whether the provider refused the conversation as longer than the model's context."""
    if isinstance(exc, ModelContextWindowExceededError):
        return True
    # llama.cpp's own server has a code of its own.
    return isinstance(exc, ModelHTTPError) and exc.status_code == 400 and "exceed_context_size" in str(exc.body)


def is_refused(exc: BaseException) -> bool:
    """Whether the provider refused what was in the request: an image that it can't read, among others."""
    return isinstance(exc, ModelHTTPError) and exc.status_code in (400, 413, 415, 422) and not is_too_long(exc)


def explain(exc: BaseException, spec: str) -> Trouble:
    """What to say of a provider's error, and whether to try again. `spec` names the model as its caller knows it."""
    match exc:
        case Silence(seconds=seconds, first=True):
            return Trouble(
                f"The model {spec} sent nothing for {seconds:g} seconds: see whether its server is well, or try again.",
                transient=True,
            )
        case Silence(seconds=seconds):
            return Trouble(
                f"The model {spec} fell silent in the middle of its answer for {seconds:g} seconds: try again.",
                transient=True,
            )
        case ModelAuthenticationError():
            return Trouble(_wrong_key(spec), transient=False)
        case ModelNotFoundError():
            return Trouble(
                f"The provider knows no model of the name in {spec}: choose another one, with the setting "
                "TURNWIRE_MODEL or the field model of the session or the message.",
                transient=False,
            )
        case ModelQuotaExceededError():
            return Trouble(
                f"The quota or the credit of the account at the provider of {spec} is used up: raise it there.",
                transient=False,
            )
        case _ if is_too_long(exc):
            return Trouble(
                f"The conversation is longer than the model {spec} takes: begin a new session, or shorten the message.",
                transient=False,
            )
        case ModelRateLimitError():
            wait = "" if exc.retry_after is None else f" It asks to wait {exc.retry_after:g} seconds."
            return Trouble(
                f"The provider of {spec} has too many requests of this account:{wait or ' wait a little, then'} "
                f"{'Try' if wait else 'try'} again.",
                True,
                exc.retry_after,
            )
        case ModelTimeoutError() | ModelConnectionError():
            return Trouble(
                f"There is no connection to the provider of {spec}: see whether it is running and can be reached "
                "from this server, then try again.",
                transient=True,
            )
        case ModelUnavailableError() | ModelServerError():
            return Trouble(
                f"The provider of {spec} is overloaded or has a fault of its own: try again later.",
                True,
                exc.retry_after,
            )
        case ModelHTTPError(status_code=status):
            return _by_status(status, spec, exc.retry_after)
        case ModelRequestRejectedError():
            return Trouble(_refused(spec, ""), transient=False)
        case ContentFilterError():
            return Trouble(
                f"The provider of {spec} refused to answer because of its content filter: put the message otherwise.",
                transient=False,
            )
        case UserError():
            return Trouble(
                f"The model {spec} does not take what this conversation or its settings ask of it; "
                "the server's log has the details.",
                transient=False,
            )
        case UnexpectedModelBehavior():
            return Trouble(
                f"What the provider of {spec} sent is no answer that can be read: see whether its address is right, "
                "and that it speaks this provider's format.",
                transient=False,
            )
        case _:
            return Trouble(
                f"The answer of {spec} broke off: the connection to its provider was lost. Try again.", transient=True
            )


def _by_status(status: int, spec: str, retry_after: float | None) -> Trouble:
    match status:
        case 401 | 403:
            return Trouble(_wrong_key(spec), transient=False)
        case 404:
            return Trouble(
                f"The provider has nothing at the address that is asked for {spec} (status 404): "
                "see whether the model's name and the base URL are right.",
                transient=False,
            )
        case 408 | 429 | 500 | 502 | 503 | 504 | 529:
            return Trouble(
                f"The provider of {spec} is overloaded or has a fault of its own (status {status}): try again later.",
                True,
                retry_after,
            )
        case _:
            return Trouble(
                _refused(spec, f" (status {status})"),
                transient=status >= 500,
            )


def _refused(spec: str, status: str) -> str:
    return (
        f"The provider of {spec} refused the request{status}: see whether this model takes what was asked of it; "
        "the server's log has the provider's reason."
    )


def _wrong_key(spec: str) -> str:
    variable = _KEY_VARIABLES.get(spec.partition(":")[0])
    where = f"the environment variable {variable}" if variable else "the key that the server is started with"
    return f"The provider of {spec} refused the key: set {where} to a valid one, and start the server again."
