"""Checkpoints and episodes: a checkpoint leaves the environments alone, and returns are those of whole episodes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import TINY, comparable

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.rllib.environment import make_vector_env
from ctm_rl.agents.rllib.vector_loop import VectorLoop
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.configs import load
from ctm_rl.spaces.observations import vector_layout

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

LENGTH = 25
"""Steps of every episode below: more than two iterations of ``TINY``, which have ten each."""


def train(*arguments: str, run_dir: str) -> int:
    limit = ("--env.max-episode-steps", str(LENGTH), "--budget.env-steps", "200")
    return main(["train", "--env", "MountainCar-v0", *limit, *TINY, *arguments, "--run-dir", run_dir])


@pytest.mark.usefixtures("ray_session", "place")
def test_a_run_with_a_checkpoint_at_every_iteration_equals_one_without() -> None:
    assert train("--checkpoint-iterations", "1", run_dir="often") == 0
    assert train(run_dir="never") == 0
    rows = comparable("often")
    assert rows == comparable("never")
    assert rows[-1]["episode_length_mean"] == LENGTH
    assert rows[-1]["episode_return_mean"] == -LENGTH


@pytest.mark.parametrize("algorithm", ["ppo", "stock-ppo"])
@pytest.mark.usefixtures("ray_session", "place")
def test_the_only_episode_that_ends_in_an_iteration_is_counted(algorithm: str) -> None:
    one = ("--algorithm", algorithm, "--num-envs-per-env-runner", "1", "--ppo.num-minibatches", "1")
    assert train(*one, run_dir="a") == 0
    rows = comparable("a")
    assert {row["num_episodes"] for row in rows} == {0, 1}
    assert sum(row["num_episodes"] or 0 for row in rows) == (rows[-1]["env_steps"] or 0) // LENGTH
    assert rows[-1]["episode_length_mean"] == LENGTH


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "place")
def test_a_stock_algorithm_counts_whole_episodes_and_an_exact_one_ends_likewise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stock = ("--algorithm", "stock-ppo", "--ppo.num-minibatches", "1")
    assert train(*stock, "--env.stagger-episodes", run_dir="a") == 0
    rows = comparable("a")
    assert rows[-1]["episode_length_mean"] == LENGTH
    assert {row["episode_return_mean"] for row in rows} == {None, -LENGTH}
    assert train(*stock, "--checkpoint-iterations", "1", "--exact-resume", run_dir="b") == 2
    assert "an episode has lasted all 10 steps between two checkpoints" in capsys.readouterr().err


@pytest.mark.usefixtures("ray_session", "place")
def test_an_exact_run_ends_where_an_episode_lasts_from_checkpoint_to_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train("--checkpoint-iterations", "2", "--exact-resume", run_dir="a") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ctm-rl:")]
    assert "an episode has lasted all 20 steps between two checkpoints" in line
    assert "--checkpoint-iterations (now 2)" in line
    assert checkpoint.iteration_of(checkpoint.latest(Path("a"))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "exact_resume needs checkpoint_iterations"),
        (
            {"checkpoint_iterations": 2, "algorithm": "appo", "num_env_runners": 1},
            "exact_resume has no effect with algorithm appo",
        ),
    ],
)
def test_exact_resume_is_refused_where_no_run_repeats_another(changes: dict[str, Any], message: str) -> None:
    experiment = load("cartpole")
    assert isinstance(experiment, ActingExperiment)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(experiment, exact_resume=True, **changes)


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.slow)])
def test_episodes_that_were_cut_to_stagger_the_environments_are_not_whole(vectorization: Any) -> None:
    env = make_vector_env(
        EnvConfig(id="MountainCar-v0", max_episode_steps=LENGTH, stagger_episodes=True, vectorization=vectorization),
        5,
    )
    loop = VectorLoop(env, vector_layout(2))
    loop.reset([3, 4, 5, 6, 7])
    ended = np.zeros(5, int)
    for _, step in zip(range(3 * LENGTH), loop.steps(lambda *_: np.zeros(5, np.int64)), strict=False):
        first = step.is_last & (ended == 0)
        assert (step.is_whole == (step.is_last & (step.lengths == LENGTH))).all()
        assert (step.lengths[first] <= LENGTH).all()
        ended += step.is_last
    assert ended.min() >= 2
    env.close()


def test_an_episode_that_was_cut_by_a_tolerated_fault_is_not_whole() -> None:
    # Every second episode fails in its second step; the others end after four.
    env = make_vector_env(EnvConfig(id="faulty:Faulty-v0", kwargs={"fault": "nan"}, tolerate_faults=True), 3)
    loop = VectorLoop(env, vector_layout(2))
    loop.reset([0, 1, 2])
    lengths = []
    for _, step in zip(range(30), loop.steps(lambda *_: np.zeros(3, np.int64)), strict=False):
        lengths += step.lengths[step.is_whole].tolist()
        assert not (step.is_whole & ~step.is_last).any()
    assert lengths
    assert set(lengths) == {4}
    env.close()
