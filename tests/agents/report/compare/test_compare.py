"""Pages that compare runs: their numbers are those of ``evaluate``, and each run is the same line everywhere."""

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answering_runs import small_experiment, write_run

from ctm_rl.agents.evaluation.evaluate import evaluate
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.report.compare.compare import make_comparison
from ctm_rl.agents.report.document import Document, Line, Lines, Section, Table
from ctm_rl.agents.report.report import ReportOptions
from ctm_rl.agents.report.scored import MIN_COUNT
from ctm_rl.agents.run_directory.directory import CONFIG_FILE, METRICS_FILE, config_of, write_config
from ctm_rl.agents.run_directory.progress import describe_return
from ctm_rl.agents.seeds.options import SeedOptions
from ctm_rl.agents.seeds.plan import EXPERIMENT_FILE, SEEDS_FILE
from ctm_rl.checkpoints import store
from ctm_rl.config import PolicyConfig
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import POLICY_ENTRY, describe
from ctm_rl.metrics import interquartile_mean, mean_interval
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import vector_layout

SAMPLES = 100
FEW = ReportOptions(episodes=SAMPLES)
POLICY = PolicyConfig(
    num_neurons=16, num_output_sync_neurons=4, history_length=3, num_ticks=2, feature_dim=5, head_dims=(6,),
    encoder="control",
)  # fmt: skip


def rows_of(seed: int, count: int = 3) -> list[dict[str, Any]]:
    """Metrics that differ by seed."""
    return [
        {"iteration": number, "env_steps": 100 * number, "seconds": 2.0 * number, "total_loss": seed / number}
        for number in range(1, count + 1)
    ]


