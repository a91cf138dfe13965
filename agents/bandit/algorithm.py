"""Bandits as an RLlib algorithm: runners answer with the newest weights, learners learn from the rewards."""

import itertools
from operator import methodcaller
from typing import Any, cast

import ray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch

from ctm_rl.agents.bandit.config import BanditConfig
from ctm_rl.agents.rllib.columns import batch_of, for_learners, join
from ctm_rl.agents.supervised.algorithm import Supervised


class Bandit(Supervised):
    """Learns to answer from rewards alone; see ``BanditConfig``."""

    @classmethod
    def get_default_config(cls) -> BanditConfig:
        """Returns the configuration to start from."""
        return BanditConfig()

    def _samples(self, iteration: int) -> dict[str, Any]:
        """One iteration's answers as ``LearnerGroup.update`` takes them; none is requested before the new weights.

        The weights are sent with each request, so that a runner that replaces a lost one gives the same answers.
        """
        config = self._settings
        assert self.learner_group is not None
        parts = range(max(1, config.num_learners))
        weights: Any = self.learner_group.get_weights()
        if not self._queue.is_local:
            weights = ray.put(weights)
        shares = _shares(config.learning.num_steps_per_iteration, config.num_env_runners // len(parts))
        for part in parts:
            for steps in shares:
                job = methodcaller("sample", iteration=iteration, part=part, steps=steps, weights=weights)
                self._queue.request((iteration, part, steps.start), job)
        taken = [[self._queue.take((iteration, part, steps.start)) for steps in shares] for part in parts]
        batches = [batches[0] if len(shares) == 1 else _join(ray.get(batches)) for batches in taken]
        return for_learners(batches, config.num_learners)


def _shares(num_steps: int, num_runners: int) -> list[range]:
    """Divides the batches of a learner evenly among its runners; no share is empty."""
    num_shares = min(num_steps, max(1, num_runners))
    bounds = [num_steps * share // num_shares for share in range(num_shares + 1)]
    return [range(first, last) for first, last in itertools.pairwise(bounds)]


def _join(batches: list[MultiAgentBatch]) -> MultiAgentBatch:
    """Answers of several runners as those of one."""
    columns = [cast(dict[str, Any], batch.policy_batches[DEFAULT_MODULE_ID]) for batch in batches]
    joined = {name: join([part[name] for part in columns]) for name in columns[0]}
    return batch_of(joined, sum(batch.env_steps() for batch in batches))
