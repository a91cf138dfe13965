"""Runs that learn to answer, from the command line: train, resume, evaluate; and images of every kind through Ray."""

import dataclasses
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from image_files import encode, random_images, write_cifar, write_folder, write_parquet
from tiny_runs import comparable

from ctm_rl.agents.evaluation.evaluate import evaluate
from ctm_rl.agents.experiments.answering import AnsweringExperiment, HeldOutSettings, LearningSettings, TaskConfig
from ctm_rl.agents.experiments.serialise import from_json, to_json
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.run_directory.directory import read_config
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.run_directory.working_directory import with_absolute_paths
from ctm_rl.agents.runs import train_and_resume as run
from ctm_rl.agents.runs.answering_task import ANSWERING_METRICS
from ctm_rl.agents.runs.build_algorithm import fit_model
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.agents.supervised.algorithm import Supervised
from ctm_rl.agents.supervised.scoring import Tally
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.best import read_best
from ctm_rl.cli.main import main
from ctm_rl.config import AnswerConfig
from ctm_rl.configs import load, names
from ctm_rl.errors import UserError
from ctm_rl.inference.load_model import load_model
from ctm_rl.models.preprocessing import model_inputs

BATCH, STEPS = 8, 3
TINY = (
    *("--model.num-neurons", "12", "--model.num-output-sync-neurons", "5", "--model.num-action-sync-neurons", "4"),
    *("--model.history-length", "4", "--model.num-ticks", "3", "--model.nlm-hidden-dim", "2"),
    *("--model.feature-dim", "8", "--model.num-heads", "2", "--env.kwargs", '{"length": 6}'),
    *("--learning.batch-size", str(BATCH), "--learning.num-steps-per-iteration", str(STEPS)),
    *("--held-out.num-samples", "30", "--held-out.num-iterations", "2"),
)


def budget(iterations: int) -> str:
    return str(iterations * BATCH * STEPS)


def train(*arguments: str, iterations: int, run_dir: str) -> int:
    """Trains something tiny."""
    tiny = ["train", "parity", *TINY, "--budget.env-steps", budget(iterations), "--run-dir", run_dir]
    return main([*tiny, *arguments])


