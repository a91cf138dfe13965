"""Recurrent PPO as an RLlib algorithm: columns from the environment runners, divided among learners by environment."""

import functools
from typing import Any

import numpy as np
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from ctm_rl.agents.ppo.collector import Collector
from ctm_rl.agents.ppo.config import RecurrentPPOConfig
from ctm_rl.agents.ppo.rollout import RolloutFragment
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.columns import batch_of, for_learners, update_learners
from ctm_rl.agents.rllib.spans import COLLECT, WEIGHTS, span


class RecurrentPPO(PPO):
    """Proximal policy optimisation of a recurrent policy, over whole fragments; see ``RecurrentPPOConfig``."""

    @classmethod
    def get_default_config(cls) -> RecurrentPPOConfig:
        """Returns the configuration to start from."""
        return RecurrentPPOConfig()

    def setup(self, config: Any) -> None:
        """Builds runners and learners."""
        super().setup(config)
        settings, group = self._settings, self.env_runner_group
        assert group is not None
        self._collector = Collector(
            group,
            functools.partial(self.restore_env_runners, group),
            functools.partial(self.metrics.aggregate, key=ENV_RUNNER_RESULTS),
            timeout=settings.sample_timeout_s,
            num_rows=settings.num_rows,
            unit=settings.num_rows_unit,
        )

    def training_step(self) -> None:
        """One iteration: every runner takes T steps, the learners update on them, the runners get the weights.

        With ``collect_ahead``, the runners begin the next T steps before the update.
        """
        config = self._settings
        assert self.env_runner_group is not None
        with span(COLLECT), self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            fragment = self._collector.collect(self._tick_seed())
        if config.ppo.collect_ahead:
            self._collector.order(self._tick_seed())
        update_learners(self, _shards(fragment, config.num_learners))
        with span(WEIGHTS), self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            # RLlib copies the state of the runner in this process to restarted runners.
            local = self.env_runner_group.local_env_runner
            if local is not None:
                local.num_env_steps_sampled_lifetime = self._num_env_steps
            self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the current policy by the configuration's ``evaluation`` settings, by episodes or by steps.

        Without an evaluation interval, RLlib's PPO plays in the environments of training; here they return columns, and
        their episodes go on. The first call makes environments for evaluation in this process.

        Args:
            *args: RLlib's.
            **kwargs: RLlib's.

        Returns:
            RLlib's metrics of the evaluation.
        """
        if self.eval_env_runner_group is None:
            self.eval_env_runner_group = private.make_evaluation_group(self)
        return super().evaluate(*args, **kwargs)

    @property
    def runner_states(self) -> dict[int, dict[str, Any]]:
        """See ``Collector.runner_states``."""
        return self._collector.runner_states

    def forget_orders(self) -> None:
        """Discards fragments that were collected ahead, so that the next ones use the runners' current weights."""
        self._collector.forget()

    @property
    def _settings(self) -> RecurrentPPOConfig:
        assert isinstance(self.config, RecurrentPPOConfig)
        return self.config

    @property
    def _num_env_steps(self) -> int:
        """Environment steps of the run so far."""
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))

    def _tick_seed(self) -> int:
        """The seed of the numbers of ticks, which all fragments of an iteration share."""
        seed = self._settings.seed
        words = np.random.SeedSequence(None if seed is None else [seed, self._num_env_steps, 2])
        return int(words.generate_state(1)[0])


def _shards(fragment: RolloutFragment, num_learners: int) -> dict[str, Any]:
    """Equal parts of a fragment, as ``LearnerGroup.update`` takes them."""
    num_parts = max(1, num_learners)
    share = fragment.num_rows // num_parts
    parts = [fragment.rows(index * share, (index + 1) * share) for index in range(num_parts)]
    return for_learners([batch_of(part.columns(), part.num_steps) for part in parts], num_learners)
