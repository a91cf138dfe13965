"""Recurrent PPO as an RLlib algorithm: columns from the runners, shared out over learners by environment."""

import functools
import logging
import time
from typing import Any

import numpy as np
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.core import ALL_MODULES
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from ctm_rl.agents.columnar_env_runner import ColumnarEnvRunner
from ctm_rl.agents.columns import batch_of
from ctm_rl.agents.ppo_config import RecurrentPPOConfig
from ctm_rl.agents.rollout import RolloutFragment, concatenate
from ctm_rl.errors import EnvFault

MAX_TRIES = 60
"""How often environment runners are asked in one iteration, a second apart, before it is given up."""

_LOG = logging.getLogger(__name__)


class RecurrentPPO(PPO):
    """Proximal policy optimisation of a recurrent policy, over whole fragments; see ``RecurrentPPOConfig``."""

    @classmethod
    def get_default_config(cls) -> RecurrentPPOConfig:
        """Returns the configuration to start from."""
        return RecurrentPPOConfig()

    def training_step(self) -> None:
        """One iteration: every runner plays T steps, the learners learn from them, the weights go out."""
        config = self.config
        assert isinstance(config, RecurrentPPOConfig)
        assert self.learner_group is not None
        assert self.env_runner_group is not None
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            fragment = self._collect(config)
        lifetime = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
        trained = (LEARNER_RESULTS, ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                **_shards(fragment, config.num_learners),
                timesteps={
                    NUM_ENV_STEPS_SAMPLED_LIFETIME: lifetime,
                    NUM_MODULE_STEPS_TRAINED_LIFETIME: self.metrics.peek(trained, default=0),
                },
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            # The runner in this process passes its state on to runners that are brought back.
            local = self.env_runner_group.local_env_runner
            if local is not None:
                local.num_env_steps_sampled_lifetime = int(lifetime)
            self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)

    def _collect(self, config: RecurrentPPOConfig) -> RolloutFragment:
        """Has all runners play; goes on with what came if some are lost, cut to what makes equal minibatches."""
        group = self.env_runner_group
        assert group is not None
        unit = config.num_rows_unit
        # Learned from together, all runners' fragments need the same numbers of ticks; as the position, so are these.
        position = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        words = np.random.SeedSequence(None if config.seed is None else [config.seed, int(position), 2])
        tick_seed = int(words.generate_state(1)[0])
        for _ in range(MAX_TRIES):
            fragments, results = _sample(group, config.sample_timeout_s, tick_seed)
            if results:
                self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
            num_rows = sum(fragment.num_rows for fragment in fragments)
            if num_rows >= unit:
                if num_rows < config.num_rows:
                    _LOG.warning(
                        "%d of %d environments were played; the iteration goes on with %d of them.",
                        num_rows,
                        config.num_rows,
                        num_rows - num_rows % unit,
                    )
                return concatenate(fragments).rows(0, num_rows - num_rows % unit)
            _LOG.warning(
                "%d of %d environments were played, and %d are needed at least; trying to bring runners back.",
                num_rows,
                config.num_rows,
                unit,
            )
            time.sleep(1.0)
            self.restore_env_runners(group)
        raise RuntimeError(
            f"no environment runner has come back in {MAX_TRIES} tries; see the log for what they died of."
        )


def _sample(
    group: EnvRunnerGroup, timeout: float | None, tick_seed: int | None = None
) -> tuple[list[RolloutFragment], list[Any]]:
    """One fragment and the metrics of every runner that answers, in the runners' order."""
    if group.num_remote_env_runners() == 0:
        runner = group.local_env_runner
        assert isinstance(runner, ColumnarEnvRunner)
        return [runner.sample(tick_seed=tick_seed)], [runner.get_metrics()]
    # What a task returns belongs to the driver: it does not die with its runner.
    play = functools.partial(_play, tick_seed=tick_seed)
    answers = group.foreach_env_runner(play, local_env_runner=False, timeout_seconds=timeout)
    ordered = sorted(answers, key=lambda answer: answer[0])
    for _, fragment, _ in ordered:
        if isinstance(fragment, EnvFault):
            raise fragment
    return [fragment for _, fragment, _ in ordered], [metrics for *_, metrics in ordered]


def _shards(fragment: RolloutFragment, num_learners: int) -> dict[str, Any]:
    """What ``LearnerGroup.update`` is given: the whole for a local learner, an equal part for each remote one."""
    if num_learners == 0:
        return {"batch": batch_of(fragment.columns(), fragment.num_steps)}
    share = fragment.num_rows // num_learners
    parts = [fragment.rows(index * share, (index + 1) * share) for index in range(num_learners)]
    return {"batches": [batch_of(part.columns(), part.num_steps) for part in parts]}


def _play(runner: Any, tick_seed: int | None) -> tuple[int, Any, Any]:
    """One fragment, and the metrics of a runner in its own process; or the fault of its environment.

    RLlib would end the process over an error, start another one, and tell nobody why.
    """
    try:
        return runner.worker_index, runner.sample(tick_seed=tick_seed), runner.get_metrics()
    except EnvFault as fault:
        return runner.worker_index, fault, None
