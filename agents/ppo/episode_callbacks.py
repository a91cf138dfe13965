"""RLlib's episode callbacks for environments that are played as columns; costs nothing where none is set."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector.utils import iterate
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils import force_list

from ctm_rl.agents.rllib.callbacks import EPISODE_CALLBACKS, is_given
from ctm_rl.agents.rllib.vector_loop import VectorLoop, VectorStep

CREATED, STARTED, STEPPED, ENDED = EPISODE_CALLBACKS


class EpisodeCallbacks:
    """Builds RLlib's episode objects beside the columns, and calls the episode callbacks with them.

    As in RLlib, they hold what the environment has shown, and the actions as it took them. Unlike there, an episode is
    one object from its beginning to its end, however many fragments it lasts (``prev_episode_chunks`` is empty), and
    there are no ``extra_model_outputs``: the policy's outputs are in the columns.

    Args:
        runner: the ``ColumnarEnvRunner`` whose environments are played, and which the callbacks get.
        callbacks: its objects of callback classes.
    """

    def __init__(self, runner: Any, callbacks: list[RLlibCallback]) -> None:
        self._runner, self._objects = runner, callbacks
        self._functions = {
            name: list(force_list(getattr(runner.config, f"callbacks_{name}")))
            for name in EPISODE_CALLBACKS
            if is_given(runner.config, name)
        }
        self._episodes: list[SingleAgentEpisode] = []
        self.has_failed = False
        """Whether a callback has raised an exception, which is no fault of an environment."""

    def begin(self) -> None:
        """Makes episodes for all environments, which are about to be reset."""
        assert self._runner.env is not None
        self._episodes = [self._make() for _ in range(self._runner.env.num_envs)]
        for row in range(len(self._episodes)):
            self._call(CREATED, row)

    def start(self, loop: VectorLoop) -> None:
        """Takes up the reset of all environments."""
        for row, observation in enumerate(iterate(loop.env.observation_space, loop.shown)):
            self._start(row, observation, info_of(loop.infos, row))

    def step(self, loop: VectorLoop, taken: VectorStep) -> None:
        """Takes up a step of all environments."""
        observations = iterate(loop.env.observation_space, loop.shown)
        actions = iterate(loop.env.action_space, loop.actions)
        for row, (observation, action) in enumerate(zip(observations, actions, strict=True)):
            if not taken.is_valid[row]:
                self._start(row, observation, info_of(taken.infos, row))
                continue
            is_replaced = bool(taken.is_last[row]) and loop.resets_in_same_step
            infos = taken.infos.get("final_info", {}) if is_replaced else taken.infos
            self._episodes[row].add_env_step(
                copy.deepcopy(taken.infos["final_obs"][row] if is_replaced else observation),
                copy.deepcopy(action),
                float(taken.rewards[row]),
                info_of(infos, row),
                terminated=bool(taken.terminated[row]),
                truncated=bool(taken.truncated[row]),
            )
            self._call(STEPPED, row)
            if taken.is_last[row]:
                self._call(ENDED, row, prev_episode_chunks=[])
                self._episodes[row] = self._make()
                self._call(CREATED, row)
            if is_replaced:
                self._start(row, observation, info_of(taken.infos, row))

    def _make(self) -> SingleAgentEpisode:
        """An episode without steps."""
        env = self._runner.env
        assert env is not None
        return SingleAgentEpisode(observation_space=env.single_observation_space, action_space=env.single_action_space)

    def _start(self, row: int, observation: Any, infos: dict[str, Any]) -> None:
        """Takes up a reset."""
        self._episodes[row].add_env_reset(copy.deepcopy(observation), infos)
        self._call(STARTED, row)

    def _call(self, name: str, row: int, **more: Any) -> None:
        """Calls the callbacks of a name, if there are any, with RLlib's arguments."""
        if name not in self._functions:
            return
        runner = self._runner
        assert runner.env is not None
        arguments = {
            "episode": self._episodes[row],
            "env_runner": runner,
            "metrics_logger": runner.metrics,
            "env": runner.env.unwrapped,
            "rl_module": runner.module,
            "env_index": row,
            **more,
        }
        try:
            make_callback(name, self._objects, self._functions[name], kwargs=arguments)
        except Exception:
            self.has_failed = True
            raise


def info_of(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """What a vector environment's information says of one environment.

    Args:
        infos: arrays by name, each perhaps with a mask under its name after an underscore; may be nested.
        row: index of the environment.
    """
    found: dict[str, Any] = {}
    for name, values in infos.items():
        mask = infos.get(f"_{name}")
        if (name.startswith("_") and name[1:] in infos) or name in ("final_obs", "final_info"):
            continue
        if mask is not None and not mask[row]:
            continue
        if isinstance(values, Mapping):
            found[name] = info_of(values, row)
        else:
            found[name] = values[row] if isinstance(values, (np.ndarray, list, tuple)) else values
    return found
