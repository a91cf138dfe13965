"""Copies of a run's state: whole, apart from what is trained on, in the same memory, and cheap."""

import time
from typing import Any

import numpy as np
import pytest
import torch

from ctm_rl.agents.runs import snapshot as subject
from ctm_rl.agents.runs.snapshot import Snapshot


def content() -> dict[str, Any]:
    """Every kind of value that a checkpoint holds."""
    return {
        "weights": {"a": torch.arange(5.0), "b": np.arange(3)},
        "moments": [torch.ones(2, dtype=torch.bool), {"step": torch.tensor(7.0)}],
        "plain": (None, "text", 2.5, True),
        "returns": [1.0, 2.0],
    }


def test_a_copy_does_not_change_with_the_original() -> None:
    state, copy = content(), Snapshot()
    copy.take(state, 3, time.monotonic())
    assert copy.content is not None
    assert (copy.iteration, copy.content["plain"]) == (3, (None, "text", 2.5, True))
    state["weights"]["a"].zero_()
    state["weights"]["b"][:] = 0
    state["moments"][1]["step"].add_(1)
    state["returns"].append(3.0)
    assert copy.content["weights"]["a"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert copy.content["weights"]["b"].tolist() == [0, 1, 2]
    assert copy.content["moments"][1]["step"] == 7
    assert copy.content["returns"] == [1.0, 2.0]


def test_the_next_copy_has_the_new_values_in_the_same_memory_where_they_fit() -> None:
    copy = Snapshot()
    copy.take(content(), 1, time.monotonic())
    assert copy.content is not None
    tensor, array = copy.content["weights"]["a"], copy.content["weights"]["b"]
    state = content()
    state["weights"]["a"] += 1
    state["weights"]["b"] = np.arange(4)
    state["new"] = torch.zeros(1)
    copy.take(state, 2, time.monotonic())
    assert copy.content["weights"]["a"] is tensor
    assert tensor.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert (copy.content["weights"]["b"].tolist(), array.tolist()) == ([0, 1, 2, 3], [0, 1, 2])
    assert copy.content["new"].tolist() == [0.0]


def test_expensive_copies_are_made_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(subject.time, "monotonic", lambda: now)
    copy = Snapshot()
    for seconds, pause in ((5.0, 0.0), (0.25, 25.0), (0.125, 12.5), (0.5, 12.5), (0.004, 0.0), (3.0, 0.0)):
        assert copy.is_due
        copy.take(content(), 1, now - seconds)
        if pause:
            now += pause - 0.1
            assert not copy.is_due
        now += 0.2