def write_seed(path: Path, seed: int, **model: Any) -> Path:
    """A run of parity with a seed."""
    experiment = replace(small_experiment("parity", **model), seed=seed)
    return write_run(path, experiment, rows_of(seed), iterations=(seed,))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seeds of the machine, and one baseline without ticks."""
    place = tmp_path_factory.mktemp("runs")
    return {
        "a": write_seed(place / "a", 1),
        "b": write_seed(place / "b", 2),
        "c": write_seed(place / "c", 3, kind="mlp"),
    }


@pytest.fixture(scope="module")
def compared(runs: dict[str, Path]) -> Document:
    """The page of all of them."""
    return make_comparison([runs["c"], runs["a"], runs["b"]], FEW)


def section(document: Document, name: str) -> Section:
    """The section of that name."""
    (found,) = [one for one in document.sections if one.name == name]
    return found


def table(document: Document, name: str, title: str) -> dict[str, dict[str, str]]:
    """The rows of a table by their first two cells, or the first; each by the names of the columns."""
    (found,) = [one for one in section(document, name).figures if one.title == title]
    assert isinstance(found, Table)
    depth = 2 if found.columns[1] == "run" else 1
    return {" ".join(row[:depth]): dict(zip(found.columns, row, strict=True)) for row in found.rows}


def chart(document: Document, name: str, title: str) -> Lines:
    """A chart by its title."""
    (found,) = [one for one in section(document, name).figures if one.title == title]
    assert isinstance(found, Lines)
    return found


def line(figure: Lines, name: str) -> Line:
    """A line by its name."""
    (found,) = [one for one in figure.lines if one.name == name]
    return found


def test_numbers_are_those_of_evaluate(compared: Document, runs: dict[str, Path]) -> None:
    results = {name: evaluate(run, episodes=SAMPLES) for name, run in runs.items()}
    shown = table(compared, "answers", "Results")
    for name, key in (("a", "ctm a"), ("b", "ctm b"), ("c", "mlp c")):
        assert shown[key]["right elements"].startswith(f"{100 * results[name]['accuracy']:.1f} % (")
        assert table(compared, "runs", "Results")[key]["evaluated"].startswith(
            f"accuracy {100 * results[name]['accuracy']:.1f} % ("
        )
    by_tick = line(chart(compared, "answers", "Accuracy by tick"), "ctm, 2 seeds")
    pairs = np.array([results["a"]["accuracy_by_tick"], results["b"]["accuracy_by_tick"]])
    np.testing.assert_allclose(by_tick.y, pairs.mean(0))
    np.testing.assert_allclose(np.asarray(by_tick.low), pairs.min(0))  # two seeds: a resample may hold one alone
    both = torch.tensor([results[name]["accuracy"] for name in "ab"], dtype=torch.float64)
    over_seeds = table(compared, "answers", "Right elements over seeds")
    assert over_seeds["ctm"]["right elements"].startswith(f"{100 * interquartile_mean(both):.1f} % (")
    assert over_seeds["ctm"]["difference from mlp"] == f"{100 * (both.mean() - results['c']['accuracy']):+.1f}"
    error = line(chart(compared, "calibration", "Calibration error by tick"), "ctm, 2 seeds")
    last = [results[name]["calibration"]["last"]["ece"] for name in "ab"]
    assert np.asarray(error.y)[-1] == pytest.approx(np.mean(last))


def test_bins_of_few_answers_are_left_out(runs: dict[str, Path]) -> None:
    document = make_comparison([runs["c"], runs["a"]], ReportOptions(episodes=12))
    found = evaluate(runs["c"], episodes=12)["calibration"]["most_certain"]["reliability"]
    counts = np.array([one["count"] for one in found])
    assert ((counts > 0) & (counts < MIN_COUNT)).any()
    shown = np.asarray(line(chart(document, "calibration", "Reliability"), "mlp").y)
    np.testing.assert_array_equal(np.isnan(shown), counts < MIN_COUNT)


def test_a_single_run_has_its_own_intervals(runs: dict[str, Path]) -> None:
    document = make_comparison([runs["a"], runs["c"]], FEW)
    result = evaluate(runs["a"], episodes=SAMPLES, halt_curve=True)
    by_tick = line(chart(document, "answers", "Accuracy by tick"), "ctm")
    np.testing.assert_allclose(by_tick.y, result["accuracy_by_tick"])
    assert (np.asarray(by_tick.low) < np.asarray(by_tick.y)).all()
    halting = line(chart(document, "ticks", "Compute against accuracy"), "ctm")
    assert set(np.asarray(halting.y).tolist()) <= {point["accuracy"] for point in result["halting"]}


def test_a_line_has_the_same_colour_in_all_charts(compared: Document) -> None:
    charts = [one for part in compared.sections for one in part.figures if isinstance(one, Lines)]
    assert {(one.name, one.colour) for figure in charts for one in figure.lines} == {
        ("mlp", 0),
        ("ctm, 2 seeds", 1),
        ("calibrated", 2),
    }
    assert [one.name for one in chart(compared, "answers", "Accuracy by tick").lines] == ["ctm, 2 seeds"]


def test_curves_are_the_runs_own_and_of_seeds_their_spread(compared: Document) -> None:
    loss = chart(compared, "learning", "Loss")
    assert np.asarray(loss.x).tolist() == [100, 200, 300]
    np.testing.assert_allclose(line(loss, "mlp").y, [3, 1.5, 1])
    seeds = line(loss, "ctm, 2 seeds")
    np.testing.assert_allclose(seeds.y, [1.5, 0.75, 0.5])
    np.testing.assert_allclose(np.asarray(seeds.low), [1, 0.5, 1 / 3])
    np.testing.assert_allclose(np.asarray(seeds.high), [2, 1, 2 / 3])


def test_only_what_differs_is_listed(compared: Document, runs: dict[str, Path]) -> None:
    assert table(compared, "runs", "What differs") == {
        "model.kind": {"field": "model.kind", "mlp": "mlp", "ctm": "ctm"}
    }
    facts = table(compared, "runs", "Runs")
    assert (
        facts["ctm b"] | {"neurons": "17", "ticks": "5", "seed": "2", "steps": "300", "time": "6 s"} == facts["ctm b"]
    )
    assert facts["mlp c"]["ticks"] == "–"  # noqa: RUF001
    speed = table(compared, "speed", "Speed")["ctm a"]
    assert speed["training, per second"] == "50"
    assert float(speed["evaluation, ms each"]) > 0
    assert float(speed["model alone, ms each"]) > 0


def test_names_say_what_differs(tmp_path: Path) -> None:
    paths = [write_seed(tmp_path / str(ticks), 1, num_ticks=ticks) for ticks in (3, 5)]
    document = make_comparison(paths, FEW, evaluate=False)
    assert document.title == "parity: num_ticks 3, num_ticks 5"
    assert {part.name for part in document.sections} == {"runs", "learning", "speed"}
    same = [write_seed(tmp_path / name / "run", 1) for name in ("x", "y")]
    document = make_comparison(same, FEW, evaluate=False)
    assert list(table(document, "runs", "Runs")) == ["ctm x/run", "ctm y/run"]
    assert document.notes == ["x/run and y/run have the same configuration and seed: their spread is too small."]


def test_a_directory_of_seeds_is_one_line(tmp_path: Path, runs: dict[str, Path]) -> None:
    seeds = tmp_path / "seeds"
    for seed in (1, 2):
        shutil.copytree(runs["ab"[seed - 1]], seeds / f"seed-{seed}")
    experiment = small_experiment("parity")
    write_config(seeds, config_of(experiment), EXPERIMENT_FILE)
    write_config(seeds, dataclasses.asdict(SeedOptions(seeds=(1, 2, 3))), SEEDS_FILE)  # the third has not begun
    document = make_comparison([seeds, runs["c"]], FEW, evaluate=False)
    assert list(table(document, "runs", "Runs")) == ["ctm seed-1", "ctm seed-2", "mlp c"]
    assert document.title == "parity: ctm, mlp"


def test_a_run_counts_once(runs: dict[str, Path]) -> None:
    document = make_comparison(
        [runs["a"], runs["c"], runs["a"] / "checkpoints" / ".." / ".." / "a"], FEW, evaluate=False
    )
    assert list(table(document, "runs", "Runs")) == ["ctm a", "mlp c"]
    (note,) = document.notes
    assert note.endswith("is named twice, and shown once.")
    with pytest.raises(UserError, match="compare needs at least two runs, got one; ctm-rl report shows a single one"):
        make_comparison([runs["a"], runs["a"]], FEW)
    with pytest.raises(UserError, match="are of the same run"):
        make_comparison([runs["a"], store.path_of(runs["a"], 1)], FEW)


def test_runs_of_different_tasks_have_tables_and_no_shared_curves(tmp_path: Path, runs: dict[str, Path]) -> None:
    other = write_run(tmp_path / "sort", small_experiment("sorting"), rows_of(1))
    document = make_comparison([runs["c"], other], ReportOptions(episodes=10))
    (note,) = document.notes
    assert "are of different tasks (" in note
    assert "curves of different units cannot be laid over each other" in note
    assert "learning" not in [part.name for part in document.sections]
    assert list(table(document, "answers", "Results")) == ["parity c", "sorting sort"]


def test_what_is_missing_is_said(tmp_path: Path, runs: dict[str, Path]) -> None:
    shutil.copytree(runs["a"], tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / store.FOLDER)
    shutil.copytree(runs["c"], tmp_path / "silent")
    (tmp_path / "silent" / METRICS_FILE).unlink()
    document = make_comparison([tmp_path / "bare", tmp_path / "silent"], ReportOptions(episodes=10))
    assert [note.partition(" has no")[0] for note in document.notes[:1]] == [f"bare: {tmp_path / 'bare'}"]
    assert document.notes[1] == "silent: it has no metrics, and no learning curves."
    assert [one.name for one in chart(document, "learning", "Loss").lines] == ["ctm"]
    assert list(table(document, "answers", "Results")) == ["mlp silent"]
    assert table(document, "runs", "Results")["ctm bare"]["evaluated"] == "–"  # noqa: RUF001


def write_policy(path: Path, seed: int) -> Path:
    """A run of an untrained policy in CartPole."""
    path.mkdir()
    torch.manual_seed(seed)
    experiment = ActingExperiment(name="pole", env=EnvConfig(id="CartPole-v1"), model=POLICY, seed=seed)
    write_config(path, config_of(experiment))
    agent = ActorCritic(POLICY, vector_layout(4), Choices(sizes=(2,)))
    store.save(path, 1, {POLICY_ENTRY: describe(agent)})
    rows = [{"iteration": 1, "env_steps": 500, "seconds": 1.0, "episode_return_mean": 20.0 + seed}]
    (path / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_policies_play_the_same_episodes(tmp_path: Path) -> None:
    one, other = write_policy(tmp_path / "one", 1), write_policy(tmp_path / "other", 2)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "ppo": {**config["ppo"], "gamma": 0.9}}))
    options = ReportOptions(episodes=12, seed=4)
    document = make_comparison([one, other], options)
    results = [evaluate(run, episodes=12, seed=4) for run in (one, other)]
    shown = table(document, "returns", "Evaluated returns")
    for key, result in zip(("gamma 0.99 one", "gamma 0.9 other"), results, strict=True):
        low, high = map(describe_return, result["episode_return_interval"])
        assert shown[key]["mean return"] == f"{describe_return(result['episode_return_mean'])} ({low} to {high})"
    found = table(document, "returns", "Differences from gamma 0.99")["gamma 0.9"]
    difference = results[1]["episode_return_mean"] - results[0]["episode_return_mean"]
    assert found["difference"].lstrip("+").startswith(f"{describe_return(difference)} (")
    assert found["interval over"] == "episodes"


def test_policies_that_differ_in_seeds_have_an_interval_over_seeds(tmp_path: Path) -> None:
    paths = [write_policy(tmp_path / f"seed-{seed}", seed) for seed in (1, 2)]
    config = json.loads((paths[1] / CONFIG_FILE).read_text())
    (paths[1] / CONFIG_FILE).write_text(json.dumps({**config, "video_every": 9}))  # which changes no training
    document = make_comparison(paths, ReportOptions(episodes=5))
    means = [evaluate(path, episodes=5)["episode_return_mean"] for path in paths]
    found = table(document, "returns", "Differences from ctm")["ctm"]
    low, high = map(describe_return, sorted(means))
    assert found["return"] == f"{describe_return(sum(means) / 2)} ({low} to {high})"
    returns = line(chart(document, "learning", "Return in training"), "ctm, 2 seeds")
    assert [np.asarray(part).tolist() for part in (returns.y, returns.low, returns.high)] == [[21.5], [21], [22]]
    assert mean_interval(torch.tensor(means)) is not None
