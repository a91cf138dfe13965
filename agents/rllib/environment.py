"""Creates the environments that an experiment or an RLlib configuration names."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from ctm_rl.agents.experiments.acting import ENVPOOL, EnvConfig
from ctm_rl.agents.experiments.make_task import reporting_failures
from ctm_rl.agents.rllib import private
from ctm_rl.envs.wrappers.action_masks import show_action_masks
from ctm_rl.envs.wrappers.by_name import PREVIOUS_ACTION, PREVIOUS_REWARD

WRAPPED = "ctm_rl.envs:ctm_rl/Wrapped-v0"
"""Registered id of the environment that creates any other, with wrappers and a guard."""
_OWN_CLASS = "vector_entry_point"
_OWN_ID = "ctm_rl-rllib-env-v0"


def gym_arguments(env: EnvConfig) -> tuple[str, dict[str, Any]]:
    """Returns the id and the arguments for ``gymnasium.make`` or ``make_vec``."""
    limit = () if env.max_episode_steps is None else (f"time-limit={env.max_episode_steps}",)
    shown = ((PREVIOUS_ACTION, env.previous_action), (PREVIOUS_REWARD, env.previous_reward))
    previous = [name for name, is_shown in shown if is_shown and name not in env.wrappers]
    return WRAPPED, {
        "env_id": env.id,
        "arguments": dict(env.kwargs),
        "wrapper_names": [*limit, *env.wrappers, *previous],
        "step_time_limit": env.step_time_limit,
        "check_bounds": env.check_bounds,
        "tolerate_faults": env.tolerate_faults,
    }


def training_arguments(env: EnvConfig, *, has_own_class: bool = True) -> tuple[str, dict[str, Any]]:
    """As ``gym_arguments``, for training.

    Args:
        env: the experiment's.
        has_own_class: whether ``auto`` may take an environment's own vector class; otherwise it is ``sync``.
    """
    env_id, arguments = gym_arguments(env)
    clip = ["clip-rewards"] if "atari" in env.wrappers else []
    stagger = ["stagger"] if env.stagger_episodes else []
    own = _OWN_CLASS if has_own_class else "sync"
    return env_id, {
        **arguments,
        **({"use_envpool": True} if env.vectorization == ENVPOOL else {}),
        "wrapper_names": [*arguments["wrapper_names"], *clip, *stagger],
        "vectorization": {"auto": own, ENVPOOL: own}.get(env.vectorization, env.vectorization),
    }


def make_env(env: EnvConfig) -> gym.Env:
    """Creates one environment, as evaluation plays it: rewards are not clipped, episodes not staggered.

    Args:
        env: the experiment's.

    Returns:
        The environment, not reset yet.

    Raises:
        UserError: there is no such environment, or it cannot be created with these settings.
    """
    env_id, arguments = gym_arguments(env)
    with reporting_failures(env.id):
        return gym.make(env_id, **arguments)


def make_vector_env(env: EnvConfig, num_envs: int) -> VectorEnv:
    """Creates a vector of environments for training.

    Args:
        env: the experiment's. Of its ``vectorization``, ``auto`` takes the environment's own vector class if it has
            one with the same spaces, and otherwise steps them in turn, as ``sync``; ``async`` gives each a process, and
            ``envpool`` steps them in C++.
        num_envs: how many.

    Returns:
        The environments, not reset yet.

    Raises:
        UserError: they cannot be created with these settings.
    """
    env_id, arguments = training_arguments(env)
    with reporting_failures(env.id):
        return gym.make_vec(env_id, num_envs, **arguments)


def make_vector(
    env: str | Callable[[Any], gym.Env] | None, num_envs: int, mode: gym.VectorizeMode, arguments: dict[str, Any]
) -> VectorEnv:
    """Creates a vector of the environment that an RLlib configuration names.

    Args:
        env: Gymnasium's or Ray Tune's name of it, or a function that creates it from the arguments.
        num_envs: how many.
        mode: RLlib's ``gym_env_vectorize_mode``; ``vector_entry_point`` falls back to ``sync`` if there is none.
        arguments: of the environment.

    Returns:
        The environments, not reset yet; those with a method ``action_masks`` show its masks in their observations.

    Raises:
        ValueError: no environment is configured.
    """
    if not env:
        raise ValueError("there is no environment; set one with config.environment('CartPole-v1').")
    if isinstance(env, str):
        env = private.registered_env(env) or env
    if isinstance(env, str):
        spec = env
        if mode == gym.VectorizeMode.VECTOR_ENTRY_POINT:
            with contextlib.suppress(gym.error.Error):  # it has no vector class, or it fails below too
                return gym.make_vec(env, num_envs, mode, **arguments)
    else:
        # RLlib's rule: a function gets the whole context, with worker_index and other values.
        spec, arguments = EnvSpec(_OWN_ID, entry_point=functools.partial(cast(Any, env), arguments)), {}
    mode = gym.VectorizeMode.SYNC if mode == gym.VectorizeMode.VECTOR_ENTRY_POINT else mode
    try:
        return gym.make_vec(spec, num_envs, mode, wrappers=cast(Any, [show_action_masks]), **arguments)
    except gym.error.UnregisteredEnv as error:
        if not str(env).startswith("ALE/"):
            raise
        raise ValueError(f"{error} Games of Atari need pip install ale-py, and the name ale_py:{env}.") from error
