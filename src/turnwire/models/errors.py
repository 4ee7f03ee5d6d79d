"""What can be wrong with a model before it is asked anything.

    ModelError
    ├── ModelSpecError      the spec names no model that could exist: a slip of the pen
    └── ModelUnavailable    the spec is right, but something is missing here: a key, a file, a wheel, a server

`str()` of each is one sentence, or two, for people: what is wrong and what to do. No secret is ever in it.
"""


class ModelError(Exception):
    """A model cannot be had."""


class ModelSpecError(ModelError, ValueError):
    """The text does not name a model."""


class ModelUnavailable(ModelError):
    """The model is not to be had here and now. `hint` is the part of the sentence that says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.hint = hint
