"""Any environment by its id, with wrappers by name and a guard: what every run acts on."""

import functools
import importlib
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv, VectorEnv

from ctm_rl.envs.guard.single import EnvGuard
from ctm_rl.envs.guard.vector import GuardedAsyncVectorEnv, VectorGuard, is_shareable
from ctm_rl.envs.wrappers.by_name import HIDE_VELOCITIES, TIME_LIMIT, parse, wrap
from ctm_rl.envs.wrappers.hide_velocity import HideVelocityVector
from ctm_rl.errors import UserError

_MODULES = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""What registers the environments whose names begin like this."""

Vectorization = Literal["vector_entry_point", "sync", "async"]


def make_wrapped(
    env_id: str,
    wrapper_names: Sequence[str] = (),
    arguments: dict[str, Any] | None = None,
    *,
    step_time_limit: float | None = None,
    tolerate_faults: bool = False,
    check_bounds: bool = True,
    use_envpool: bool = False,
) -> EnvGuard:
    """Makes an environment by its id; the entry point of ``ctm_rl/Wrapped-v0``.

    Args:
        env_id: Gymnasium's name of the environment; ``module:Name-v0`` imports the module first.
        wrapper_names: what is put around it, the first innermost, see ``wrap``; ``gymnasium.make_vec`` has an argument
            ``wrappers`` of its own.
        arguments: handed to ``gymnasium.make``.
        step_time_limit: seconds that a step or a reset may take; ``None``: any.
        tolerate_faults: go on after faults, see ``EnvGuard``.
        check_bounds: an observation outside the bounds of its space is a fault too.
        use_envpool: has no effect on a single one.

    Returns:
        The environment, wrapped and guarded.

    Raises:
        UserError: there is no such wrapper, or it does not fit.
        ValueError: the environment does not take these arguments.
    """
    make = functools.partial(_make, env_id, tuple(wrapper_names), dict(arguments or {}))
    return EnvGuard(make, env_id, time_limit=step_time_limit, is_tolerant=tolerate_faults, has_bounds=check_bounds)


def make_wrapped_vector(
    num_envs: int,
    env_id: str,
    wrapper_names: Sequence[str] = (),
    arguments: dict[str, Any] | None = None,
    *,
    vectorization: Vectorization = "vector_entry_point",
    step_time_limit: float | None = None,
    tolerate_faults: bool = False,
    check_bounds: bool = True,
    use_envpool: bool = False,
) -> VectorEnv:
    """Makes many environments; the vector entry point of ``ctm_rl/Wrapped-v0``.

    Args:
        num_envs: how many.
        env_id: as for one.
        wrapper_names: as for one.
        arguments: as for one.
        vectorization: ``vector_entry_point``: the environment's own vector class, where it has one that knows the
            wrappers (``time-limit`` first, ``hide-velocities``) and faults are not tolerated, for only single
            environments can be made anew; otherwise as ``sync``: one after the other; ``async``: a process for each.
        step_time_limit: as for one; for a vector class, of a step of all.
        tolerate_faults: as for one.
        check_bounds: as for one.
        use_envpool: play them in envpool, see ``PoolVector``; faults are not tolerated then.

    Returns:
        The environments, wrapped and guarded.

    Raises:
        UserError: envpool is asked for and cannot do this.
    """
    if use_envpool:
        if tolerate_faults:
            raise UserError("env.vectorization envpool makes no single environment anew; tolerate faults with auto.")
        pool = _make_pool(num_envs, env_id, wrapper_names, arguments or {})
        return VectorGuard(pool, env_id, time_limit=step_time_limit, has_bounds=check_bounds)
    if vectorization == "vector_entry_point" and not tolerate_faults:
        own = _make_own_vector(num_envs, env_id, wrapper_names, arguments or {})
        if own is not None:
            return VectorGuard(own, env_id, time_limit=step_time_limit, has_bounds=check_bounds)
    make = functools.partial(
        make_wrapped,
        env_id,
        tuple(wrapper_names),
        dict(arguments or {}),
        step_time_limit=step_time_limit,
        tolerate_faults=tolerate_faults,
        check_bounds=check_bounds,
    )
    if vectorization != "async":
        return SyncVectorEnv([make] * num_envs)
    one = make()
    is_shared = is_shareable(one.observation_space)
    one.close()
    return GuardedAsyncVectorEnv([make] * num_envs, env_id, time_limit=step_time_limit, shared_memory=is_shared)


def _make(env_id: str, wrappers: Sequence[str], arguments: dict[str, Any]) -> gym.Env:
    """Makes one environment with its wrappers."""
    parse(wrappers)
    _import_for(env_id)
    try:
        # The guard looks at every step; Gymnasium's own checker would look at the first and then stand in the way.
        env = gym.make(env_id, disable_env_checker=True, **arguments)
    except TypeError as error:
        # The outer gymnasium.make would add its own words to a TypeError.
        raise ValueError(str(error)) from error
    return wrap(env, wrappers)


def _import_for(env_id: str) -> None:
    """Imports what registers an environment: the module before the colon, or the one that is known to."""
    module, _, name = env_id.rpartition(":")
    known = (_MODULES[prefix] for prefix in _MODULES if name.startswith(prefix))
    module = module or next(known, "")
    if module:
        importlib.import_module(module)


def _make_pool(num_envs: int, env_id: str, wrappers: Sequence[str], arguments: dict[str, Any]) -> VectorEnv:
    """Makes environments in envpool."""
    from ctm_rl.envs.wrappers.envpool import PoolVector

    named = parse(wrappers)
    hidden = [item for item in named if item.name == HIDE_VELOCITIES]
    model = make_wrapped(env_id, wrappers, arguments)
    try:
        env = PoolVector(num_envs, env_id, [item for item in named if item not in hidden], arguments, model)
    finally:
        model.close()
    for item in hidden:
        env = HideVelocityVector(env, item.value)
    return env


def _make_own_vector(
    num_envs: int, env_id: str, wrappers: Sequence[str], arguments: dict[str, Any]
) -> VectorEnv | None:
    """Makes an environment's own vector class, if it has one and that can do what is asked."""
    named = parse(wrappers)
    _import_for(env_id)
    spec = gym.registry.get(env_id.rpartition(":")[2])
    if spec is None or spec.vector_entry_point is None:
        return None
    limit = {}
    if named and named[0].name == TIME_LIMIT and spec.max_episode_steps is not None:
        limit = {"max_episode_steps": named.pop(0).value}
    if any(item.name != HIDE_VELOCITIES for item in named):
        return None
    try:
        env = gym.make_vec(env_id, num_envs, gym.VectorizeMode.VECTOR_ENTRY_POINT, **{**arguments, **limit})
    except TypeError as error:
        raise ValueError(str(error)) from error
    for item in named:
        env = HideVelocityVector(env, item.value)
    return env
