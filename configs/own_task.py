"""Experiments for the user's own data and tasks, with a small model that fits their inputs and answers."""

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath
from typing import Any, NamedTuple

from ctm_rl.agents.experiments.answering import AnsweringExperiment, HeldOutSettings, TaskConfig
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import AnswerConfig
from ctm_rl.configs.images import mnist
from ctm_rl.configs.parity import parity
from ctm_rl.configs.qa_mnist import qa_mnist
from ctm_rl.errors import UserError, expand

DATA = "ctm_rl.envs:ctm_rl/Data-v0"
SUPPORTED = "images of bytes [height, width, channels], vectors, sequences of -1 and 1, or digits with a question"
MAX_HELD_OUT = 2000
"""Held-out samples of a test during training, at most."""
NUM_PASSES = 60
"""Passes over the samples to learn from, as far as they are not fewer or more optimiser steps than the next two."""
LEAST_STEPS, MOST_STEPS = 1500, 10_000
_NUM_PROBED = {2: 1000, 4: 200}
"""Samples from which means and standard deviations are estimated, by their number of axes."""
_NUM_ENVS = 64
"""The same where each sample is an environment."""


class _Probe(NamedTuple):
    """What is found out about a single-step environment."""

    task: Any
    """The task, in our own environments; None in others."""
    inputs: Any
    """Some inputs, [n, ...], or by name."""
    num_samples: int | None
    """How many there are to learn from; None: without limit."""


