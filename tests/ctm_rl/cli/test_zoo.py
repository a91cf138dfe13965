"""``ctm-rl zoo``: what it lists and describes."""

import json
import re

import pytest

from ctm_rl.cli.main import main
from ctm_rl.zoo.entries import FOLDER, names


def test_all_entries_are_listed_with_their_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "task", "parameters", "result", "(95", "%", "interval)", "trained"]
    assert [line.split()[0] for line in lines[: len(names())]] == [f"zoo:{name}" for name in names()]
    assert all(line.endswith(" min") for line in lines[: len(names())])
    (cartpole,) = (re.split(" {2,}", line) for line in lines if line.startswith("zoo:cartpole"))
    assert cartpole[1:4] == ["CartPole with hidden velocities", "83,415", "return 500.0 (500.0 to 500.0)"]


@pytest.mark.parametrize("name", ["cartpole", "zoo:cartpole"])
def test_an_entry_is_described(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", name]) == 0
    text = capsys.readouterr().out
    assert text.startswith("zoo:cartpole: CartPole with hidden velocities, 500 steps")
    assert "return 500.0 (500.0 to 500.0): ctm-rl evaluate zoo:cartpole --deterministic\n" in text
    assert ": ctm-rl train cartpole --seed " in text
    assert str(FOLDER / "cartpole") in text


def test_shares_are_in_percent_of_what_counts(capsys: pytest.CaptureFixture[str]) -> None:
    from ctm_rl.cli.zoo import _result

    evaluation = {"words": ["bits", "whole sequences"], "accuracy": 0.999, "accuracy_interval": [0.998, 1.0]}
    evaluation |= {"accuracy_whole": 0.95, "accuracy_whole_interval": [0.94, 0.96]}
    assert _result({"measure": "accuracy", "evaluation": evaluation}) == "99.9 % of bits (99.8 to 100.0)"
    whole = _result({"measure": "accuracy_whole", "evaluation": evaluation})
    assert whole == "95.0 % of whole sequences (94.0 to 96.0)"


def test_json_has_all_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "--json"]) == 0
    everything = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in everything] == names()
    assert main(["zoo", "cartpole", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == everything[names().index("cartpole")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zoo", "cartpol"], "zoo:cartpol is not in the zoo, which has acrobot, "),
        (["evaluate", "zoo:cartpol"], "did you mean zoo:cartpole?"),
        (["evaluate", "zoo:cartpole", "--checkpoint", "3"], "has no checkpoint of iteration 3; kept are "),
        (["resume", "zoo:cartpole"], "zoo:cartpole is read-only; begin a run of your own with its weights: "),
        (["train", "cartpole", "--run-dir", "zoo:mine"], "zoo:NAME is a run of the zoo; name another directory."),
        (["train", "cartpole", "--init-from", "zoo:mine"], "zoo:mine is not in the zoo, which has acrobot, "),
        (["train", "--config", "zoo:mine"], "zoo:mine is not in the zoo, which has acrobot, "),
    ],
)
def test_mistakes_are_reported_in_one_line(
    arguments: list[str], message: str, place: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
