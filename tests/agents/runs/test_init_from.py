"""Runs that begin with the weights of another: what is taken, what is named, what is refused."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import GOLDEN
from tiny_runs import TINY, assert_same_state, budget

from ctm_rl.agents.run_directory.directory import read_config
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.runs.init_from import Source, fit_weights, read_source
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import Policy

ACTING, ANSWERING, IMPORTED = GOLDEN / "runs" / "acting", GOLDEN / "runs" / "answering", GOLDEN


def source(num_neurons: int = 4, **weights: Any) -> Source:
    return Source(Path("there"), {name.replace("_", "."): value for name, value in weights.items()}, num_neurons, None)


def test_a_layer_is_taken_whole_or_not_at_all() -> None:
    ones = torch.ones
    own = {
        "same.weight": ones(2, 3),
        "same.bias": ones(2),
        "wider.weight": ones(2, 5),
        "wider.bias": ones(2),
        "norm.mean": ones(7),
        "norm.count": ones(()),
        "new.weight": ones(1),
        "partly.weight": ones(2),
        "partly.bias": ones(2),
    }
    there = source(
        same_weight=ones(2, 3),
        same_bias=ones(2),
        wider_weight=ones(2, 3),
        wider_bias=ones(2),
        norm_mean=ones(3),
        norm_count=ones(()),
        partly_weight=ones(2),
        old_weight=ones(1),
    )
    fit = fit_weights(own, 4, there)
    assert sorted(fit.taken) == ["same.bias", "same.weight"]
    assert fit.problems == [
        "of another size: wider 2 x 3, here 2 x 5, norm 3, here 7, partly 2, here 2",
        "new here, and random: new",
        "without a place here: old",
    ]


def test_pairs_of_other_neurons_are_not_taken() -> None:
    own = {"sync.left": torch.zeros(3, dtype=torch.int64), "sync.decay": torch.zeros(3)}
    there = source(sync_left=torch.ones(3, dtype=torch.int64), sync_decay=torch.ones(3))
    assert sorted(fit_weights(own, 4, there).taken) == ["sync.decay", "sync.left"]
    fit = fit_weights(own, 9, there)
    assert fit.taken == {}
    assert fit.problems == ["of another size: sync, pairs of 4 neurons, here of 9"]


@pytest.mark.parametrize("run", [ACTING, ANSWERING])
def test_only_numbers_are_read(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    # Whatever its configuration asks for.
    (tmp_path / "run" / "config.json").write_text("not JSON")
    newest = checkpoint.latest(tmp_path / "run")
    state = checkpoint.load(newest)
    evil = {"env": {"id": "evil:Env-v0"}, "callbacks": ["evil:Callback"]}
    entry = "policy" if "policy" in state else "model"
    state[entry]["config"]["encoder"] = "evil:Encoder"
    checkpoint.save(tmp_path / "run", 3, {**state, "experiment": evil})
    found = read_source(str(tmp_path / "run"))
    assert found.place == tmp_path / "run" / "checkpoints" / "iteration-000003"
    assert found.weights.keys() == state[entry]["weights"].keys()
    assert read_source(str(newest)).place == newest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry["weights"].update({"core.output_sync.left": torch.full((36,), 99)}), "below 16"),
        (lambda entry: entry["weights"].update({"core.x": 3}), "weights must be tensors by name, got 'core.x'"),
        (lambda entry: entry.pop("weights"), "weights"),
    ],
)
def test_damaged_weights_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    state = checkpoint.load(checkpoint.latest(ACTING))
    change(state["policy"])
    checkpoint.save(tmp_path, 1, state)
    with pytest.raises(UserError, match=f"^--init-from: .*{message}"):
        read_source(str(tmp_path))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--init-from: .*has no checkpoint"):
        read_source(str(tmp_path))


def begin(run_dir: str, *arguments: str, iterations: int = 1) -> int:
    return main(
        ["train", "cartpole", *TINY, "--budget.env-steps", budget(iterations), "--run-dir", run_dir, *arguments]
    )


def weights_of(place: Path) -> dict[str, torch.Tensor]:
    return dict(Policy.from_checkpoint(place).agent.state_dict())


NORMALISED = ("--model.normalize-observations", "--ppo.normalize-rewards")


@pytest.mark.usefixtures("ray_session", "place")
def test_weights_and_normalisation_are_taken_and_resuming_does_not_begin_again(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert begin("a", *NORMALISED, iterations=2) == 0
    assert begin("b", *NORMALISED, "--seed", "2", "--init-from", "a", "--env.wrappers") == 0
    learned, begun, trained = (
        weights_of(Path(run) / "checkpoints" / f"iteration-{number:06d}")
        for run, number in (("a", 2), ("b", 0), ("b", 1))
    )
    assert_same_state(begun, learned)
    assert any((trained[name] != begun[name]).any() for name in begun)
    assert any(name.endswith("variance") for name in begun)
    assert f"begins with {len(begun)} of {len(begun)} weights of " in capsys.readouterr().out
    assert "not taken" not in caplog.text
    # The statistics of rewards go on as well: 40 steps there and in each iteration here.
    counts = []
    for run, number in (("a", 2), ("b", 1)):
        state = checkpoint.load(Path(run) / "checkpoints" / f"iteration-{number:06d}")
        counts.append(state["learner"]["playing"][0]["rewards"]["count"])
        # The optimiser begins anew.
        moments = next(iter(state["learner"]["optimizers"].values()))["state"]
        assert next(iter(moments.values()))["step"] == 2 * number
    assert 30 < counts[1] - counts[0] <= 40
    # The path is absolute in the configuration, and no longer read.
    assert read_config(Path("b")).init_from == str(Path("a").absolute())
    shutil.rmtree("a")
    before = weights_of(Path("b"))
    assert main(["resume", "b", "--budget.env-steps", budget(2)]) == 0
    assert [row["iteration"] for row in read_metrics(Path("b"))] == [1, 2]
    assert (before["policy.layers.0.bias"] - weights_of(Path("b"))["policy.layers.0.bias"]).abs().max() < 0.01
    with pytest.MonkeyPatch.context():
        assert begin("c", "--init-from", "a") == 2
        assert capsys.readouterr().err.startswith("ctm-rl: --init-from: ")
        assert not Path("c").exists()


@pytest.mark.usefixtures("ray_session", "place")
def test_on_another_environment_what_was_not_taken_is_named(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert begin("a") == 0
    with caplog.at_level(logging.WARNING, "ctm_rl"):
        options = ["--env.id", "Acrobot-v1", "--env.max-episode-steps", "20", "--algorithm", "appo"]
        assert begin("b", *options, "--init-from", "a/checkpoints/iteration-000001") == 0
    (line,) = [line for line in caplog.messages if "not taken" in line]
    assert "not taken, since of another size: encoder.normaliser 4, here 6, core.synapse.layers.1 32 x 20, her" in line
    learned, begun = (
        weights_of(Path(run) / "checkpoints" / f"iteration-{number:06d}") for run, number in (("a", 1), ("b", 0))
    )
    same = {name.rpartition(".")[0] for name in begun if torch.equal(begun[name], learned.get(name, torch.empty(0)))}
    assert {"core", "core.nlm.layers.0", "policy.layers.0", "value.layers.2"} <= same
    # APPO's second network is the same.
    modules = checkpoint.load(Path("b/checkpoints/iteration-000000"))["learner"]["modules"]["default_policy"]
    acting, target = ({n.split(".", 1)[1]: modules[n] for n in modules if n.startswith(p)} for p in ("ag", "ta"))
    assert_same_state(acting, target)

    assert begin("c", "--model.kind", "lstm", "--init-from", str(ANSWERING)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ctm-rl:")]
    assert "none of its weights fits this model (" in line
    assert "--config and its config.json" in line
    assert not Path("c").exists()


@pytest.mark.usefixtures("ray_session", "place")
def test_a_run_that_answers_begins_with_another_too() -> None:
    config = json.loads((ANSWERING / "config.json").read_text())
    config.pop("run_dir", None)
    Path("config.json").write_text(json.dumps({**config, "seed": 9}))
    assert main(["train", "--config", "config.json", "--init-from", str(ANSWERING), "--run-dir", "a"]) == 0
    begun, learned = (
        checkpoint.load(place)["model"]["weights"]
        for place in (Path("a/checkpoints/iteration-000000"), checkpoint.latest(ANSWERING))
    )
    assert_same_state(begun, learned)
