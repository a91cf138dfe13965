"""Atari games: the same spaces in training, evaluation and for users of a policy; needs ale-py and OpenCV."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tiny_runs import TINY

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.environment import make_env, make_vector_env
from ctm_rl.cli.main import main
from ctm_rl.envs import wrap
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import Policy

GAME = "ALE/Breakout-v5"


def needs_ale() -> None:
    """Skips a test where the packages of the extra are missing."""
    for name in ("ale_py", "cv2"):
        pytest.importorskip(name, reason=f'needs {name}: pip install "ctm-rl[atari]"')


@pytest.mark.parametrize(
    ("wrappers", "kwargs", "noted"),
    [
        ((), {}, "has another space than gymnasium.make"),
        ((), {"obs_type": "ram"}, "does not take the arguments of gymnasium.make"),
        (("atari",), {}, ""),
    ],
)
def test_training_plays_what_evaluation_plays(
    wrappers: Any, kwargs: Any, noted: str, caplog: pytest.LogCaptureFixture
) -> None:
    needs_ale()
    config = EnvConfig(id=GAME, wrappers=wrappers, kwargs=kwargs)
    env: Any = make_vector_env(config, 2)
    one = make_env(config)
    assert env.single_observation_space == one.observation_space
    assert env.single_action_space == one.action_space
    assert len(caplog.records) == bool(noted)
    assert noted in caplog.text
    observations, _ = env.reset(seed=[1, 2])
    assert observations.shape[1:] == one.observation_space.shape
    assert not wrappers or one.observation_space.shape == (4, 84, 84)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "place")
def test_a_game_is_trained_evaluated_resumed_and_played(capsys: pytest.CaptureFixture[str]) -> None:
    needs_ale()
    game = ("--env", GAME, "--env.wrappers", "atari", "--env.max-episode-steps", "120")
    assert main(["train", *game, *TINY, "--budget.env-steps", "50", "--run-dir", "a"]) == 0
    assert main(["resume", "a", "--budget.env-steps", "100"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "a", "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2
    policy = Policy.from_checkpoint(Path("a"))
    env = wrap(gym.make(GAME, frameskip=1), ["atari"])
    observation, _ = env.reset(seed=3)
    action, _ = policy.act(observation, policy.initial_state())
    assert env.action_space.contains(np.int64(action))


def test_what_is_missing_or_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"wrapper atari is for the games of ale-py, such as ALE/Pong-v5, not for"):
        wrap(gym.make("CartPole-v1"), ["atari"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs ale_py, which is not installed: pip install ale-py"):
        make_env(EnvConfig(id=GAME))
