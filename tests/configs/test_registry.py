"""Experiments by name: those of this package, of others by entry points, and of the user's by module:function."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ctm_rl.cli.choose import choose
from ctm_rl.cli.main import main
from ctm_rl.configs import describe, load, names, registry
from ctm_rl.errors import UserError

SOURCE = '''
import dataclasses
from ctm_rl import configs

def quick():
    """CartPole, but quick.

    More about it.
    """
    return dataclasses.replace(configs.load("cartpole"), name="quick", seed=7)

def wrong():
    return 3

def fails():
    return 1 / 0
'''


@pytest.fixture(autouse=True)
def declared(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that declares an experiment, and another that cannot be imported any more."""
    (place / "own_experiments.py").write_text(SOURCE)
    points = {
        name: EntryPoint(name, value, registry.OWN_EXPERIMENTS)
        for name, value in (("quick", "own_experiments:quick"), ("gone", "gone_package:gone"))
    }
    monkeypatch.setattr(registry, "declared_code", lambda group: points)
    sys.path.insert(0, str(place))


def test_a_declared_experiment_is_listed_and_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert names()[-2:] == ["gone", "quick"]
    assert load("quick").seed == 7
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split(maxsplit=1) == ["quick", "CartPole, but quick."]
    assert "there is no module gone_package" in lines[-2]
    assert describe("cartpole") != describe("quick")


def test_a_function_of_the_users_is_trained_by_name() -> None:
    experiment, rest, prog = choose("train", ["own_experiments:quick", "--seed", "3"])
    assert (experiment.name, rest, prog) == ("quick", ["--seed", "3"], "ctm-rl train own_experiments:quick")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_experiments:wrong", "must return an ActingExperiment or an AnsweringExperiment, and returned a int"),
        ("own_experiments:fails", "it raised ZeroDivisionError: division by zero"),
        ("own_experiments:quik", "own_experiments has no quik"),
        ("quik", "unknown experiment 'quik': did you mean quick?"),
    ],
)
def test_what_is_no_experiment_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(name)
