"""The environment of a run: the samples that are evaluated and learned from, and the games that are played."""

import json
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from paths import GOLDEN

from ctm_rl import Policy, load_model
from ctm_rl.agents import environment_of, evaluate
from ctm_rl.agents.run_directory.directory import read_config
from ctm_rl.errors import UserError

ACTING, ANSWERING = GOLDEN / "runs" / "acting", GOLDEN / "runs" / "answering"


@pytest.mark.parametrize("num_envs", [None, 30, 100])
def test_a_loop_over_the_samples_has_the_accuracy_of_evaluate(num_envs: int | None) -> None:
    model = load_model(ANSWERING)
    expected = evaluate(ANSWERING, episodes=120, seed=4)
    num_right = num_elements = 0
    rewards = []
    env = environment_of(ANSWERING, num_envs=num_envs, seed=4)
    while num_elements < 120 * 6:
        observations, info = env.reset()
        classes = model.answer(observations).classes
        targets = np.atleast_2d(info["target"])
        rows = slice(0, 120 - num_elements // 6)
        num_right += int((classes == targets)[rows].sum())
        num_elements += targets[rows].size
        answered, reward, terminated, truncated, info = env.step(classes if num_envs else classes[0])
        rewards += np.atleast_1d(np.asarray(reward))[rows].tolist()
        assert np.all(terminated)
        assert not np.any(truncated)
        np.testing.assert_array_equal(np.atleast_2d(info["target"]), targets)
        np.testing.assert_array_equal(answered, observations)
    env.close()
    assert num_right / num_elements == expected["accuracy"]
    assert np.mean(rewards) == pytest.approx(expected["accuracy"])


def test_training_samples_are_those_that_were_learned_from() -> None:
    experiment = read_config(ANSWERING)
    env = environment_of(ANSWERING, num_envs=7, split="training")
    shown = np.concatenate([env.reset()[0] for _ in range(5)])
    again = environment_of(ANSWERING, num_envs=35, split="training").reset()[0]
    np.testing.assert_array_equal(shown, again)
    held_out = environment_of(ANSWERING, num_envs=35).reset()[0]
    assert (shown != held_out).any()
    assert env.single_observation_space.contains(shown[0])
    assert experiment.seed == 1


def test_a_finite_set_begins_again_after_its_last_sample(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(ANSWERING, run)
    config = json.loads((run / "config.json").read_text())
    config["env"] = {
        "id": "ctm_rl.envs:ctm_rl/Images-v0",
        "kwargs": {"dataset": "mnist"},
        "held_out_kwargs": {"split": "test"},
    }
    (run / "config.json").write_text(json.dumps(config))
    env = environment_of(run, num_envs=600)
    (first, _), (second, _) = env.reset(), env.reset()
    np.testing.assert_array_equal(second[400:], first[:200])
    assert first.dtype == np.uint8
    larger = environment_of(run, env_kwargs={"size": 14})
    assert larger.reset()[0].shape == (14, 14, 1)


def test_a_run_that_acts_is_played_with_its_wrappers() -> None:
    policy = Policy.from_checkpoint(ACTING)
    env = environment_of(ACTING / "checkpoints" / "iteration-000002")
    observation, _ = env.reset(seed=3)
    state, total, is_over = policy.initial_state(), 0.0, False
    while not is_over:
        assert (observation[1], observation[3]) == (0, 0)  # velocities are hidden
        action, state = policy.act(observation, state, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, is_over = total + float(reward), terminated or truncated
    assert total > 1
    vector = environment_of(ACTING, num_envs=3)
    assert vector.reset(seed=3)[0].shape == (3, 4)
    np.testing.assert_array_equal(vector.reset(seed=3)[0][0], env.reset(seed=3)[0])


def test_mistakes_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="num_envs must be at least 1, got 0"):
        environment_of(ANSWERING, num_envs=0)
    with pytest.raises(UserError, match="split must be held-out or training, got 'test'"):
        environment_of(ANSWERING, split="test")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="split and seed are for runs that answer"):
        environment_of(ACTING, seed=1)
    with pytest.raises(UserError, match="is not a run directory"):
        environment_of(tmp_path)
    env = environment_of(ANSWERING)
    with pytest.raises(gym.error.ResetNeeded, match="reset the environment before answering"):
        env.step(np.zeros(6))
    with pytest.raises(ValueError, match="reset takes no seed and no options"):
        env.reset(seed=1)
    # a run of somebody else, which names a module of the current folder
    run = tmp_path / "run"
    shutil.copytree(ACTING, run)
    config = json.loads((run / "config.json").read_text())
    config["env"]["id"] = "stranger:Game-v0"
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"asks to import stranger from .* add --trust \(in Python trust=True\)"):
        environment_of(run)
