"""Runs of tiny models that answer, written without training."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ctm_rl.agents.evaluation.answers import EvaluationTask
from ctm_rl.agents.evaluation.run_environment import held_out_task
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.make_task import make_samples_env
from ctm_rl.agents.run_directory.directory import METRICS_FILE, config_of, write_config
from ctm_rl.agents.supervised.module import fit_answer_config
from ctm_rl.checkpoints import store
from ctm_rl.configs import load
from ctm_rl.inference.load_model import MODEL_ENTRY, describe
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, build_model

SMALL: dict[str, Any] = {
    "num_neurons": 17,
    "history_length": 3,
    "num_ticks": 5,
    "nlm_hidden_dim": 2,
    "num_output_sync_neurons": 4,
}
ATTENDING: dict[str, Any] = {"num_action_sync_neurons": 3, "feature_dim": 8, "num_heads": 2}
ENVS: dict[str, dict[str, Any]] = {
    "parity": {"length": 4},
    "sorting": {"length": 3},
    "mazes": {"size": 7, "route_length": 6},
    "qa-mnist": {"num_digits": [1, 2], "num_operations": [1, 2], "size": 16},
    "mnist": {},
}
"""Arguments of the environments of experiments."""


def small_experiment(name: str, **model: Any) -> AnsweringExperiment:
    """An experiment with a tiny model.

    Args:
        name: of the experiment.
        model: fields of the model that differ.
    """
    experiment = load(name)
    assert isinstance(experiment, AnsweringExperiment)
    attending = {} if experiment.model.num_heads == 0 else ATTENDING
    ticks = {"ticks_per_input": 2, "num_answer_ticks": 3} if name == "qa-mnist" else {}
    config = dataclasses.replace(experiment.model, **{**SMALL, **attending, **ticks, **model})
    env = dataclasses.replace(experiment.env, kwargs=ENVS.get(name, experiment.env.kwargs))
    if name == "qa-mnist":
        env = dataclasses.replace(env, held_out_kwargs={"split": "test"})
    return dataclasses.replace(experiment, env=env, model=config)


def untrained(experiment: AnsweringExperiment, seed: int = 0) -> ContinuousThoughtMachine | FeedForwardModel:
    """The model of an experiment with random weights, all of them away from their start values."""
    env = make_samples_env(experiment.env, 1)
    spaces = env.single_observation_space, env.single_action_space
    env.close()
    torch.manual_seed(seed)
    model = build_model(fit_answer_config(experiment.model, *spaces, experiment.learning.loss)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("decay_rate"):
                parameter.uniform_(0.0, 1.0)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def task_of(experiment: AnsweringExperiment) -> EvaluationTask:
    """The task that ``evaluate`` uses."""
    return EvaluationTask(held_out_task(experiment), experiment.learning.loss, experiment.name)


def write_run(
    path: Path,
    experiment: AnsweringExperiment,
    rows: Sequence[dict[str, Any]] = (),
    *,
    iterations: Sequence[int] = (4,),
) -> Path:
    """Writes the directory of a run with an untrained model.

    Args:
        path: the directory, new.
        experiment: of the run.
        rows: its metrics.
        iterations: of its checkpoints, each with other weights.
    """
    path.mkdir(parents=True)
    write_config(path, config_of(experiment))
    for iteration in iterations:
        store.save(path, iteration, {MODEL_ENTRY: describe(untrained(experiment, iteration))}, None)
    if rows:
        (path / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