@pytest.mark.usefixtures("ray_session", "place")
def test_tests_come_as_often_as_eval_every_says_and_the_best_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracies = iter((0.5, 0.7, 0.6))
    monkeypatch.setattr(Supervised, "test", lambda self: Tally(10, 10 * next(accuracies), 1.0, 5.0))
    kept = ("--checkpoint-iterations", "1", "--keep-checkpoints", "9")
    assert train("--eval.every", "3", *kept, iterations=7, run_dir="a") == 0
    rows = read_metrics(Path("a"))
    assert [list(row) for row in rows] == [[*ANSWERING_METRICS, "eval_iteration"]] * 7
    assert [row["eval_iteration"] for row in rows] == [None, None, 3, 3, 3, 6, 7]
    assert [row["accuracy"] for row in rows][2:] == [0.5, 0.5, 0.5, 0.7, 0.6]
    best, same = load_model("a", checkpoint="best").state_dict(), load_model("a", checkpoint=6).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in best.items())
    capsys.readouterr()
    assert main(["evaluate", "a", "--checkpoint", "best", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["iteration"], result["episodes"]) == (6, 2000)
    low, high = result["accuracy_interval"]
    assert 0 < low < result["accuracy"] < high < 1
    assert main(["evaluate", "a", "--episodes", "40"]) == 0
    assert re.search(r"40 samples of parity: [\d.]+ % \([\d.]+ to [\d.]+\) of bits", capsys.readouterr().out)
    assert train("--eval.every", "3", "--eval.episodes", "5", iterations=1, run_dir="b") == 2
    assert (
        "eval.episodes has no effect on a run that answers: its tests use held-out samples" in capsys.readouterr().err
    )


@pytest.mark.usefixtures("ray_session", "place")
def test_a_run_leaves_metrics_and_a_model_that_is_evaluated_and_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(iterations=3, run_dir="a") == 0
    output, error = capsys.readouterr()
    assert error == ""
    assert "evaluate it: ctm-rl evaluate a" in output
    rows = [json.loads(line) for line in Path("a/metrics.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [list(ANSWERING_METRICS)] * 3
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert [row["env_steps"] for row in rows] == [BATCH * STEPS * count for count in (1, 2, 3)]
    tested = [(row["accuracy"], row["accuracy_whole"], row["held_out_loss"]) for row in rows]
    assert tested[0] == (None, None, None)  # every second iteration, and after the last one
    assert len(set(tested)) == 3
    assert all(isinstance(row[name], float) for row in rows for name in ("total_loss", "gradient_norm", "lr"))
    assert checkpoint.iteration_of(checkpoint.latest(Path("a"))) == 3

    def evaluated(*arguments: str) -> dict[str, float]:
        assert main(["evaluate", "a", "--episodes", "130", "--json", *arguments]) == 0
        return {**json.loads(capsys.readouterr().out), "seconds": 0.0}

    best = read_best(Path("a"))
    assert best is not None
    assert (best.metric, best.value) == ("accuracy", max(row["accuracy"] or 0 for row in rows))
    assert best.iteration == next(row["iteration"] for row in rows if row["accuracy"] == best.value)
    first = evaluated("--seed", "5")
    assert (first["episodes"], first["iteration"], first["task"]) == (130, 3, "parity")
    assert 0 < first["accuracy"] < 1
    assert evaluated("--seed", "5") == first
    assert evaluated("--seed", "6") != first
    forgetful = evaluated("--seed", "5", "--decay-rate", "15")
    assert forgetful != first
    assert main(["evaluate", "a", "--episodes", "7"]) == 0
    assert capsys.readouterr().out.startswith("7 samples of parity: ")

    for arguments, message in (
        (("--env-kwargs", '{"length": 5}'), "with these arguments needs num_groups 5, and the model has 6."),
        (("--env-kwargs", '{"width": 5}'), "env.id 'ctm_rl.envs:ctm_rl/Parity-v0' cannot be made:"),
        (("--decay-rate", "16"), "decay_rate must be at least 0 and at most 15, got 16.0."),
    ):
        assert main(["evaluate", "a", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1

    model = load_model("a")
    assert not model.training
    shown = torch.ones(2, 6)
    inputs, question = model_inputs(model.config, shown)
    assert question is None
    assert model(inputs).predictions.shape == (2, 6 * 2, 3)
    # A larger budget, a new schedule: the run continues its counts.
    assert main(["resume", "a"]) == 2
    assert "has used up its budget" in capsys.readouterr().err
    assert main(["resume", "a", "--budget.env-steps", budget(4)]) == 0
    rows = read_metrics(Path("a"))
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]


def stop_after(iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a run stop as by Ctrl-C when so many iterations have been learned."""
    learn = Run._train

    def counted(self: Run) -> Row:
        row = learn(self)
        if self._position.iteration == iterations:
            signal.raise_signal(signal.SIGINT)
        return row

    monkeypatch.setattr(Run, "_train", counted)


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("runners", [0, pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_resumed_run_equals_an_uninterrupted_one(runners: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--learning.clip-quantile", "0.9", "--learning.max-grad-norm", "None", "--model.dropout", "0.1")
    # Runners make the samples that this process would make.
    assert train(*arguments, iterations=4, run_dir="whole") == 0
    arguments += ("--num-env-runners", str(runners), "--num-cpus-per-env-runner", "0.5")
    with monkeypatch.context() as patched:
        stop_after(2, patched)
        assert train(*arguments, iterations=4, run_dir="parts") == 130
    assert checkpoint.iteration_of(checkpoint.latest(Path("parts"))) == 2
    assert main(["resume", "parts"]) == 0
    rows = comparable("whole")
    assert comparable("parts") == rows
    assert len({row["total_loss"] for row in rows}) == 4


def test_wrong_combinations_are_refused_in_one_line_and_nothing_is_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (("--env.kwargs", '{"width": 3}'), "cannot be made:"),
        (("--env.id", "Nowhere-v0"), "env.id 'Nowhere-v0' cannot be made:"),
        (("--env.held-out-kwargs", '{"length": 7}'), "must not change the number of answers or channels"),
        (("--model.encoder", "resnet18-1", "--model.positions", "none"), "model.encoder resnet18-1 reads an image"),
        (("--model.encoder", "none", "--model.positions", "none"), "model.num_heads must be 0 with encoder none"),
        (("--learning.loss", "order"), "learning.loss order needs an answer that orders its elements"),
        (("--learning.batch-size", "7", "--learning.num-accumulated", "2"), "the nearest that work: 6 or 8"),
        (("--learning.milestones", "3"), "learning.milestones must be given with schedule multistep"),
        (("--learning.max-grad-norm", "1", "--learning.clip-quantile", "0.5"), "exclude each other"),
        (("--model.num-ticks", "0"), "num_ticks must be at least 1, got 0"),
        (("--num-env-runners", "1000"), "ask for fewer"),
    ]
    for arguments, message in cases:
        assert train(*arguments, iterations=1, run_dir="a") == 2, arguments
        error = capsys.readouterr().err
        assert message in error, error
        assert error.count("\n") == 1, error
    assert list(place.iterdir()) == []


def test_an_environment_and_a_model_that_do_not_fit_are_refused() -> None:
    sorting = load("sorting")
    assert isinstance(sorting, AnsweringExperiment)
    few = dataclasses.replace(sorting, model=dataclasses.replace(sorting.model, num_ticks=3))
    with pytest.raises(UserError, match=r"emits \d+ elements one by one: model.num_ticks must be at least that, got 3"):
        fit_model(few)
    digits = load("mnist")
    assert isinstance(digits, AnsweringExperiment)
    with pytest.raises(UserError, match=r"must select samples of .*Images-v0 other than those learned from"):
        fit_model(dataclasses.replace(digits, env=TaskConfig(id=digits.env.id, kwargs={"dataset": "mnist"})))
    with pytest.raises(UserError, match=r"model.encoder parity reads a vector, got observations Box"):
        fit_model(
            dataclasses.replace(digits, model=dataclasses.replace(digits.model, encoder="parity", positions="none"))
        )


@pytest.mark.parametrize(("name", "value"), [("loss", "class"), ("schedule", "linear"), ("precision", "half")])
def test_choices_are_checked_in_python_too(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"learning.{name} must be one of .*; got '{value}'"):
        LearningSettings(**{name: value})  # pyright: ignore[reportArgumentType]


def test_arguments_of_an_environment_must_be_json_values() -> None:
    with pytest.raises(ValueError, match=r"env.held_out_kwargs must contain only values that JSON can hold: .*Path"):
        TaskConfig(id="ctm_rl/Images-v0", held_out_kwargs={"path": Path("here")})


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("kind", ["gru", "mlp"])
@pytest.mark.parametrize("name", ["parity", "sorting", "mnist", "qa-mnist"])
def test_a_baseline_of_matched_width_learns_to_answer(name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    learning = "--learning.batch-size", "8", "--learning.num-steps-per-iteration", "2", "--held-out.num-samples", "20"
    run_dir = "--budget.env-steps", "32", "--run-dir", "a"
    assert main(["train", name, "--model.kind", kind, "--model.num-ticks", "8", *learning, *run_dir]) == 0
    rows = read_metrics(Path("a"))
    assert all(isinstance(row["total_loss"], float) for row in rows)
    capsys.readouterr()
    assert main(["evaluate", "a", "--episodes", "20", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["episodes"] == 20
    assert read_config(Path("a")).model.baseline_dim is None
    assert (load_model("a").config.baseline_dim or 0) > 1


SUPERVISED = [name for name in names() if isinstance(load(name), AnsweringExperiment)]


@pytest.mark.parametrize("name", SUPERVISED)
def test_experiments_are_read_back_from_json(name: str) -> None:
    experiment = load(name)
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment


NEEDS_DATA = {name for name in SUPERVISED if name.startswith(("cifar", "imagenet"))} | {"mazes", "mazes-19", "mazes-39"}
"""Experiments whose environment is not installed, or needs data."""


@pytest.mark.parametrize("name", [name for name in SUPERVISED if name not in NEEDS_DATA])
def test_experiments_fit_their_environments(name: str) -> None:
    experiment = load(name)
    assert isinstance(experiment, AnsweringExperiment)
    fitted = fit_model(experiment)
    # As large as published, without the memory.
    from ctm_rl.models.answering import build_model

    with torch.device("meta"):
        model = build_model(fitted)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1000


def test_paths_of_existing_data_become_absolute(place: Path) -> None:
    (place / "data").mkdir()
    env = TaskConfig(
        id="X-v0", kwargs={"path": "data", "folder": "north", "size": "data"}, held_out_kwargs={"folder": "./data"}
    )
    changed = with_absolute_paths(
        dataclasses.replace(pictures("folder", "data", num_env_runners=0, iterations=1), env=env)
    )
    assert isinstance(changed, AnsweringExperiment)
    assert changed.env.kwargs == {"path": str(place / "data"), "folder": "north", "size": "data"}
    assert changed.env.held_out_kwargs == {"folder": str(place / "data")}


def pictures(dataset: str, path: str, *, num_env_runners: int, iterations: int) -> AnsweringExperiment:
    """Pictures by a tiny model; five optimiser steps an iteration."""
    return AnsweringExperiment(
        name="pictures",
        env=TaskConfig(
            id="ctm_rl.envs:ctm_rl/Images-v0",
            kwargs={"dataset": dataset, "path": path, "size": 32},
            held_out_kwargs={"split": "test"},
        ),
        model=AnswerConfig(
            encoder="resnet18-1",
            positions="none",
            num_neurons=32,
            history_length=4,
            num_ticks=3,
            nlm_hidden_dim=2,
            feature_dim=8,
            num_heads=2,
            pairing="random-pairing",
            num_output_sync_neurons=9,
            num_action_sync_neurons=7,
        ),
        learning=LearningSettings(batch_size=4, num_steps_per_iteration=5, lr=1e-3, num_warmup_steps=2),
        held_out=HeldOutSettings(num_samples=10, num_iterations=1),
        budget=BudgetConfig(env_steps=20 * iterations),
        num_env_runners=num_env_runners,
        num_cpus_per_env_runner=0.5,
    )


def write_imagenet_folder(place: Path) -> None:
    for split, count in (("train", 12), ("val", 6)):
        write_folder(place, split, random_images(count, 40, 48), [index % 3 for index in range(count)], "JPEG")


def write_imagenet_parquet(place: Path) -> None:
    for split, count in (("train", 12), ("validation", 6)):
        encoded: list[bytes | None] = [encode(picture, "JPEG") for picture in random_images(count, 40, 48)]
        write_parquet(place / f"{split}-00000-of-00001.parquet", encoded, [index % 3 for index in range(count)])


def write_cifar10(place: Path) -> None:
    for number in range(1, 6):
        write_cifar(place / f"data_batch_{number}.bin", random_images(4, seed=number), [0, 1, 2, 3])
    write_cifar(place / "test_batch.bin", random_images(6), [0, 1, 2, 3, 4, 5])


def write_cifar100(place: Path) -> None:
    for split, count in (("train", 12), ("test", 6)):
        encoded: list[bytes | None] = [encode(picture) for picture in random_images(count)]
        path = place / f"{split}-00000-of-00001.parquet"
        write_parquet(path, encoded, list(range(count)), columns=("img", "fine_label"))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("dataset", "write"),
    [
        ("imagenet", write_imagenet_folder),
        pytest.param("imagenet", write_imagenet_parquet, marks=pytest.mark.slow),
        pytest.param("cifar10", write_cifar10, marks=pytest.mark.slow),
        pytest.param("cifar100", write_cifar100, marks=pytest.mark.slow),
    ],
    ids=["imagenet-folder", "imagenet-parquet", "cifar10", "cifar100-parquet"],
)
def test_images_are_learned_tested_and_resumed_over_a_runner(
    dataset: str, write: Callable[[Path], None], place: Path
) -> None:
    write(place / "data")
    experiment = pictures(dataset, "data", num_env_runners=1, iterations=1)
    run_dir = run.train(dataclasses.replace(experiment, run_dir="a"))
    longer = dataclasses.replace(experiment, budget=BudgetConfig(env_steps=40))
    kept = read_config(run_dir)
    assert isinstance(kept, AnsweringExperiment)
    assert kept.env.kwargs["path"] == str(place / "data")
    run.resume(run_dir, dataclasses.replace(kept, budget=longer.budget))
    rows = read_metrics(run_dir)
    assert [row["env_steps"] for row in rows] == [20, 40]
    assert all(isinstance(row[name], float) for row in rows for name in ("accuracy", "total_loss", "held_out_loss"))
    result = evaluate(run_dir, episodes=100)
    assert result["episodes"] == 6  # all there are
    assert result["accuracy"] == rows[-1]["accuracy"]
