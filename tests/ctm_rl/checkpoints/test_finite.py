"""Numbers that are not finite are found by the name of their entry, wherever they are."""

from typing import Any

import numpy as np
import pytest
import torch

from ctm_rl.checkpoints.finite import find_not_finite, learned_part

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ({}, None),
        ({"a": torch.ones(3), "b": [1, 2.5, True, None, "nan"]}, None),
        ({"a": torch.ones(3), "b": {"c": torch.tensor([1.0, NAN])}}, "b/c"),
        ({"a": [torch.ones(2), torch.tensor([[INF]])]}, "a/1"),
        ({0: {"step": torch.tensor(-INF)}}, "0/step"),
        ({"a": (np.ones(2), np.array([1, NAN], np.float32))}, "a/1"),
        ({"a": np.array([1, 2])}, None),
        ({"a": 1.0, "b": NAN}, "b"),
        ({"half": torch.tensor([6e4, 6e4], dtype=torch.float16)}, None),  # their sum is not a half any more
        ({"large": torch.full((4,), 3e38)}, None),
        ({"opposite": torch.tensor([INF, -INF])}, "opposite"),
        ({"complex": torch.tensor([complex(0, NAN)])}, "complex"),
        ({"integers": torch.tensor([2**62])}, None),
        ({"empty": torch.empty(0)}, None),
    ],
)
def test_the_first_entry_that_is_not_finite_is_named(tree: Any, name: str | None) -> None:
    assert find_not_finite(tree) == name


def test_only_what_is_learned_must_be_finite() -> None:
    nothing_yet = {"clipper": {"norms": torch.tensor([NAN])}}
    state = {
        "position": {"seconds": 1.0},
        "policy": {"weights": {"a": torch.ones(2)}, "actions": {"high": (INF,)}},
        "learner": {
            "own": nothing_yet,
            "modules": {},
            "optimizers": {"adam": {"state": {3: {"exp_avg": torch.ones(1)}}}},
        },
    }
    assert find_not_finite(learned_part(state)) is None
    state["learner"]["optimizers"]["adam"]["state"][3]["exp_avg"][0] = NAN  # pyright: ignore[reportIndexIssue]
    assert find_not_finite(learned_part(state)) == "learner/optimizers/adam/state/3/exp_avg"
    assert find_not_finite(learned_part({"model": {"weights": {"b": torch.tensor(INF)}}})) == "model/weights/b"
