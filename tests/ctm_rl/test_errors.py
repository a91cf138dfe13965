"""Messages as sentences."""

import pytest

from ctm_rl.errors import sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [("it broke", "it broke."), ("it broke.", "it broke."), ("why? ", "why?"), (KeyError(1), "1.")],
)
def test_a_sentence_ends_with_one_mark(text: object, expected: str) -> None:
    assert sentence(text) == expected
