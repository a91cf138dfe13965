"""Makes the single-step environments that an experiment names; loads neither torch nor ray."""

import contextlib
import importlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.errors import UserError
from ctm_rl.named_code import is_code_name, load_code

NAMED_TASK = "ctm_rl.envs:ctm_rl/Task-v0"
"""Registered id of the environment that makes a task of any class."""


def make_samples_env(config: TaskConfig, num_rows: int, *, is_held_out: bool = False) -> VectorEnv:
    """Creates the vector environment of a task.

    Args:
        config: the environment and its arguments; its id may be registered, or ``module:Class``.
        num_rows: number of environments.
        is_held_out: whether to use the arguments for held-out samples.

    Returns:
        The environments, not reset yet.

    Raises:
        UserError: they cannot be made.
    """
    kwargs = {**config.kwargs, **(config.held_out_kwargs if is_held_out else {})}
    with reporting_failures(config.id):
        if _is_class(config.id):
            return gym.make_vec(NAMED_TASK, num_rows, None, task_name=config.id, arguments=kwargs)
        return gym.make_vec(config.id, num_rows, vectorization_mode=None, **kwargs)


def _is_class(env_id: str) -> bool:
    """Whether an id names a class or function, and not a registered environment; imports its module.

    Raises:
        UserError: it names both.
    """
    if not is_code_name(env_id):
        return False
    module, _, name = env_id.partition(":")
    try:
        has_class = hasattr(importlib.import_module(module), name)
    except Exception:  # whatever a module may raise; the same in one line
        load_code(env_id, "--task")
        raise
    versions = [known for known, spec in gym.registry.items() if (spec.namespace, spec.name) == (None, name)]
    if versions and has_class:
        raise UserError(
            f"it is a class and a registered environment: name that as {module}:{versions[-1]}, or give the class "
            "another name."
        )
    return not versions


def count_samples(env: VectorEnv) -> int | None:
    """Number of different samples; ``None`` if it is unlimited."""
    return getattr(task_of(env), "num_samples", None)


def task_of(env: VectorEnv) -> Any:
    """The object that makes the samples, in our own environments; ``None`` in others."""
    return getattr(env.unwrapped, "task", None)


@contextlib.contextmanager
def reporting_failures(env_id: str) -> Iterator[None]:
    """Reports in one line that an environment cannot be created.

    Args:
        env_id: its name in the experiment.

    Raises:
        UserError: the body has raised an error.
    """
    try:
        yield
    except UserError as error:
        if str(error).startswith("--task"):
            raise  # it names the option itself
        raise UserError(f"env.id {env_id!r} cannot be made: {error}") from error
    except (gym.error.Error, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"env.id {env_id!r} cannot be made: {reason}{'' if reason.endswith(('.', '?')) else '.'} "
            "Any registered id is allowed, and module:Name: an id that the module registers, or a class or function."
        ) from error
    except (Exception, SystemExit) as error:  # a user's environment may raise anything
        cause = error.__cause__ or error
        frame = traceback.extract_tb(cause.__traceback__)[-1]
        folder = f", in the folder {Path.cwd()}" if isinstance(cause, OSError) else ""
        place = f"{type(cause).__name__} in {Path(frame.filename).name}, line {frame.lineno}{folder}"
        reason = " ".join(str(error).split())[:300] or "it gives no reason"
        raise UserError(f"env.id {env_id!r} cannot be made: {reason} ({place}).") from error
