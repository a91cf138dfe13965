"""The experiments on POPGym: tasks that are what their descriptions say, and the package that they need."""

import importlib.util
import re
from typing import Any

import numpy as np
import pytest
from small_policy import SMALL

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.rllib.environment import make_env, make_vector_env
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.cli.main import main
from ctm_rl.configs import describe, load, names
from ctm_rl.envs.wrappers.time_limit import find_time_limit

POPGYM = [name for name in names() if name.startswith("popgym-")]


def _env_of(name: str) -> EnvConfig:
    """The environment of an experiment."""
    experiment: Any = load(name)
    return experiment.env


@pytest.mark.usefixtures("place")
def test_without_the_package_they_are_listed_and_one_line_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "popgym" else find(name))
    assert len(POPGYM) == 8
    assert main(["list"]) == 0
    assert capsys.readouterr().out.count("popgym-") == 8
    expected = 'cannot be made: it needs popgym, which is not installed: pip install "ctm-rl[popgym]".\n'
    for arguments in (["popgym-autoencode-easy"], ["--env", "popgym:popgym-HigherLowerEasy-v0"]):
        assert main(["train", *arguments, "--budget.env-steps", "64"]) == 2
        (line,) = capsys.readouterr().err.splitlines(keepends=True)
        assert line.endswith(expected)


@pytest.mark.parametrize("name", POPGYM)
def test_episodes_have_the_length_that_is_described(name: str) -> None:
    pytest.importorskip("popgym")
    experiment: Any = load(name)
    assert isinstance(experiment, ActingExperiment)
    assert experiment.budget.env_steps == 1_000_000
    env = make_env(experiment.env)
    described = re.search(r"(\d+) steps", describe(name))
    assert described is not None
    assert find_time_limit(env) == int(described[1])
    env.reset(seed=1)
    env.action_space.seed(1)
    total, is_over, length = 0.0, False, 0
    while not is_over:
        _, reward, is_terminated, is_truncated, _ = env.step(env.action_space.sample())
        total, is_over, length = total + float(reward), is_terminated or is_truncated, length + 1
    assert -1 <= total < 0.3
    assert "cartpole" in name or length == int(described[1])


def test_a_card_three_steps_before_is_what_repeat_previous_rewards() -> None:
    pytest.importorskip("popgym")
    experiment: Any = load("popgym-repeat-previous-easy")
    env = make_env(experiment.env)
    shown, total = [env.reset(seed=3)[0]], 0.0
    for _ in range(51):
        observation, reward, *_ = env.step(shown[max(0, len(shown) - 4)])
        shown.append(observation)
        total += float(reward)
    assert total == pytest.approx(1.0)


def test_the_noisy_cartpole_shows_what_was_done() -> None:
    pytest.importorskip("popgym")
    noisy = "popgym-noisy-position-only-cartpole-hard"
    assert [name for name in POPGYM if _env_of(name).previous_action] == [noisy]
    env = make_env(_env_of(noisy))
    assert env.reset(seed=1)[0]["previous_action"].tolist() == [0, 0]
    observation, *_ = env.step(1)
    assert observation["previous_action"].tolist() == [0, 1]
    assert observation["observation"].shape == (2,)


def test_they_are_seen_with_the_previous_action_and_begin_at_different_steps() -> None:
    pytest.importorskip("popgym")
    experiment: Any = load("popgym-autoencode-easy")
    config = type(experiment.env)(id=experiment.env.id, previous_action=True, stagger_episodes=True)
    env: Any = make_vector_env(config, 8)
    layout = fit(SMALL, env.single_observation_space, env.single_action_space).layout
    assert [part.name for part in layout.parts] == ["observation.0", "observation.1", "previous_action"]
    assert (layout.shape, layout.dtype) == ((6,), np.uint8)
    env.reset(seed=list(range(8)))
    first_ends = np.zeros(8, int)
    for step in range(1, 104):
        ended = np.logical_or(*env.step(np.zeros(8, int))[2:4])
        first_ends[ended & (first_ends == 0)] = step
    assert len(set(first_ends)) > 4
    env.close()
