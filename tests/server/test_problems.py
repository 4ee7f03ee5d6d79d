"""What is wrong with a body is said in one line that names the field, and nothing of how it was checked."""

import pytest
from pydantic import ValidationError

from turnwire.server.problems import describe
from turnwire.server.shapes import NewMessage


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "message: Field required."),
        ({"message": 3}, "message: must be a string or a list of parts."),
        ({"message": " "}, "message: must not be empty or white space."),
        ({"message": [{"type": "text"}]}, "message.0.text: Field required."),
        ({"message": [{"type": "image", "path": ""}]}, "message.0.path: String should have at least 1 character."),
        (
            {"message": "x", "settings": {"thinking": "x"}},
            "settings.thinking: Input should be 'off', 'low', 'medium' or 'high'.",
        ),
    ],
)
def test_a_fault_is_named_by_its_field(body: object, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NewMessage.model_validate(body)

    assert describe(caught.value.errors(include_url=False)) == said
