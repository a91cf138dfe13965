"""Exploration noise that is correlated from step to step."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from small_policy import SMALL

from ctm_rl.agents import RecurrentPPOConfig
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.ppo.env_runner import ColumnarEnvRunner
from ctm_rl.agents.ppo.exploration_noise import CorrelatedNoise
from ctm_rl.agents.ppo.rollout import RolloutFragment
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config
from ctm_rl.spaces.actions import Numbers

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

R = 0.8


def noise_of(num_steps: int, is_first: torch.Tensor | None = None, num_rows: int = 400) -> torch.Tensor:
    """[T, B, 2]."""
    noise = CorrelatedNoise(R, torch.Generator().manual_seed(3))
    begins = torch.zeros(num_steps, num_rows, dtype=torch.bool) if is_first is None else is_first
    return torch.stack([noise.draw(row, 2) for row in begins])


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(np.corrcoef(one.flatten(), other.flatten())[0, 1])


def test_every_step_is_standard_gaussian_and_the_correlation_falls_by_powers() -> None:
    noise = noise_of(60)
    assert noise.mean().abs() < 0.05
    assert noise.std(dim=1).min() > 0.9
    assert noise.std(dim=1).max() < 1.1
    for lag in (1, 2, 5):
        assert correlation(noise[:-lag], noise[lag:]) == pytest.approx(R**lag, abs=0.02)
    assert abs(correlation(noise[..., 0], noise[..., 1])) < 0.03


def test_an_episode_begins_with_noise_of_its_own() -> None:
    is_first = torch.zeros(10, 400, dtype=torch.bool)
    is_first[4, :200] = True
    noise = noise_of(10, is_first)
    assert abs(correlation(noise[3, :200], noise[4, :200])) < 0.15
    assert correlation(noise[3, 200:], noise[4, 200:]) == pytest.approx(R, abs=0.1)
    torch.testing.assert_close(noise[:, 200:], noise_of(10)[:, 200:], rtol=0, atol=0)


def config_of(env: str = "Pendulum-v1", **ppo: Any) -> RecurrentPPOConfig:
    experiment = ActingExperiment(
        name="noise",
        env=EnvConfig(id=env, max_episode_steps=40),
        model=dataclasses.replace(SMALL, action_std="state"),
        ppo=PPOSettings(num_rollout_steps=64, num_minibatches=1, **ppo),
        num_envs_per_env_runner=16,
        seed=7,
    )
    config = build_algorithm_config(experiment)
    assert isinstance(config, RecurrentPPOConfig)
    return config


def sampled(runner: ColumnarEnvRunner, **settings: Any) -> tuple[RolloutFragment, torch.Tensor, Numbers]:
    """A fragment, the outputs of the policy in it, [B, T, O], and the actions' space."""
    fragment = runner.sample(**settings)
    assert runner.module is not None
    agent = runner.module.agent
    assert isinstance(agent.actions, Numbers)
    state = type(agent.initial_state(1))(**{name: torch.from_numpy(part) for name, part in fragment.state.items()})
    observed = torch.from_numpy(fragment.observations).transpose(0, 1)
    with torch.no_grad():
        outputs = agent.unroll(observed, torch.from_numpy(fragment.is_first).T, state).logits.transpose(0, 1)
    return fragment, outputs, agent.actions


def test_a_runner_explores_with_it_and_scores_actions_by_the_policys_gaussian() -> None:
    runner = ColumnarEnvRunner(config=config_of(noise_correlation=R), worker_index=0)
    fragment, outputs, space = sampled(runner)
    actions = torch.from_numpy(fragment.actions)
    np.testing.assert_allclose(fragment.logp, space.score(outputs, actions).logp.numpy(), atol=1e-4)
    mean, log_std = outputs.chunk(2, -1)
    noise = (actions - mean) / log_std.exp()
    begins = torch.from_numpy(fragment.is_first[:, 1:])
    assert begins.any()
    before, after = noise[:, :-1], noise[:, 1:]
    assert correlation(before[~begins], after[~begins]) == pytest.approx(R, abs=0.1)
    assert noise.std() == pytest.approx(1.0, abs=0.15)
    # Without exploration the means are taken, and exploring begins again with independent noise.
    fragment, outputs, _ = sampled(runner, explore=False, num_timesteps=3)
    np.testing.assert_allclose(fragment.actions, outputs.chunk(2, -1)[0].numpy(), atol=1e-5)
    assert runner._player is not None
    assert runner._player._noise is not None
    assert runner._player._noise._last is None
    runner.stop()


def test_noise_without_correlation_is_drawn_as_ever() -> None:
    fragments = []
    for config in (config_of(), config_of(noise_correlation=0.0)):
        runner = ColumnarEnvRunner(config=config, worker_index=0)
        fragments.append(runner.sample(num_timesteps=5))
        runner.stop()
    np.testing.assert_array_equal(fragments[0].actions, fragments[1].actions)
    space = Numbers(low=(-1.0, -2.0), high=(1.0, 2.0), shape=(2,))
    outputs = torch.tensor([[0.5, -0.5, 0.1, 0.2]]).expand(3, 4)
    drawn = space.sample(outputs, torch.Generator().manual_seed(1))
    expected = outputs[:, :2] + outputs[:, 2:].exp() * torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, expected)


def test_actions_that_are_chosen_have_no_noise() -> None:
    message = r"noise_correlation has no effect on actions that are chosen \(here 1 choice, one of 2\).*leave it out"
    with pytest.raises(ValueError, match=f"^ppo.{message}") as caught:
        config_of("CartPole-v1", noise_correlation=0.5)
    assert "\n" not in str(caught.value)
    config = RecurrentPPOConfig().environment("CartPole-v1").training(noise_correlation=0.5)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=4)
    with pytest.raises(ValueError, match=f"^{message}"):
        ColumnarEnvRunner(config=config, worker_index=0)
