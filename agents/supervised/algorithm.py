"""Supervised learning as an RLlib algorithm: runners make samples ahead, learners learn from them."""

import functools
from typing import Any, cast

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import ALL_MODULES
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    TIMERS,
)

from ctm_rl.agents.rllib import private
from ctm_rl.agents.supervised.config import SupervisedConfig
from ctm_rl.agents.supervised.env_runner import SampleRunner
from ctm_rl.agents.supervised.learner import SupervisedLearner
from ctm_rl.agents.supervised.sample_queue import Feed
from ctm_rl.agents.supervised.sampler import Columns
from ctm_rl.agents.supervised.scoring import Tally

CHUNKS_AT_ONCE = 8
"""How many chunks of held-out samples a learner is handed at once."""


class Supervised(Algorithm):
    """Learns to answer from right answers; see ``SupervisedConfig``."""

    @classmethod
    def get_default_config(cls) -> SupervisedConfig:
        """Returns the configuration to start from."""
        return SupervisedConfig()

    def setup(self, config: Any) -> None:
        """Builds runners and learners."""
        super().setup(config)
        self._feed: Feed | None = None
        group = self.env_runner_group
        if group is not None and group.num_remote_env_runners() > 0:
            restore = functools.partial(self.restore_env_runners, group)
            self._feed = Feed(group, restore, self._settings.sample_timeout_s)

    def training_step(self) -> None:
        """One iteration: ``learning.num_steps_per_iteration`` optimiser steps on samples that were made meanwhile."""
        config = self._settings
        assert self.learner_group is not None
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            data = self._samples(self.iteration)
        num_samples = config.num_rows * max(1, config.num_learners) * config.learning.num_steps_per_iteration
        for key, reduce in ((NUM_ENV_STEPS_SAMPLED, "sum"), (NUM_ENV_STEPS_SAMPLED_LIFETIME, "lifetime_sum")):
            self.metrics.log_value((ENV_RUNNER_RESULTS, key), num_samples, reduce=reduce)
        lifetime = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
        trained = (LEARNER_RESULTS, ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                **data,
                timesteps={
                    NUM_ENV_STEPS_SAMPLED_LIFETIME: self.metrics.peek(lifetime),
                    NUM_MODULE_STEPS_TRAINED_LIFETIME: self.metrics.peek(trained, default=0),
                },
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def test(self) -> Tally:
        """Answers the held-out samples, shared out over runners and learners; gives the sums over all of them."""
        config = self._settings
        assert self.learner_group is not None
        num_samples = self._local_runner.sampler.count_held_out(config.held_out.num_samples)
        num_chunks = -(-num_samples // config.num_rows)
        # A few at a time: all held-out pictures together may be more than memory holds.
        size = CHUNKS_AT_ONCE * max(1, config.num_learners)
        windows = [range(first, min(first + size, num_chunks)) for first in range(0, num_chunks, size)]
        tallies: list[Tally] = []
        for window, following in zip(windows, [*windows[1:], range(0)], strict=True):
            job = functools.partial(_score, chunks=self._held_out(window, following, num_samples))
            tallies += [cast(Tally, answer.get()) for answer in self.learner_group.foreach_learner(cast(Any, job))]
        return Tally.sum(tallies)

    @property
    def _settings(self) -> SupervisedConfig:
        assert isinstance(self.config, SupervisedConfig)
        return self.config

    @property
    def _local_runner(self) -> SampleRunner:
        assert self.env_runner_group is not None
        runner = self.env_runner_group.local_env_runner
        assert isinstance(runner, SampleRunner)
        return runner

    def _samples(self, iteration: int) -> dict[str, Any]:
        """One iteration's samples as ``LearnerGroup.update`` takes them; those of the next ones are ordered."""
        config = self._settings
        parts = range(max(1, config.num_learners))
        if self._feed is None:
            batches = [self._local_runner.sample(iteration=iteration, part=part) for part in parts]
            return {"batches": batches} if config.num_learners else {"batch": batches[0]}
        # Enough for every runner to have something to do while this iteration is learned.
        ahead = 1 + -(-config.num_env_runners // len(parts))
        for later in range(iteration, iteration + ahead + 1):
            for part in parts:
                self._feed.order((later, part), functools.partial(_sample, iteration=later, part=part))
        taken = [self._feed.take((iteration, part)) for part in parts]
        return {"batch_refs": taken} if config.num_learners else {"batch": ray.get(taken[0])}

    def _held_out(self, chunks: range, following: range, num_samples: int) -> list[Any]:
        """Chunks of held-out samples, or where these lie; those that come next are ordered."""
        if self._feed is None:
            return [self._local_runner.held_out(chunk, num_samples) for chunk in chunks]
        for chunk in (*chunks, *following):
            self._feed.order(("held out", chunk), functools.partial(_held_out, chunk=chunk, num_samples=num_samples))
        return [self._feed.take(("held out", chunk)) for chunk in chunks]


def _sample(runner: SampleRunner, *, iteration: int, part: int) -> MultiAgentBatch:
    return runner.sample(iteration=iteration, part=part)


def _held_out(runner: SampleRunner, *, chunk: int, num_samples: int) -> Columns:
    return runner.held_out(chunk, num_samples)


def _score(learner: SupervisedLearner, chunks: list[Any]) -> Tally:
    """Runs where the learner is: answers its share of the chunks."""
    mine = chunks[private.learner_index(learner) :: max(1, learner.config.num_learners)]
    samples = (ray.get(chunk) if isinstance(chunk, ray.ObjectRef) else chunk for chunk in mine)
    return Tally.sum([Tally(0, 0.0, 0.0, 0.0), *(learner.score(part.as_dict()) for part in samples)])
