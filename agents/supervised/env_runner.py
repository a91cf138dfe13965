"""The environment runner of supervised learning: makes labelled samples, without a policy."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gymnasium.vector import VectorEnv
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.policy.sample_batch import MultiAgentBatch

from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.agents.rllib.columns import batch_of
from ctm_rl.agents.rllib.runner_base import PlainEnvRunner, check_arguments
from ctm_rl.agents.supervised.sampler import LabelledSamples, Sampler

if TYPE_CHECKING:
    from ctm_rl.agents.supervised.config import SupervisedConfig


class SampleRunner(PlainEnvRunner):
    """Makes samples of a single-step environment; has neither a policy nor a state.

    The constructor's arguments are RLlib's. Of the configuration it reads the environment, ``learning``, ``held_out``.
    """

    config: "SupervisedConfig"  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
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
        check_arguments(kwargs, "iteration and part")
        columns = self.sampler.fragment(iteration, part)
        return batch_of(columns.as_dict(), len(columns.targets))

    def run_job(self, job: Callable[["SampleRunner"], Any]) -> tuple[Any, bool]:
        """Does a job of a ``RunnerPool``; returns the result and a receipt (see ``Request``).

        RLlib's ``apply`` would end this process without a report when the environment fails.
        """
        return job(self), True

    def held_out(self, chunk: int, num_samples: int) -> LabelledSamples:
        """Makes held-out samples; see ``Sampler.held_out``."""
        return self.sampler.held_out(chunk, num_samples)

    def get_metrics(self) -> Any:
        """Returns no metrics of its own: learners count the samples."""
        return self.metrics.reduce()

    @property
    def _vector(self) -> VectorEnv | None:
        """The environments of training; runner 0 creates none if others have sent their spaces."""
        return None if self.worker_index == 0 and self.spaces else self.sampler.env

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns an empty state: samples depend on the seed and the iteration alone."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Does nothing: there is no state."""

    def assert_healthy(self) -> None:
        """Checks that the constructor has finished."""
        assert self.sampler is not None

    def stop(self) -> None:
        """Closes the environments."""
        self.sampler.close()
