"""The process around a run: its working directory, absolute paths, CPU threads, and RLlib's results directory."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.run_directory.trust import fixed_import_path
from ctm_rl.errors import expand
from ctm_rl.zoo.entries import is_zoo


def with_absolute_paths(experiment: AnyExperiment) -> AnyExperiment:
    """Makes the paths of data, storage and ``init_from`` absolute, since a run changes its working directory.

    Of the environment's arguments, ``path`` and ``folder`` are changed if they name something that exists.
    """

    def absolute(kwargs: dict[str, Any]) -> dict[str, Any]:
        return {name: _absolute(value) if name in ("path", "folder") else value for name, value in kwargs.items()}

    experiment = with_absolute_storage(experiment)
    if experiment.init_from is not None and not is_zoo(experiment.init_from):
        experiment = dataclasses.replace(experiment, init_from=str(expand(experiment.init_from).absolute()))
    if not isinstance(experiment, AnsweringExperiment):
        return experiment
    env = experiment.env
    env = dataclasses.replace(env, kwargs=absolute(env.kwargs), held_out_kwargs=absolute(env.held_out_kwargs))
    return dataclasses.replace(experiment, env=env)


def with_absolute_storage(experiment: AnyExperiment) -> AnyExperiment:
    """Makes the storage's path absolute, unless it is a URL."""
    if experiment.storage is None:
        return experiment
    from ctm_rl.agents.run_directory.storage import is_url  # loads torch

    if is_url(experiment.storage):
        return experiment
    return dataclasses.replace(experiment, storage=str(expand(experiment.storage).absolute()))


def _absolute(value: Any) -> Any:
    """The absolute path, if the value is a path that exists; otherwise the value."""
    if not isinstance(value, str) or not value:
        return value
    place = expand(value).absolute()
    return str(place) if place.exists() else value


@contextlib.contextmanager
def working_inside(run_dir: Path) -> Iterator[None]:
    """Changes into the run's directory while Ray starts; environments are played where the run was started.

    Ray puts the driver's working directory on its workers' path, before everything else: a checkout there would hide
    the installed package, and a file such as random.py Python's own module.
    """
    before = Path.cwd()
    os.chdir(run_dir)
    try:
        with fixed_import_path(before):
            yield
    finally:
        with contextlib.suppress(OSError):  # it may have been removed meanwhile
            os.chdir(before)


@contextlib.contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Sets the number of PyTorch's CPU threads inside the body."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
