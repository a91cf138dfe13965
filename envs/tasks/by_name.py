"""Makes single-step environments of a user's own class, by its name."""

import functools
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv, VectorEnv

from ctm_rl.envs.tasks.single_step import SingleStepEnv, SingleStepTask, SingleStepVectorEnv
from ctm_rl.errors import UserError
from ctm_rl.named_code import load_code

OPTION = "--task"


def make_named(task_name: str, arguments: Mapping[str, Any]) -> gym.Env[Any, Any]:
    """Makes one single-step environment; the entry point of ``ctm_rl/Task-v0``. See ``make_named_vector``."""
    made = _make(task_name, arguments)
    return SingleStepEnv(made) if isinstance(made, SingleStepTask) else made


def make_named_vector(num_envs: int, task_name: str, arguments: Mapping[str, Any]) -> VectorEnv[Any, Any, Any]:
    """Makes many single-step environments; the vector entry point of ``ctm_rl/Task-v0``.

    Args:
        num_envs: how many.
        task_name: ``module:Class`` of a ``SingleStepTask`` or of an environment, or a function that makes one.
        arguments: of the class or function.

    Returns:
        The environments, not reset yet.

    Raises:
        UserError: there is no such class, or it is none of these.
    """
    first = _make(task_name, arguments)
    if isinstance(first, SingleStepTask):
        return SingleStepVectorEnv(first, num_envs)
    others = [functools.partial(_make, task_name, arguments)] * (num_envs - 1)
    return SyncVectorEnv([lambda: first, *others])


def _make(task_name: str, arguments: Mapping[str, Any]) -> Any:
    """A task or an environment of a class.

    Raises:
        UserError: it is neither.
    """
    make = load_code(task_name, OPTION)
    made = make(**arguments)
    if not isinstance(made, (SingleStepTask, gym.Env)):
        raise UserError(
            f"{task_name} must be a SingleStepTask (of ctm_rl.envs.tasks.single_step) or an environment of Gymnasium, "
            f"or make one; it makes a {type(made).__name__}."
        )
    return made
