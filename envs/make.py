"""Makes any environment by its id, with wrappers and a guard: the environments of every run."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

from ctm_rl.describe_space import describe_space
from ctm_rl.envs.guard.env_guard import EnvGuard
from ctm_rl.envs.guard.vector_guard import GuardedAsyncVectorEnv, GuardedSyncVectorEnv, VectorGuard
from ctm_rl.envs.own_env import find_own, import_for, make_own, make_registered
from ctm_rl.envs.wrappers.action_masks import show_action_masks
from ctm_rl.envs.wrappers.by_name import ATARI, TIME_LIMIT, Named, parse, wrap, wrap_vector, wraps_vectors
from ctm_rl.envs.wrappers.time_limit import find_time_limit
from ctm_rl.errors import UserError
from ctm_rl.notes import note

Vectorization = Literal["vector_entry_point", "sync", "async"]


def make_wrapped(
    env_id: str,
    wrapper_names: Sequence[str] = (),
    arguments: dict[str, Any] | None = None,
    *,
    step_time_limit: float | None = None,
    tolerate_faults: bool = False,
    check_bounds: bool = False,
    use_envpool: bool = False,
    vectorization: Vectorization = "sync",
) -> EnvGuard:
    """Makes an environment by its id; the entry point of ``ctm_rl/Wrapped-v0``.

    Args:
        env_id: Gymnasium's name of the environment; ``module:Name-v0`` imports the module first, and ``module:Name``
            is a class or function that needs no registration, see ``own_env``.
        wrapper_names: its wrappers, the first innermost, see ``wrap``. The name ``wrappers`` is taken: it is an
            argument of ``gymnasium.make_vec``.
        arguments: passed to ``gymnasium.make``, or to the class or function.
        step_time_limit: seconds that a step or a reset may take; ``None``: no limit.
        tolerate_faults: go on after faults, see ``EnvGuard``.
        check_bounds: an observation outside the bounds of its space is a fault too; otherwise it is noted.
        use_envpool: has no effect on a single environment.
        vectorization: has no effect on a single environment.

    Returns:
        The environment, wrapped and guarded.

    Raises:
        UserError: there is no such wrapper, or it does not fit.
        ValueError: the environment does not take these arguments.
    """
    make = functools.partial(_make, env_id, tuple(wrapper_names), dict(arguments or {}))
    return EnvGuard(
        make,
        env_id,
        time_limit=step_time_limit,
        is_tolerant=tolerate_faults,
        has_bounds=check_bounds,
        find_time_limit=find_time_limit,
    )


def make_wrapped_vector(
    num_envs: int,
    env_id: str,
    wrapper_names: Sequence[str] = (),
    arguments: dict[str, Any] | None = None,
    *,
    vectorization: Vectorization = "vector_entry_point",
    step_time_limit: float | None = None,
    tolerate_faults: bool = False,
    check_bounds: bool = False,
    use_envpool: bool = False,
) -> VectorEnv:
    """Makes many environments; the vector entry point of ``ctm_rl/Wrapped-v0``.

    Args:
        num_envs: how many.
        env_id: as for ``make_wrapped``.
        wrapper_names: as for ``make_wrapped``.
        arguments: as for ``make_wrapped``.
        vectorization: ``vector_entry_point``: the environment's own vector class, where there is one that has the
            spaces and takes the arguments of ``gymnasium.make``, supports the wrappers (``time-limit`` first,
            ``hide-velocities``, ``previous-action``, ``previous-reward``) and faults are not tolerated, because it
            cannot recreate a single environment; otherwise as ``sync``: one after the other; ``async``: one process
            each.
        step_time_limit: as for ``make_wrapped``; with a vector class, for a step of all environments.
        tolerate_faults: as for ``make_wrapped``.
        check_bounds: as for ``make_wrapped``.
        use_envpool: run them in envpool, see ``EnvpoolVectorEnv``; faults are not tolerated then.

    Returns:
        The environments, wrapped and guarded.

    Raises:
        UserError: as for ``make_wrapped``, or envpool is requested and does not support this.
        ValueError: as for ``make_wrapped``.
    """
    names, arguments = tuple(wrapper_names), dict(arguments or {})
    wrappers, env = parse(names), None
    if use_envpool:
        if tolerate_faults:
            raise UserError("env.vectorization envpool cannot recreate one environment; tolerate faults with auto.")
        env = _make_pool(num_envs, env_id, wrappers, names, arguments)
    elif vectorization == "vector_entry_point" and not tolerate_faults:
        env = _make_own_vector(num_envs, env_id, wrappers, arguments)
    if env is not None:
        return VectorGuard(wrap_vector(env, wrappers), env_id, time_limit=step_time_limit, has_bounds=check_bounds)
    make = functools.partial(
        make_wrapped,
        env_id,
        names,
        arguments,
        step_time_limit=step_time_limit,
        tolerate_faults=tolerate_faults,
        check_bounds=check_bounds,
    )
    if vectorization != "async":
        return GuardedSyncVectorEnv([make] * num_envs, env_id)
    return GuardedAsyncVectorEnv([make] * num_envs, env_id, time_limit=step_time_limit)


def _make(env_id: str, wrappers: Sequence[str], arguments: dict[str, Any]) -> gym.Env:
    """Makes one environment with its wrappers."""
    named = parse(wrappers)  # an unknown wrapper is reported before anything is made
    import_for(env_id)
    if any(wrapper.name == ATARI for wrapper in named):
        arguments = {"frameskip": 1, **arguments}  # the wrapper skips frames itself
    own = find_own(env_id)
    if own is not None:
        return show_action_masks(wrap(make_own(env_id, own, arguments), wrappers))
    # The guard checks every step; Gymnasium's own checker would add a wrapper that checks the first step only.
    return show_action_masks(wrap(make_registered(gym.make, env_id, disable_env_checker=True, **arguments), wrappers))


def _make_pool(
    num_envs: int, env_id: str, wrappers: Sequence[Named], names: Sequence[str], arguments: dict[str, Any]
) -> VectorEnv:
    """Makes environments in envpool, without the wrappers that are put around a vector."""
    from ctm_rl.envs.wrappers.envpool import EnvpoolVectorEnv

    inside = [pair for pair in zip(wrappers, names, strict=True) if not wraps_vectors(pair[0])]
    model = make_wrapped(env_id, [name for _, name in inside], arguments)
    try:
        return EnvpoolVectorEnv(num_envs, env_id, [wrapper for wrapper, _ in inside], arguments, model)
    finally:
        model.close()


def _make_own_vector(
    num_envs: int, env_id: str, wrappers: Sequence[Named], arguments: dict[str, Any]
) -> VectorEnv | None:
    """Makes an environment's own vector class, without the wrappers around it; ``None`` where it does not suffice."""
    import_for(env_id)
    spec = gym.registry.get(env_id.partition(":")[2] or env_id)
    if spec is None or spec.vector_entry_point is None:
        return None
    others = [wrapper for wrapper in wrappers if not wraps_vectors(wrapper)]
    limited = arguments
    if others and others == list(wrappers[:1]) and others[0].name == TIME_LIMIT and spec.max_episode_steps is not None:
        limited = {**arguments, "max_episode_steps": others[0].value}
    elif others:
        return None
    one = _make(env_id, (), arguments)
    spaces = one.observation_space, one.action_space
    one.close()
    try:
        env = make_registered(gym.make_vec, env_id, num_envs, gym.VectorizeMode.VECTOR_ENTRY_POINT, **limited)
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        _note_own_vector(env_id, f"does not take the arguments of gymnasium.make ({reason})")
        return None
    own = env.single_observation_space, env.single_action_space
    mode = env.metadata.get("autoreset_mode")
    is_fitting = mode == AutoresetMode.NEXT_STEP or len(others) == len(wrappers)
    if own == spaces and is_fitting:
        return env
    env.close()
    if own == spaces:
        shown = mode.value if isinstance(mode, AutoresetMode) else "unknown"
        _note_own_vector(env_id, f"has autoreset mode {shown}, and its wrappers need NextStep")
        return None
    which = 0 if own[0] != spaces[0] else 1
    found, wanted = describe_space(own[which]), describe_space(spaces[which])
    _note_own_vector(env_id, f"has another space than gymnasium.make ({found} instead of {wanted})")
    return None


def _note_own_vector(env_id: str, why: str) -> None:
    """Notes that environments are stepped in turn although they have a vector class."""
    note(f"{env_id} vector class", f"the vector class of {env_id} {why}; its environments are stepped in turn.")
