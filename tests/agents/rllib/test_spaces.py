"""Policies fitted to spaces with action masks; the fitting of observations is tested with their packing."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from ctm_rl.agents.rllib.spaces import check_masks, fit
from ctm_rl.config import PolicyConfig
from ctm_rl.errors import UserError
from ctm_rl.spaces.actions import Choices, is_masked

VECTOR = Box(-1, 1, (3,))
SEVERAL = MultiDiscrete([2, 3])


def shown(mask: Space, **others: Space) -> Dict:
    return Dict({**(others or {"observations": VECTOR}), "action_mask": mask})


@pytest.mark.parametrize(
    ("mask", "actions"),
    [
        (Box(0, 1, (5,)), Discrete(5)),
        (Box(0, 1, (5,), np.int8), SEVERAL),
        (MultiBinary(5), SEVERAL),
        (Tuple((MultiBinary(2), Box(0, 1, (3,)))), SEVERAL),
        (Tuple((Tuple((MultiBinary(2), MultiBinary(3))),)), SEVERAL),
        (MultiBinary([2, 2]), MultiBinary(2)),
    ],
    ids=str,
)
def test_a_mask_is_no_part_of_the_observation(mask: Space, actions: Space) -> None:
    fitted = fit(PolicyConfig(), shown(mask), actions)
    assert is_masked(fitted.actions)
    assert [part.path for part in fitted.layout.parts] == [("observations",)]
    assert fitted.config.encoder == "observations=control"
    again = fit(fitted.config, shown(mask), actions)
    assert again == fitted
    check_masks(fitted.actions, shown(mask))
    with pytest.raises(UserError, match="it was trained with action masks, and the environment shows none"):
        check_masks(fitted.actions, VECTOR)


@pytest.mark.parametrize(("encoder", "num_parts"), [("action_mask=control", 2), ("action_mask=skip", 1)])
def test_a_mask_that_is_named_is_a_part_like_any_other(encoder: str, num_parts: int) -> None:
    fitted = fit(PolicyConfig(encoder=encoder), shown(MultiBinary(5)), Discrete(5))
    assert not is_masked(fitted.actions)
    assert len(fitted.layout.parts) == num_parts
    assert fit(fitted.config, shown(MultiBinary(5)), Discrete(5)) == fitted
    fit(PolicyConfig(encoder=encoder), shown(MultiBinary(5)), VECTOR)


def test_one_encoder_is_that_of_the_only_part_beside_a_mask() -> None:
    image = shown(MultiBinary(5), observation=Box(0, 255, (24, 24, 3), np.uint8))
    for encoder in ("conv", "control"):
        assert fit(PolicyConfig(encoder=encoder), image, Discrete(5)).layout.parts[0].encoder == encoder
    with pytest.raises(UserError, match=r"is not supported by encoder text"):
        fit(PolicyConfig(encoder="text"), image, Discrete(5))


def test_a_mask_deeper_inside_is_a_part_like_any_other() -> None:
    fitted = fit(PolicyConfig(), Dict({"player": shown(MultiBinary(5))}), Discrete(5))
    assert not is_masked(fitted.actions)
    assert len(fitted.layout.parts) == 2
    assert fitted.actions == Choices(sizes=(5,))


@pytest.mark.parametrize(
    ("observed", "actions", "message"),
    [
        (shown(MultiBinary(3)), VECTOR, r"has an action_mask, and the action space Box of shape .* is continuous"),
        (shown(MultiBinary(4)), Discrete(5), r"has 4 entries, and the action space Discrete\(5\) needs .* \(5\)"),
        (shown(MultiBinary(4)), SEVERAL, r"has 4 entries, .* needs one for each option \(2 \+ 3\)"),
        (shown(Tuple((MultiBinary(3), MultiBinary(2)))), SEVERAL, r"has 3 \+ 2 entries, .* \(2 \+ 3\)"),
        (shown(Dict({"a": MultiBinary(5)})), Discrete(5), r"action_mask of the observation is a Dict"),
        (Dict({"action_mask": MultiBinary(5)}), Discrete(5), r"has nothing but its action_mask"),
    ],
    ids=range(6),
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_the_start(observed: Dict, actions: Space, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        fit(PolicyConfig(), observed, actions)
    assert "\n" not in str(caught.value)


def test_vectors_are_read_plainly_where_they_are_normalised() -> None:
    vector, image = Box(-np.inf, np.inf, (3,)), Box(0, 255, (24, 24, 3), np.uint8)
    space = Dict({"image": image, "legs": vector, "switches": MultiBinary(4)})
    fitted = fit(PolicyConfig(normalize_observations=True), space, Discrete(2))
    assert fitted.config.encoder == "image=conv,legs=plain,switches=plain"
    assert fit(PolicyConfig(), space, Discrete(2)).config.encoder == "image=conv,legs=control,switches=control"
    assert fit(PolicyConfig(encoder="plain"), vector, Discrete(2)).config.encoder == "plain"
