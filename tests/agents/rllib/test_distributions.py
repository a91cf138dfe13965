"""What RLlib's own learners and runners see of a policy: its actions as distributions, its observations packed."""

import math
import pickle

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.utils.spaces.space_utils import unsquash_action

from ctm_rl.agents.rllib.distributions import PolicyDistribution, check_stock_spaces, distribution_of, pack_tensors
from ctm_rl.agents.rllib.spaces import actions_of, fit
from ctm_rl.config import PolicyConfig
from ctm_rl.errors import UserError
from ctm_rl.spaces.actions import Numbers

B, T = 5, 3
BOX = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
SPACES: dict[str, Space] = {
    "from one": Discrete(3, start=1),
    "choices": MultiDiscrete(np.array([[2, 4], [3, 3]]), start=np.array([[0, 5], [0, 0]])),
    "bits": MultiBinary(3),
    "box": BOX,
    "unbounded": Box(-np.inf, np.inf, (2, 1)),
}
EVERY = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def make(space: Space, seed: int = 1) -> PolicyDistribution:
    actions = actions_of(space)
    outputs = torch.randn(B, T, actions.num_outputs, generator=torch.Generator().manual_seed(seed))
    return distribution_of(actions).from_logits(outputs)


@EVERY
def test_samples_are_actions_of_the_space_and_score_as_the_policy_scores_them(space: Space) -> None:
    torch.manual_seed(3)
    distribution = make(space)
    actions, outputs = distribution._actions, distribution._outputs
    for one in (distribution, distribution.to_deterministic()):
        drawn = one.sample()
        assert drawn.shape == (B, T, *actions.shape)
        for action in drawn.flatten(0, 1).numpy():
            # RLlib scales bounded numbers by itself
            given = unsquash_action(action, space) if space is BOX else action
            assert space.contains(np.asarray(given, dtype=space.dtype)), given
    torch.manual_seed(3)
    column = actions.sample(outputs.flatten(0, 1), None).unflatten(0, (B, T))
    torch.manual_seed(3)
    logp = distribution.logp(distribution.sample())  # through the squashed number and back, in float32
    torch.testing.assert_close(logp, actions.score(outputs, column).logp, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(distribution.entropy(), actions.score(outputs, column).entropy)
    assert (distribution.kl(make(space, 2)) > 0).all()


def test_one_choice_from_0_is_rllibs_own() -> None:
    assert distribution_of(actions_of(Discrete(3))) is TorchCategorical


def test_what_stands_for_a_class_can_be_sent_to_a_worker() -> None:
    bound = pickle.loads(pickle.dumps(distribution_of(actions_of(BOX))))
    assert bound.from_logits(torch.zeros(B, 4)).sample().shape == (B, 2)
    assert bound.required_input_dim(BOX) == 4


def test_texts_and_mixed_bounds_are_refused_with_the_way_out() -> None:
    mixed = Numbers(low=(-1.0, -math.inf), high=(1.0, 1.0), shape=(2,))
    layout = fit(PolicyConfig(), BOX, BOX).layout
    with pytest.raises(UserError, match=r"all bounded or all unbounded; .* use algorithm ppo"):
        check_stock_spaces(layout, mixed)
    with pytest.raises(UserError, match=r"all bounded or all unbounded; .* use algorithm ppo"):
        distribution_of(mixed).from_logits(torch.zeros(B, 4))
    texts = fit(PolicyConfig(), Dict({"a": BOX, "b": Text(4)}), BOX).layout
    with pytest.raises(UserError, match=r"leave 'b' out with model\.encoder b=skip"):
        check_stock_spaces(texts, actions_of(BOX))
    check_stock_spaces(layout, actions_of(BOX))


@pytest.mark.parametrize(
    "space",
    [BOX, Discrete(4, start=-1), Dict({"a": BOX, "b": Discrete(3, start=2), "c": Tuple((MultiBinary(2),))})],
    ids=["vector", "category", "parts"],
)
def test_observations_are_packed_as_our_own_runners_pack_them(space: Space) -> None:
    layout = fit(PolicyConfig(), space, BOX).layout
    space.seed(1)
    samples = [space.sample() for _ in range(B * T)]
    expected = np.stack([layout.pack_one(sample) for sample in samples]).reshape(B, T, *layout.shape)

    def stacked(values: list) -> object:
        if isinstance(values[0], dict):
            return {key: stacked([value[key] for value in values]) for key in values[0]}
        if isinstance(values[0], tuple):
            return tuple(stacked(list(parts)) for parts in zip(*values, strict=True))
        return torch.from_numpy(np.stack(values)).unflatten(0, (B, T))

    torch.testing.assert_close(pack_tensors(layout, stacked(samples)).float(), torch.from_numpy(expected).float())
