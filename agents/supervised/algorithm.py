"""Supervised learning as an RLlib algorithm: env runners make samples ahead of the learners."""

import functools
from operator import methodcaller
from typing import Any

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
)

from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.columns import for_learners, update_learners
from ctm_rl.agents.rllib.iteration import report
from ctm_rl.agents.rllib.spans import COLLECT, TEST, span
from ctm_rl.agents.supervised.config import SupervisedConfig
from ctm_rl.agents.supervised.env_runner import SampleRunner
from ctm_rl.agents.supervised.learner import SupervisedLearner
from ctm_rl.agents.supervised.sample_queue import SampleQueue
from ctm_rl.agents.supervised.scoring import Tally

CHUNKS_AT_ONCE = 8
"""How many chunks of held-out samples a learner receives at once."""


class Supervised(Algorithm):
    """Learns from labelled samples; see ``SupervisedConfig``."""

    @classmethod
    def get_default_config(cls) -> SupervisedConfig:
        """Returns the configuration to start from."""
        return SupervisedConfig()

    def setup(self, config: Any) -> None:
        """Builds runners and learners."""
        super().setup(config)
        group = self.env_runner_group
        assert group is not None
        restore = functools.partial(self.restore_env_runners, group)
        self._queue = SampleQueue(group, restore, self._settings.sample_timeout_s)

    def training_step(self) -> None:
        """One iteration: ``learning.num_steps_per_iteration`` optimiser steps on samples that were made ahead."""
        config = self._settings
        with span(COLLECT), self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            data = self._samples(self.iteration)
        num_samples = config.num_rows * max(1, config.num_learners) * config.learning.num_steps_per_iteration
        for key, reduce in ((NUM_ENV_STEPS_SAMPLED, "sum"), (NUM_ENV_STEPS_SAMPLED_LIFETIME, "lifetime_sum")):
            self.metrics.log_value((ENV_RUNNER_RESULTS, key), num_samples, reduce=reduce)
        update_learners(self, data)

    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Evaluates the held-out samples, as RLlib does every ``evaluation_interval`` iterations.

        Args:
            parallel_train_future: not used: evaluation never runs beside training.

        Returns:
            ``accuracy`` (share of right elements at the most certain tick), ``accuracy_whole`` (share of samples that
            are right in every element), ``held_out_loss`` and ``num_samples``; in the result of ``train`` under
            ``evaluation``.
        """
        self._call_back("on_evaluate_start")
        scores = self.test()
        results = {**scores.means(), "num_samples": scores.num_samples}
        self._call_back("on_evaluate_end", evaluation_metrics=results)
        return results

    def test(self) -> Tally:
        """Evaluates the held-out samples, divided over runners and learners; returns the sums over all of them."""
        with span(TEST):
            return self._test()

    def _test(self) -> Tally:
        """Evaluates the held-out samples."""
        config = self._settings
        assert self.learner_group is not None
        num_samples = self._local_runner.sampler.count_held_out(config.held_out.num_samples)
        num_chunks = -(-num_samples // config.num_rows)
        # A few at a time: all held-out images together may not fit into memory.
        size = CHUNKS_AT_ONCE * max(1, config.num_learners)
        windows = [range(first, min(first + size, num_chunks)) for first in range(0, num_chunks, size)]
        tallies: list[Tally] = []
        for window, following in zip(windows, [*windows[1:], range(0)], strict=True):
            report("chunks of held-out samples", window.start, num_chunks)
            job = functools.partial(_score, chunks=self._held_out(window, following, num_samples))
            tallies += private.call_learners(self.learner_group, job)
        return Tally.sum(tallies)

    def _call_back(self, name: str, **arguments: Any) -> None:
        """Calls a callback of the user's, as RLlib does around its own evaluation."""
        arguments |= {"algorithm": self, "metrics_logger": self.metrics}
        functions = getattr(self._settings, f"callbacks_{name}")
        objects: Any = self.callbacks
        make_callback(name, callbacks_objects=objects, callbacks_functions=functions, kwargs=arguments)

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
        """One iteration's samples as ``LearnerGroup.update`` takes them; those of the next ones are requested."""
        config = self._settings
        parts = range(max(1, config.num_learners))
        # Enough for every runner to be busy while the learners learn from this iteration.
        ahead = 1 + -(-config.num_env_runners // len(parts))
        for later in range(iteration, iteration + ahead + 1):
            for part in parts:
                self._queue.request((later, part), methodcaller("sample", iteration=later, part=part))
        return for_learners([self._queue.take((iteration, part)) for part in parts], config.num_learners)

    def _held_out(self, chunks: range, following: range, num_samples: int) -> list[Any]:
        """Chunks of held-out samples, or references to them; those that come next are requested."""
        for chunk in (*chunks, *following):
            self._queue.request(("held out", chunk), methodcaller("held_out", chunk, num_samples))
        return [self._queue.take(("held out", chunk)) for chunk in chunks]


def _score(learner: SupervisedLearner, chunks: list[Any]) -> Tally:
    """Evaluates a learner's share of the chunks; called in the learner's process."""
    mine = chunks[private.learner_index(learner) :: max(1, learner.config.num_learners)]
    samples = (ray.get(chunk) if isinstance(chunk, ray.ObjectRef) else chunk for chunk in mine)
    return Tally.sum([Tally(0, 0.0, 0.0, 0.0), *(learner.score(part.as_dict()) for part in samples)])