def for_data(path: str, *, report: Callable[[str], None] = lambda line: None, **arguments: Any) -> AnsweringExperiment:
    """Returns the experiment of ``ctm-rl train --data PATH``: classes of a user's own data.

    Sizes, channels, classes, means and standard deviations are those of the data.

    Args:
        path: a folder, an npz or a parquet file, or ``module:function``; see ``envs.tasks.own_data.DataEnv``.
        report: gets one line on the data.
        **arguments: others of ``DataEnv``, such as ``size``.

    Returns:
        The experiment, named after the data.

    Raises:
        UserError: there is no such data set, or nothing can be learned from it.
    """
    name = path
    if os.path.exists(expand(path)):
        path = str(expand(path).absolute())
        name = PurePath(path).stem
    env = TaskConfig(id=DATA, kwargs={**arguments, "path": path}, held_out_kwargs={"split": "test"})
    probe = _probe(env)
    data, num_samples = probe.task.data, probe.task.num_samples
    env = replace(env, kwargs={**env.kwargs, "classes": data.classes, "shape": list(data.shape)})
    num_held_out = _count_held_out(env)
    experiment = _for_probe(_name_of(name), env, probe)
    report(_describe(data, experiment.model, num_samples, num_held_out))
    batch_size = experiment.learning.batch_size
    num_steps = min(MOST_STEPS, max(LEAST_STEPS, NUM_PASSES * num_samples // batch_size))
    return replace(
        experiment,
        budget=BudgetConfig(env_steps=batch_size * num_steps),
        held_out=HeldOutSettings(num_samples=min(MAX_HELD_OUT, num_held_out), num_iterations=4),
    )


def for_task(name: str, **arguments: Any) -> AnsweringExperiment:
    """Returns the experiment of ``ctm-rl train --task NAME``: the answers of a single-step task.

    Args:
        name: ``module:Class`` of a ``SingleStepTask`` or an environment; or a registered id, whose info holds the right
            answer under "target".
        **arguments: of the class or the environment.

    Returns:
        The experiment, named after the task.

    Raises:
        UserError: there is no such task, or its inputs are not supported.
    """
    env = TaskConfig(id=name, kwargs=arguments)
    return _for_probe(_name_of(name.rpartition(":")[2]), env, _probe(env))


def _name_of(text: str) -> str:
    """The name of an experiment, which may hold letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._").lower() or "own"


def _probe(env: TaskConfig) -> _Probe:
    """Makes an environment and some of its samples."""
    from ctm_rl.agents.experiments.make_task import count_samples, make_samples_env, reporting_failures, task_of

    with contextlib.closing(make_samples_env(env, 1)) as one:
        task, num_samples = task_of(one), count_samples(one)
        num_axes = 1 + len(one.single_observation_space.shape or ())
    num = _NUM_ENVS if task is None else _NUM_PROBED.get(num_axes, _NUM_ENVS)
    with contextlib.closing(make_samples_env(env, num)) as many, reporting_failures(env.id):
        inputs, _ = many.reset(seed=0)
    return _Probe(task, inputs, num_samples)


def _count_held_out(env: TaskConfig) -> int:
    """How many samples of a data set are held out."""
    from ctm_rl.agents.experiments.make_task import count_samples, make_samples_env

    with contextlib.closing(make_samples_env(env, 1, is_held_out=True)) as one:
        return count_samples(one) or 0


def _for_probe(name: str, env: TaskConfig, probe: _Probe) -> AnsweringExperiment:
    """The experiment whose model reads such inputs."""
    inputs: Any = probe.inputs
    shape, dtype = getattr(inputs, "shape", (0,)), str(getattr(inputs, "dtype", type(inputs).__name__))
    if {"digits", "num_digits", "question"} <= set(getattr(inputs, "keys", set)()):
        base = qa_mnist()
    elif len(shape) == 4 and dtype == "uint8":
        base = mnist()
        base = replace(base, model=_image_model(base.model, inputs))
    elif len(shape) == 2 and shape[1] > 1 and abs(inputs).min() == abs(inputs).max() == 1:
        base = parity()
    elif len(shape) == 2:
        base = mnist()
        base = replace(base, model=_vector_model(base.model, inputs))
    else:
        raise UserError(f"inputs of {env.id} must be {SUPPORTED}; they are {list(shape[1:])} of type {dtype}.")
    return replace(base, name=name, env=env)


def _image_model(base: AnswerConfig, images: Any) -> AnswerConfig:
    """A small model for images of bytes [n, H, W, C], with their means and standard deviations."""
    pixels = images.reshape(-1, images.shape[3]) / 255.0
    mean, std = pixels.mean(0), pixels.std(0)
    return replace(
        base,
        input_dim=images.shape[3],
        feature_dim=32 if images.shape[3] == 1 else 64,
        pixel_mean=tuple(round(float(value), 4) for value in mean),
        pixel_std=tuple(max(1e-3, round(float(value), 4)) for value in std),
    )


def _vector_model(base: AnswerConfig, vectors: Any) -> AnswerConfig:
    """A small model for vectors [n, D], with their means and standard deviations."""
    vectors = vectors.astype("float64")
    mean, std = vectors.mean(0), vectors.std(0)
    return replace(
        base,
        encoder="none",
        positions="none",
        num_heads=0,
        num_action_sync_neurons=0,
        input_dim=vectors.shape[1],
        pixel_mean=(0.5,),
        pixel_std=(0.5,),
        vector_mean=tuple(float(f"{value:.6g}") for value in mean),
        vector_std=tuple(float(f"{value:.6g}") if value > 0 else 1.0 for value in std),
    )


def _describe(data: Any, model: AnswerConfig, num_samples: int, num_held_out: int) -> str:
    """One line on a data set."""
    is_image, total = len(data.shape) == 3, num_samples + num_held_out
    kind = "images" if is_image else "vectors" if model.encoder == "none" else "sequences of -1 and 1"
    size = " x ".join(map(str, data.shape)) if is_image else str(data.shape[0])
    if data.sizes:
        size += f" (made of {data.sizes})"
    split = " (split off, the same in every run)" if data.is_split_off else ""
    line = f"data: {total:,} {kind} of {size}, {len(data.classes)} classes, {num_held_out:,} held out{split}"
    if not is_image:
        return line
    mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (model.pixel_mean, model.pixel_std))
    return f"{line}; pixel mean {mean}, standard deviation {std}"
