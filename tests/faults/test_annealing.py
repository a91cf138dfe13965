"""Annealed values: no iteration learns with a learning rate of 0, and a new budget's jump is reported."""

import dataclasses
from typing import Any

import pytest
from tiny_runs import comparable, train

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.rllib import private
from ctm_rl.agents.runs.schedules import describe_jumps
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.configs import load

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("algorithm", ["ppo", pytest.param("stock-ppo", marks=pytest.mark.slow)])
def test_the_reported_learning_rate_is_what_the_iteration_learned_with(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    learn = Run._train

    def watched(self: Run) -> Any:
        used.append(private.learning_rate_of(private.local_learner(self._algorithm.learner_group)))
        return learn(self)

    monkeypatch.setattr(Run, "_train", watched)
    assert train("cartpole", "--ppo.is-lr-annealed", "--algorithm", algorithm, iterations=3, run_dir="a") == 0
    rates: list[Any] = [row["lr"] for row in comparable("a")]
    assert rates == used
    assert rates[0] == 5e-4
    assert 0 < rates[-1] < rates[1] < rates[0]


def experiment(name: str, env_steps: int, **changes: Any) -> Any:
    return dataclasses.replace(load(name), budget=BudgetConfig(env_steps=env_steps), **changes)


def test_a_longer_budget_names_what_jumps() -> None:
    short, long = experiment("cartpole", 3000), experiment("cartpole", 4000)
    assert isinstance(short, ActingExperiment)
    constant = dataclasses.replace(short.ppo, is_clip_annealed=False)
    short, long = (dataclasses.replace(one, ppo=constant) for one in (short, long))
    assert describe_jumps(short, long, 3000) == (
        "the learning rate goes from 0 to 0.000125: its schedule ends at 4,000 env steps instead of 3,000"
    )
    assert describe_jumps(short, short, 1500) is None
    ppo = dataclasses.replace(short.ppo, is_lr_annealed=False, entropy_coefficient_final=0.0)
    assert describe_jumps(dataclasses.replace(short, ppo=ppo), dataclasses.replace(long, ppo=ppo), 1500) == (
        "the entropy coefficient goes from 0.005 to 0.00625: its schedule ends at 4,000 env steps instead of 3,000"
    )
    other = dataclasses.replace(short, ppo=dataclasses.replace(short.ppo, lr=2e-3))
    assert describe_jumps(short, other, 1500) == "the learning rate goes from 0.00025 to 0.001"
    following = dataclasses.replace(short, ppo=dataclasses.replace(short.ppo, lr_kl_target=0.01))
    assert describe_jumps(following, short, 1500, 0.1) == "the learning rate goes from 2.5e-05 to 0.00025"
    assert describe_jumps(following, following, 1500, 0.1) is None
    clipped = dataclasses.replace(short.ppo, is_lr_annealed=False, is_clip_annealed=True)
    short, long = (dataclasses.replace(one, ppo=clipped) for one in (short, long))
    assert describe_jumps(short, long, 3000) == (
        "the clip range goes from 0 to 0.05: its schedule ends at 4,000 env steps instead of 3,000"
    )
    both = dataclasses.replace(clipped, is_lr_annealed=True)
    short, long = (dataclasses.replace(one, ppo=both) for one in (short, long))
    assert describe_jumps(short, long, 3000) == (
        "the learning rate goes from 0 to 0.000125 and the clip range goes from 0 to 0.05: their schedules end at "
        "4,000 env steps instead of 3,000"
    )


def test_a_longer_budget_names_what_jumps_where_steps_are_those_of_the_optimiser() -> None:
    short, long = experiment("parity", 64 * 1000), experiment("parity", 64 * 2000)
    line = describe_jumps(short, long, 64 * 1000)
    assert line is not None
    assert line.startswith("the learning rate goes from 0 to ")
    constant = dataclasses.replace(short.learning, schedule="constant")
    kept = (dataclasses.replace(one, learning=constant) for one in (short, long))
    assert describe_jumps(*kept, env_steps=64 * 1000) is None
