"""The environment runner of supervised learning: makes labelled samples, without a policy."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.checkpoints import Checkpointable

from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.agents.rllib.columns import batch_of
from ctm_rl.agents.supervised.sampler import LabelledSamples, Sampler

if TYPE_CHECKING:
    from ctm_rl.agents.supervised.config import SupervisedConfig


class SampleRunner(EnvRunner, Checkpointable):
    """Makes samples of a single-step environment; has neither a policy nor a state.

    The constructor's arguments are RLlib's. Of the configuration it reads the environment, ``learning``, ``held_out``.
    """

    config: "SupervisedConfig"  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.spaces = kwargs.get("spaces") or {}
        self.module = None
        self.make_env()

    def make_env(self) -> None:
        """Creates the sampler, which creates the environments when the first samples are made."""
        config = self.config
        assert isinstance(config.env, str)
        task = TaskConfig(id=config.env, kwargs=dict(config.env_config), held_out_kwargs=config.held_out_kwargs)
        self.sampler = Sampler(
            task,
            num_rows=config.num_rows,
            num_steps=config.learning.num_steps_per_iteration,
            seed=config.seed or 0,
            held_out_seed=config.held_out.seed,
        )

    def sample(self, *, iteration: int = 0, part: int = 0, **kwargs: Any) -> MultiAgentBatch:
        """Makes the samples of one learner for one iteration.

        Args:
            iteration: counted from 0; all runners make the same samples for the same iteration.
            part: index of the learner.
            **kwargs: none is supported.

        Returns:
            The samples, in the form that RLlib's learners take.

        Raises:
            ValueError: an argument is not supported.
        """
        if kwargs:
            raise ValueError(f"sample takes iteration and part, got {', '.join(kwargs)}.")
        columns = self.sampler.fragment(iteration, part)
        return batch_of(columns.as_dict(), len(columns.targets))

    def run_job(self, job: Callable[["SampleRunner"], Any]) -> tuple[Any, bool]:
        """Does a job of a ``RunnerPool``; returns the result and its receipt.

        RLlib's ``apply`` would end this process without a report when the environment fails.
        """
        return job(self), True

    def held_out(self, chunk: int, num_samples: int) -> LabelledSamples:
        """Makes held-out samples; see ``Sampler.held_out``."""
        return self.sampler.held_out(chunk, num_samples)

    def get_metrics(self) -> Any:
        """Returns no metrics of its own: learners count the samples."""
        return self.metrics.reduce()

    def get_spaces(self) -> dict[str, tuple[gym.Space, gym.Space]]:
        """Returns the spaces of all environments together, of one, and of the module."""
        if self.worker_index == 0 and self.spaces:
            return self.spaces
        env = self.sampler.env
        single = env.single_observation_space, env.single_action_space
        return {
            INPUT_ENV_SPACES: (env.observation_space, env.action_space),
            INPUT_ENV_SINGLE_SPACES: single,
            DEFAULT_MODULE_ID: single,
        }

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Returns an empty state: samples depend on the seed and the iteration alone."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Does nothing: there is no state."""

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the constructor's arguments, with which RLlib recreates a runner."""
        return (), {"config": self.config}

    def assert_healthy(self) -> None:
        """Checks that the constructor has finished."""
        assert self.sampler is not None

    def stop(self) -> None:
        """Closes the environments."""
        self.sampler.close()
