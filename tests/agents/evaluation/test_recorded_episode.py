"""Recorded episodes: those that are evaluated, with frames and thoughts of the step that they belong to."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from counting_env import Counting
from small_policy import SMALL

from ctm_rl.agents.evaluation.play import PlayOptions, play_all, seeds_of_episodes
from ctm_rl.agents.evaluation.recorded_episode import RecordedStep, play_recorded, play_recorded_batch
from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.config import PolicyConfig
from ctm_rl.errors import EnvFault, UserError
from ctm_rl.inference.policy import Policy
from ctm_rl.models.actor_critic import ActorCritic

COUNTING = EnvConfig(id="counting_env:helpers/Counting-v0", kwargs={"length": 4})
PENDULUM = EnvConfig(id="Pendulum-v1", wrappers=("hide-velocities", "time-limit=6"))


def policy_for(config: EnvConfig, model: PolicyConfig = SMALL) -> Policy:
    """An untrained policy whose actions depend on what it sees."""
    env = make_env(config)
    torch.manual_seed(8)
    fitted = fit(model, env.observation_space, env.action_space)
    env.close()
    agent = ActorCritic(fitted.config, fitted.layout, fitted.actions)
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            if not name.endswith("rate"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return Policy(agent)


def play(policy: Policy, config: EnvConfig, seed: int = 3, **options: Any) -> list[RecordedStep]:
    """All steps of an episode."""
    given = {"deterministic": False, "render": False, "generator": torch.Generator().manual_seed(seed), **options}
    return list(play_recorded(policy, config, seeds_of_episodes(seed, 1)[0], **given))


def test_frames_observations_and_rewards_belong_to_their_step() -> None:
    steps = play(policy_for(COUNTING), COUNTING, render=True)
    assert 4 <= len(steps) <= 6
    for number, step in enumerate(steps):
        assert step.observation[0] == number
        assert step.frame is not None
        assert (step.frame.shape, step.frame.dtype) == ((8, 12, 3), np.uint8)
        assert (step.frame == 20 * number).all()
        assert step.reward == number + 1 + step.action
        assert step.ticks_used == len(step.ticks.value) == SMALL.num_ticks
        assert step.ticks.post_activations.shape == (SMALL.num_ticks, SMALL.num_neurons)
        assert (step.is_terminated, step.is_truncated) == (number == len(steps) - 1, False)
    for before, after in itertools.pairwise(steps):
        assert after.observation[1] == before.action
    assert steps[-1].is_success == (steps[-1].action != 0)
    assert len({int(step.action) for step in play(policy_for(COUNTING), COUNTING) * 2}) > 1


def test_thoughts_go_on_from_step_to_step_as_those_of_the_unroll() -> None:
    policy = policy_for(COUNTING, dataclasses.replace(SMALL, critic="own"))
    steps = play(policy, COUNTING)
    observations = torch.as_tensor(np.stack([step.observation for step in steps]))[:, None]
    is_first = torch.arange(len(steps))[:, None] == 0
    with torch.no_grad():
        start, critic = policy.initial_state(1), policy.initial_critic_state(1)
        expected = policy.agent.unroll(observations, is_first, start, critic_state=critic)
    for name, wanted in (("logits", expected.logits), ("value", expected.values), ("output_sync", expected.sync)):
        found = np.stack([getattr(step.ticks, name)[-1] for step in steps])
        np.testing.assert_allclose(found, wanted[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (COUNTING, {}),
        (PENDULUM, {}),
        (PENDULUM, {"kind": "lstm"}),
        (COUNTING, {"train_random_ticks": True}),
        (EnvConfig(id="masked_envs:masked/SeveralTuple-v0"), {}),
        (EnvConfig(id="masked_envs:masked/OneMethod-v0"), {"critic": "own"}),
    ],
    ids=str,
)
def test_the_episodes_are_those_that_are_evaluated(config: EnvConfig, model: dict[str, Any]) -> None:
    policy = policy_for(config, dataclasses.replace(SMALL, **model))
    halting = 0.2 if policy.agent.config.train_random_ticks else None
    for num_episodes, deterministic in ((1, False), (5, False), (3, True)):
        seeds, generator = seeds_of_episodes(9, num_episodes), torch.Generator().manual_seed(9)
        returns, lengths, num_ticks = np.zeros(num_episodes), np.zeros(num_episodes), 0
        for row_steps in play_recorded_batch(
            policy,
            config,
            seeds,
            deterministic=deterministic,
            halt_certainty=halting,
            render=False,
            generator=generator,
        ):
            for row, step in enumerate(row_steps):
                returns[row] += step.reward if step else 0
                lengths[row] += step is not None
                num_ticks += step.ticks_used if step else 0
        expected = play_all(policy, config, seeds, PlayOptions(deterministic, 9, halting, None, 100))
        assert returns.mean() == pytest.approx(expected["episode_return_mean"], rel=1e-5)
        assert returns.max() == pytest.approx(expected["episode_return_max"], rel=1e-5)
        assert lengths.sum() == expected["env_steps"]
        if halting is not None:
            assert num_ticks / lengths.sum() == pytest.approx(expected["ticks_mean"])


def test_long_episodes_are_truncated_and_may_be_left() -> None:
    policy, config = policy_for(COUNTING), dataclasses.replace(COUNTING, kwargs={"length": 10**6})
    steps = play(policy, config, max_steps=7)
    assert [step.is_truncated for step in steps] == [False] * 6 + [True]
    episode = play_recorded(policy, config, 1, deterministic=True, render=True, generator=None)
    assert next(iter(episode)).ticks_used == SMALL.num_ticks


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raises", r"render\(\) raised RuntimeError \(no display\)\."),
        ("none", r"render\(\) returned None with render_mode rgb_array\."),
        ("floats", r"render\(\) must return an array .*, and returned ndarray of shape \(8, 12, 3\), float64\."),
    ],
)
def test_what_cannot_be_rendered_is_reported_and_plays_without_frames(fault: str, reason: str) -> None:
    config = dataclasses.replace(COUNTING, kwargs={"length": 4, "fault": fault})
    policy = policy_for(config)
    with pytest.raises(UserError, match=f"Counting-v0 cannot be rendered: {reason}"):
        play(policy, config, render=True)
    assert all(step.frame is None for step in play(policy, config))


def test_an_environment_that_renders_without_a_mode_is_rendered() -> None:
    config = EnvConfig(id="counting_env:CountingWithoutMode")
    steps = play(policy_for(config), config, render=True)
    assert [int(step.frame[0, 0, 0]) for step in steps if step.frame is not None] == list(range(0, 20 * len(steps), 20))


def test_a_fault_of_the_environment_ends_the_episode_even_where_it_is_tolerated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(COUNTING, tolerate_faults=True)
    policy = policy_for(config)
    monkeypatch.setattr(Counting, "step", lambda self, action: 1 / 0)
    with pytest.raises(EnvFault, match="Counting-v0 raised ZeroDivisionError"):
        play(policy, config)
    missing = EnvConfig(id="Missing-v0")
    with pytest.raises(UserError, match="'Missing-v0' cannot be made"):
        play(policy, missing, render=True)
