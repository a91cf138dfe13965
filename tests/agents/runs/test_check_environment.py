"""Environments are tried out: one that shows the right answer makes the command line ask what to learn."""

import pytest

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.runs.check_environment import try_out
from ctm_rl.cli.choose import read_experiment

SIGN = "own_tasks:OwnSign-v0"


def test_whether_to_answer_or_to_act_is_asked_for() -> None:
    problem = try_out(EnvConfig(id=SIGN, target="ask"))
    assert problem is not None
    assert f"ctm-rl train --task {SIGN} learns from the answers" in problem
    assert f"ctm-rl train --env {SIGN} --env.target ignore" in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    "env",
    [
        EnvConfig(id=SIGN),
        EnvConfig(id="own_tasks:OwnSigns-v0", target="ask"),
        EnvConfig(id="CartPole-v1", target="ask"),
    ],
    ids=["ignored", "several steps", "no target"],
)
def test_nothing_is_asked_for_otherwise(env: EnvConfig) -> None:
    assert try_out(env) is None


def test_only_the_command_line_asks() -> None:
    assert read_experiment("train", ["--env", SIGN]).env.target == "ask"  # pyright: ignore[reportAttributeAccessIssue]
    chosen = read_experiment("train", ["--env", SIGN, "--env.target", "ignore"])
    assert chosen.env.target == "ignore"  # pyright: ignore[reportAttributeAccessIssue]
    assert EnvConfig(id=SIGN).target == "ignore"


def test_a_task_and_its_arguments_come_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--task", "own_tasks:Brackets", "--env.kwargs", '{"length": 6}', "--model.num-ticks", "3"]
    experiment = read_experiment("train", words)
    assert (experiment.env.id, experiment.env.kwargs) == ("own_tasks:Brackets", {"length": 6})
    assert experiment.model.num_ticks == 3
    assert read_experiment("train", ["--data", "own_tasks:arrays", '--env.kwargs={"held_out": 0.5}']).name
    assert (
        capsys.readouterr().out == "data: 40 vectors of 3, 2 classes, 20 held out (split off, the same in every run)\n"
    )
