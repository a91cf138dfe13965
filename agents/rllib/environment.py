"""From the environment an experiment or an RLlib configuration names to those Gymnasium makes."""

import functools
from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from ctm_rl.agents.experiments.acting import ENVPOOL, EnvConfig
from ctm_rl.agents.rllib import private
from ctm_rl.errors import UserError

WRAPPED = "ctm_rl.envs:ctm_rl/Wrapped-v0"
"""Registered name of the environment that makes any other, with wrappers and a guard."""
VECTORIZATIONS = {
    "auto": gym.VectorizeMode.VECTOR_ENTRY_POINT,
    "sync": gym.VectorizeMode.SYNC,
    "async": gym.VectorizeMode.ASYNC,
    ENVPOOL: gym.VectorizeMode.VECTOR_ENTRY_POINT,
}
"""RLlib's ``gym_env_vectorize_mode`` for each of ``EnvConfig.vectorization``."""
_OWN_ID = "ctm_rl-rllib-env-v0"


def gym_arguments(env: EnvConfig) -> tuple[str, dict[str, Any]]:
    """Says how Gymnasium makes an environment: its id, and what to hand to ``make`` or ``make_vec`` beside it."""
    limit = () if env.max_episode_steps is None else (f"time-limit={env.max_episode_steps}",)
    return WRAPPED, {
        "env_id": env.id,
        "arguments": dict(env.kwargs),
        "wrapper_names": [*limit, *env.wrappers],
        "step_time_limit": env.step_time_limit,
        "check_bounds": env.check_bounds,
    }


def training_arguments(env: EnvConfig) -> tuple[str, dict[str, Any]]:
    """As ``gym_arguments``, for environments that are learned from."""
    env_id, arguments = gym_arguments(env)
    stagger = ["stagger"] if env.stagger_episodes else []
    names = [*arguments["wrapper_names"], *stagger]
    pooled = {"use_envpool": True} if env.vectorization == ENVPOOL else {}
    return env_id, {**arguments, **pooled, "wrapper_names": names, "tolerate_faults": env.tolerate_faults}


def make_env(env: EnvConfig) -> gym.Env:
    """Makes one environment.

    Args:
        env: what the experiment names.

    Returns:
        The environment, not reset yet.

    Raises:
        UserError: Gymnasium knows no such environment, or it cannot be made as asked.
    """
    env_id, arguments = gym_arguments(env)
    try:
        return gym.make(env_id, **arguments)
    except Exception as error:  # what an environment of the user's own raises can be anything
        raise _cannot_be_made(env, error) from error


def make_vector_env(env: EnvConfig, num_envs: int) -> VectorEnv:
    """Makes many environments to learn from at once.

    Args:
        env: what the experiment names, and how they are put together: ``auto`` takes the environment's own vector class
            where it has one, and otherwise, as ``sync``, steps one after the other; ``async`` gives each a process,
            and ``envpool`` plays them in C++.
        num_envs: how many.

    Returns:
        The environments, not reset yet.

    Raises:
        UserError: they cannot be made as asked.
    """
    env_id, arguments = training_arguments(env)
    try:
        return make_vector(env_id, num_envs, VECTORIZATIONS[env.vectorization], arguments)
    except Exception as error:  # what an environment of the user's own raises can be anything
        raise _cannot_be_made(env, error) from error


def make_vector(
    env: str | Callable[[Any], gym.Env] | None, num_envs: int, mode: gym.VectorizeMode, arguments: dict[str, Any]
) -> VectorEnv:
    """Makes what an RLlib configuration names as its environment, many times.

    Args:
        env: Gymnasium's or Ray Tune's name of it, or what is called with the arguments to make it.
        num_envs: how many.
        mode: RLlib's ``gym_env_vectorize_mode``; ``vector_entry_point`` falls back to ``sync`` where there is none.
        arguments: handed to it.

    Returns:
        The environments, not reset yet.

    Raises:
        ValueError: no environment is named.
    """
    if not env:
        raise ValueError("there is no environment: name one with config.environment('CartPole-v1').")
    if isinstance(env, str):
        env = private.registered_env(env) or env
    # None lets Gymnasium take the vector class where there is one, and otherwise step one after the other.
    vectorization = None if mode == gym.VectorizeMode.VECTOR_ENTRY_POINT else mode
    if isinstance(env, str) and env == WRAPPED:
        # It puts single environments together by itself, so that a fault in another process arrives as one line.
        return gym.make_vec(env, num_envs, **arguments, vectorization=mode.value)
    if isinstance(env, str):
        return gym.make_vec(env, num_envs, vectorization, **arguments)
    # RLlib's rule: what is no name gets the whole context, with worker_index and what else it knows.
    spec = EnvSpec(_OWN_ID, entry_point=functools.partial(cast(Any, env), arguments))
    return gym.make_vec(spec, num_envs, vectorization)


def _cannot_be_made(env: EnvConfig, error: Exception) -> UserError:
    """One line for an environment that cannot be made."""
    if isinstance(error, UserError):
        return UserError(f"env.id {env.id!r} cannot be made: {error}")
    reason = " ".join(str(error).split())
    return UserError(
        f"env.id {env.id!r} cannot be made: {reason} "
        "Any registered id is allowed; module:Name-v0 imports the module first."
    )
