"""Environments that envpool runs in C++, many at once, in place of Gymnasium's own."""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ctm_rl.describe_space import describe_space
from ctm_rl.envs.wrappers.by_name import PREVIOUS_ACTION, PREVIOUS_REWARD, TIME_LIMIT, Named
from ctm_rl.errors import UserError

_GRID_IMAGE = "grid-image"
_STAGGER = "stagger"
_MAX_LIMIT = 2**20
"""A pool whose limit is larger has none."""


class EnvpoolVectorEnv(VectorEnv):
    """A pool of environments as a Gymnasium vector environment with autoreset mode NextStep.

    envpool seeds a pool when it is made, so a reset with a seed makes a new one. It uses one thread, because an
    environment runner is one process on one core.

    Args:
        num_envs: how many, N.
        env_id: envpool's name of the environment, which is Gymnasium's.
        wrappers: ``time-limit=N``, ``grid-image`` (required for MiniGrid, whose missions envpool encodes as bytes),
            and ``stagger`` last.
        arguments: passed to ``envpool.make_gymnasium``.
        model: the same environment from Gymnasium, with these wrappers: its spaces are those of the pool.

    Raises:
        UserError: envpool is not installed, does not know the environment or its arguments, has other spaces, or does
            not support a wrapper.
    """

    _pool: Any = None

    def __init__(
        self, num_envs: int, env_id: str, wrappers: Sequence[Named], arguments: dict[str, Any], model: gym.Env
    ) -> None:
        names = [item.name for item in wrappers]
        for name in names:
            if name not in (TIME_LIMIT, _GRID_IMAGE, _STAGGER):
                raise UserError(
                    f"env.vectorization envpool supports no wrapper {name}, but {TIME_LIMIT}, hide-velocities, "
                    f"{PREVIOUS_ACTION}, {PREVIOUS_REWARD} and {_GRID_IMAGE}; auto supports all."
                )
        limits = [("max_episode_steps", item.value) for item in wrappers if item.name == TIME_LIMIT]
        self._pool_arguments = {**arguments, **dict(limits), "num_envs": num_envs, "num_threads": 1}
        self._env_id = env_id
        self._key = "image" if _GRID_IMAGE in names else None
        self._is_staggered = _STAGGER in names
        self._pool = self._make([0] * num_envs)
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.spec = gym.registry.get(env_id)
        self.single_observation_space = model.observation_space
        self.single_action_space = model.action_space
        self.observation_space = batch_space(model.observation_space, num_envs)
        self.action_space = batch_space(model.action_space, num_envs)
        self._check_spaces()
        self._limit = int(self._pool.config["max_episode_steps"])
        if self._is_staggered and self._limit > _MAX_LIMIT:
            raise UserError(f"wrapper stagger needs episodes with a time limit, and those of {env_id} have none.")

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in every environment.

        Args:
            seed: one for all together, or one for each; ``None``: keep the current generators.
            options: have no effect.

        Returns:
            Observations [N, ...], and an empty dictionary.
        """
        if seed is not None:
            one = seed if isinstance(seed, int | np.integer) else [0 if item is None else item for item in seed]
            sequence = np.random.SeedSequence(one)
            # A pool's seeds are int32.
            self._pool.close()
            self._pool = self._make((sequence.generate_state(self.num_envs) >> 1).tolist())
            self._np_random = np.random.default_rng(sequence.spawn(1)[0])
        observations, _ = self._pool.reset()
        self._start_counting()
        return self._selected(observations), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes a step in every environment, or resets it if its episode ended in the previous step.

        Args:
            actions: [N, ...].

        Returns:
            Observations [N, ...], rewards, terminated and truncated, [N] each, and which episodes were cut by the
            wrapper ``stagger``.
        """
        observations, rewards, terminated, truncated = self._step(np.asarray(actions))
        self._num_steps += 1
        ended = terminated | truncated
        self._was_cut = (self._first_ends == self._num_steps) & ~ended
        # Only the first episode is truncated early.
        self._first_ends[ended] = 0
        info = {"is_staggered": self._was_cut, "_is_staggered": self._was_cut} if self._was_cut.any() else {}
        return observations, rewards, terminated, truncated | self._was_cut, info

    def close_extras(self, **kwargs: Any) -> None:
        """Stops the pool's threads."""
        if self._pool is not None:
            self._pool.close()

    def _make(self, seeds: list[int]) -> Any:
        """Makes a pool with these seeds."""
        try:
            envpool: Any = importlib.import_module("envpool")  # not this file, as type checkers think
        except ImportError as error:
            raise UserError(
                'env.vectorization envpool needs the package of that name: pip install "ctm-rl[envpool]".'
            ) from error
        if self._env_id not in envpool.list_all_envs():
            raise UserError(f"envpool has no environment {self._env_id}; env.vectorization auto takes any.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about bounds that lose precision in float32
                pool = envpool.make_gymnasium(self._env_id, seed=seeds, **self._pool_arguments)
                _ = pool.observation_space, pool.action_space  # made when first read, and cached
                return pool
        except Exception as error:  # it rejects arguments with many kinds of errors
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"envpool cannot make {self._env_id} with {self._pool_arguments}: {reason}") from error

    def _check_spaces(self) -> None:
        """Refuses a pool with other spaces than the environment that a policy is built for."""
        observed = self._pool.observation_space if self._key is None else self._pool.observation_space[self._key]
        if isinstance(observed, gym.spaces.Dict):
            raise UserError(
                f"envpool's observations of {self._env_id} have the parts {', '.join(observed)}; for MiniGrid, "
                f"--env.wrappers {_GRID_IMAGE} selects the image."
            )
        pairs = {"observes": (observed, self.single_observation_space)}
        pairs["takes"] = (self._pool.action_space, self.single_action_space)
        for verb, (own, other) in pairs.items():
            sizes = [int(space.n) if isinstance(space, Discrete) else space.shape for space in (own, other)]
            if sizes[0] != sizes[1]:
                one, two = describe_space(own), describe_space(other)
                raise UserError(f"envpool's {self._env_id} {verb} {one}, and Gymnasium's {two}; use auto.")

    def _start_counting(self) -> None:
        """Starts counting steps, and draws where first episodes are truncated."""
        self._num_steps = 0
        self._was_cut = np.zeros(self.num_envs, bool)
        self._first_ends = np.zeros(self.num_envs, np.int64)
        if self._is_staggered:
            self._first_ends[:] = self.np_random.integers(1, self._limit, self.num_envs, endpoint=True)

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Takes a step in the pool, whose rows come in any order; resets the rows that were truncated early."""
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        space = self.observation_space
        observations = np.empty(space.shape or (), space.dtype)
        (cut,) = np.nonzero(self._was_cut)
        others = None
        if cut.size:
            observed, info = self._pool.reset(env_id=cut.astype(np.int32))
            observations[info["env_id"]] = self._selected(observed)
            others = np.flatnonzero(~self._was_cut).astype(np.int32)
            actions = actions[others]
        if len(actions):
            observed, gained, is_over, is_late, info = self._pool.step(actions, others)
            rows = info["env_id"]
            observations[rows], rewards[rows] = self._selected(observed), gained
            terminated[rows], truncated[rows] = is_over, is_late
        return observations, rewards, terminated, truncated

    def _selected(self, observations: Any) -> np.ndarray:
        """The part of a pool's observations that is returned."""
        observed = observations if self._key is None else observations[self._key]
        return np.asarray(observed, self.observation_space.dtype)
