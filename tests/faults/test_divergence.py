"""Training that comes to numbers that are not finite: the cause is named, and no such checkpoint is the newest."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from ray.tune import register_env
from tiny_runs import train

from ctm_rl.agents import RecurrentPPOConfig
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.divergence import explain_samples, largest_of
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.finite import find_not_finite, learned_part
from ctm_rl.errors import Diverged
from ctm_rl.spaces.observations import Layout, Part

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Extreme(gym.Env):
    """Returns finite numbers that are too large to learn from."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, observation: float = 0.0, reward: float = 0.0) -> None:
        self._last, self._reward, self._count = observation, reward, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._count = 0
        return self._observe(0.0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert np.isfinite(action).all(), "the environment got an action that is not finite"
        self._count += 1
        is_fifth = self._count == 5
        return self._observe(self._last if is_fifth else 0.0), self._reward * is_fifth, self._count == 9, False, {}

    def _observe(self, last: float) -> np.ndarray:
        return np.array([0.1, 0.2 * self._count, last], np.float32)


def config_of(extreme: dict[str, float]) -> RecurrentPPOConfig:
    register_env("extreme", lambda context: Extreme(**context))
    return (
        RecurrentPPOConfig()
        .environment("extreme", env_config=extreme)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=12)
        .training(num_minibatches=2, num_epochs=1)
        .rl_module(model_config={"num_neurons": 9, "feature_dim": 6, "num_output_sync_neurons": 5})
    )


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("extreme", "lr", "message"),
    [
        ({}, 1e36, r"(the loss is nan in gradient step 2 of 2|a weight has become .*): the learning rate is 1e\+36;"),
        ({}, 3e20, r"the learning rate is 3e\+20; lower --ppo.lr"),
        ({"reward": -2e31}, 1e-3, r"the reward is -2e\+31 in environment \d, step 4; scale it"),
        ({"observation": 3e38}, 1e-3, r"not finite: the observation\[2\] is 3e\+38 in environment \d.*; scale it"),
    ],
    ids=["weights overflow", "weights too large", "reward", "observation"],
)
def test_the_cause_is_named_and_the_environment_gets_no_such_action(
    extreme: dict[str, float], lr: float, message: str
) -> None:
    algorithm: Any = config_of(extreme).training(lr=lr, normalize_rewards=False).build_algo()
    try:
        with pytest.raises(Diverged, match=message) as caught:
            algorithm.train()
        assert "\n" not in str(caught.value)
    finally:
        algorithm.stop()


@pytest.mark.usefixtures("ray_session")
def test_normalised_rewards_may_be_as_large() -> None:
    algorithm: Any = config_of({"reward": -2e31}).build_algo()
    try:
        for _ in range(2):
            assert np.isfinite(algorithm.train()["learners"]["default_policy"]["total_loss"])
    finally:
        algorithm.stop()


@pytest.mark.usefixtures("ray_session", "place")
def test_an_optimiser_that_is_not_finite_is_not_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learn = Run._train

    def spoiled(self: Run) -> Row:
        row = learn(self)
        if self._position.iteration == 2:
            (optimizer,) = private.optimizers_of(private.local_learner(self._algorithm.learner_group)).values()
            next(iter(optimizer.state.values()))["exp_avg_sq"].fill_(torch.inf)
        return row

    monkeypatch.setattr(Run, "_train", spoiled)
    assert train("cartpole", "--checkpoint-iterations", "1", iterations=4, run_dir="a") == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "iteration 2 has diverged: learner/optimizers/default_policy_default_optimizer/state/0/exp_avg_sq" in line
    assert "The checkpoint of iteration 1 is from before that" in line
    newest = checkpoint.latest(Path("a"))
    assert checkpoint.iteration_of(newest) == 1
    assert find_not_finite(learned_part(checkpoint.load(newest))) is None


def test_samples_are_explained_by_field_and_value() -> None:
    layout = Layout(
        (
            Part(encoder="control", shape=(2,), path=("arm",)),
            Part(encoder="conv", shape=(2, 3), path=("camera", 0)),
        )
    )
    observations = np.zeros((2, 5, 8), np.float32)
    axes = ("environment", "step")
    assert explain_samples({"obs": observations, "rewards": observations[..., 0]}, axes, layout) is None
    observations[1, 3, 6] = -5e20
    found = explain_samples({"obs": observations}, axes, layout)
    assert found == "the observation.camera.0[1, 1] is -5e+20 in environment 1, step 3; scale it in the environment."
    named = {"obs": {"eye": torch.tensor([[0.0, torch.nan]])}}
    assert explain_samples(named, ("sample",)) == (
        "the observation.eye[1] is nan in sample 0; scale it in the environment."
    )
    of_unequal_parts = {"obs": {"eyes": (torch.zeros(1, 3), torch.tensor([[0.0, torch.inf]]))}}
    assert (explain_samples(of_unequal_parts, ("sample",)) or "").startswith("the observation.eyes.1[1] is inf")
    assert explain_samples({"obs": np.full((1, 2), 255, np.uint8)}, axes) is None


def test_the_largest_weight_is_nan_where_one_is() -> None:
    weights = [torch.tensor([1.0, -3.0]), torch.tensor([2.0])]
    assert largest_of(weights) == 3.0
    assert largest_of([*weights, torch.tensor([torch.nan, 5.0])]).isnan()
    assert largest_of([*weights, torch.tensor([-torch.inf])]).isinf()
