"""Base classes of our environment runners: what RLlib needs of them, and what resuming and progress need."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import gymnasium as gym
import ray
from gymnasium.vector import VectorEnv
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils import force_list
from ray.rllib.utils.checkpoints import Checkpointable

from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.count_faults import FAULTS, NOTES, FaultCounter, pop_notes
from ctm_rl.agents.rllib.environment import make_vector
from ctm_rl.agents.rllib.finished_episodes import LENGTHS, RETURNS, SUCCESSES, FinishedEpisode
from ctm_rl.agents.rllib.spans import SPANS, pop_spans

Module = TypeVar("Module", bound=TorchRLModule)


class ResumableRunner(EnvRunner):
    """An environment runner that can be restarted, and that reports every finished episode and tolerated fault."""

    _start_iteration: int | None = None
    """Number of finished iterations at the last restart; ``None``: it was never restarted."""
    _faults: FaultCounter | None = None
    _callbacks: list[RLlibCallback]

    def restart(self, iteration: int, num_env_steps: int) -> None:
        """Prepares to resume: new episodes, seeded by the iteration; the next weights are always accepted.

        Args:
            iteration: number of finished iterations.
            num_env_steps: number of environment steps sampled by all runners.
        """
        self._start_iteration = iteration
        # RLlib's own runner has both attributes under the same names: it begins new episodes with the next sample, and
        # takes any weights as newer than number 0.
        self._needs_initial_reset = True
        self._weights_seq_no = 0
        self.num_env_steps_sampled_lifetime = num_env_steps
        self._drop_finished()

    @property
    def longest_episode(self) -> int:
        """Environment steps of the longest episode under way; 0 without environments that have been stepped."""
        raise NotImplementedError

    def _drop_finished(self) -> None:
        """Drops finished episodes that have not been reported."""
        raise NotImplementedError

    def _make_vector(self, wrap: Callable[[VectorEnv], VectorEnv] = lambda env: env) -> None:
        """Creates the environments again from the configuration; the next sample begins new episodes.

        Args:
            wrap: wraps all of them.
        """
        if self.env is not None:
            self.env.close()
        context = self.config.env_config
        if not isinstance(context, EnvContext):
            context = EnvContext(context, worker_index=self.worker_index or 0, num_workers=self.num_workers)
        mode = gym.VectorizeMode(self.config.gym_env_vectorize_mode)
        num_envs = cast(int, self.config.num_envs_per_env_runner)
        self.env = wrap(make_vector(cast(Any, self.config.env), num_envs, mode, context))
        self.num_envs = self.env.num_envs
        self._count_faults()
        self._needs_initial_reset = True
        make_callback(
            "on_environment_created",
            callbacks_objects=self._callbacks,
            callbacks_functions=list(force_list(self.config.callbacks_on_environment_created)),
            kwargs={
                "env_runner": self,
                "metrics_logger": self.metrics,
                "env": self.env.unwrapped,
                "env_context": context,
            },
        )

    def _count_faults(self) -> None:
        """Counts the faults of new environments from 0."""
        is_tolerant = bool(self.config.env_config.get("tolerate_faults"))
        self._faults = None if self.env is None else FaultCounter(self.env, is_tolerant=is_tolerant)

    def _log_finished(self, episodes: Iterable[FinishedEpisode]) -> None:
        """Logs the return and length of each finished episode, and the faults since the last call."""
        for episode in episodes:
            self.metrics.log_value(RETURNS, episode.episode_return, reduce="item_series")
            self.metrics.log_value(LENGTHS, episode.length, reduce="item_series")
            if episode.is_success is not None:
                self.metrics.log_value(SUCCESSES, float(episode.is_success), reduce="item_series")
        for spans in pop_spans(self.worker_index):
            self.metrics.log_value(SPANS, spans, reduce="item_series")
        for entry in pop_notes(self.env):
            self.metrics.log_value(NOTES, entry, reduce="item_series")
        self.metrics.log_value(FAULTS, 0 if self._faults is None else self._faults.pop(), reduce="sum")


class PlainEnvRunner(EnvRunner, Checkpointable):
    """An environment runner without episode objects and connectors.

    The constructor's arguments are RLlib's.
    """

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        private.leave_new_memory_unfilled()
        self.spaces = kwargs.get("spaces") or {}
        self.module: Any = None

    @property
    def _vector(self) -> VectorEnv | None:
        """The environments; ``None``: this runner uses the spaces that it got from others."""
        return self.env

    def get_spaces(self) -> dict[str, tuple[gym.Space, gym.Space]]:
        """Returns the spaces of all environments together, of one, and of the module."""
        env = self._vector
        if env is None:
            return self.spaces
        single = env.single_observation_space, env.single_action_space
        return {
            INPUT_ENV_SPACES: (env.observation_space, env.action_space),
            INPUT_ENV_SINGLE_SPACES: single,
            DEFAULT_MODULE_ID: single,
        }

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments that RLlib creates another one with."""
        return (), {"config": self.config}

    def _build_module(self, kind: type[Module]) -> Module:
        """Builds the configured module, in evaluation mode: there is no dropout in rollouts.

        Raises:
            ValueError: the module is of another kind.
        """
        env = None if self.env is None else self.env.unwrapped
        module = self.config.get_rl_module_spec(env=env, spaces=self.get_spaces(), inference_only=True).build()
        if not isinstance(module, kind):
            raise ValueError(
                f"{type(self).__name__} needs a {kind.__name__}, and rl_module_spec makes a {type(module).__name__}."
            )
        module.eval()
        return module


def load_weights(module: TorchRLModule, weights: Any) -> None:
    """Loads weights as RLlib sends them: of one module or of all, or a reference to them."""
    if isinstance(weights, ray.ObjectRef):
        weights = ray.get(weights)
    module.set_state(weights.get(DEFAULT_MODULE_ID, weights))


def check_arguments(unknown: Mapping[str, Any], accepted: str) -> None:
    """Refuses arguments of ``sample`` that a runner does not support.

    Raises:
        ValueError: there are some.
    """
    if unknown:
        raise ValueError(f"sample takes {accepted}; {', '.join(unknown)} is not supported.")
