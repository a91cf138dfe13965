"""Spaces in messages: kinds, shapes and limits, no arrays."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space, Tuple

from ctm_rl.describe_space import MAX_LENGTH, describe_space

BOUNDED = Box(np.array([-4.5, -np.inf], np.float32), np.array([4.5, 2.0], np.float32))


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (Box(0, 255, (84, 84, 3), np.uint8), "Box of shape (84, 84, 3), uint8 from 0 to 255"),
        (BOUNDED, "Box of shape (2,), float32 from -inf to 4.5"),
        (Box(0, 1, (0,)), "Box of shape (0,), float32"),
        (Dict(a=Discrete(3), b=Tuple((Discrete(2),))), "Dict(a: Discrete(3), b: Tuple(Discrete(2)))"),
        (MultiDiscrete(np.array([[2, 3], [4, 5]])), "MultiDiscrete([[2 3] [4 5]])"),
    ],
)
def test_a_space_in_words(space: Space, text: str) -> None:
    assert describe_space(space) == text


def test_a_long_description_is_cut() -> None:
    assert len(describe_space(Dict({str(part): Discrete(2) for part in range(99)}))) == MAX_LENGTH
