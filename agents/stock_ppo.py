"""RLlib's own proximal policy optimisation with our module in it: episodes, connectors, padded sequences."""

from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import GeneralAdvantageEstimation
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.typing import ParamDict

from ctm_rl.agents.checks import scale_of_rewards
from ctm_rl.agents.env_runner import SeededEnvRunner
from ctm_rl.agents.experiment import Experiment, PPOSettings
from ctm_rl.agents.module import CTMModule
from ctm_rl.config import PolicyConfig
from ctm_rl.errors import UserError

REWARD_SCALE = "reward_scale"
"""Name of the factor in RLlib's ``learner_config_dict``."""


class ScaleRewards(ConnectorV2):
    """Multiplies the rewards in a learner's batch; the episodes themselves, and what is reported of them, stay raw.

    Args:
        scale: the factor.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._scale = scale

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Scales the rewards of every module, [B, T]."""
        for columns in batch.values():
            columns[Columns.REWARDS] = columns[Columns.REWARDS] * self._scale
        return batch


class CTMPPOTorchLearner(PPOTorchLearner):
    """RLlib's PPO learner, with scaled rewards and decay rates that are kept inside their limits.

    The machine learns in the stock learner too: there, rates outside their limits are only read as if inside. Rewards
    are scaled because a value of many steps' rewards has an error, and a gradient in the shared core, many times the
    policy's; clipped to a common norm, next to nothing would be left of the policy's.
    """

    def build(self) -> None:
        """Builds the stock learner and puts the scaling before its advantages."""
        super().build()
        scale = self.config.learner_config_dict.get(REWARD_SCALE, 1.0)
        if self._learner_connector is not None:
            self._learner_connector.insert_before(GeneralAdvantageEstimation, ScaleRewards(scale))

    def apply_gradients(self, gradients_dict: ParamDict) -> None:
        """Takes the optimiser's step, then projects."""
        super().apply_gradients(gradients_dict)
        for module_id in self.module.keys():
            if isinstance(module := self.module[module_id].unwrapped(), CTMModule):
                module.agent.project_()

    def _make_batch_if_necessary(self, training_data: TrainingData) -> MultiAgentBatch:
        """Makes the training batch; the pass for its advantages needs no gradient, and RLlib would keep its graph."""
        with torch.no_grad():
            return super()._make_batch_if_necessary(training_data)


def stock_config(experiment: Experiment, model: PolicyConfig) -> PPOConfig:
    """Gives what is special to RLlib's own learner and environment runner.

    Args:
        experiment: what to train.
        model: its policy, fitted to the environment.

    Returns:
        The configuration, not yet complete.

    Raises:
        UserError: a minibatch would be too small.
    """
    ppo = experiment.ppo
    batch_size = experiment.batch_size // max(1, experiment.num_learners)
    minibatch_size = batch_size // ppo.num_minibatches
    _check_minibatch(minibatch_size, model, ppo)
    config = PPOConfig()
    config.env_runners(
        env_runner_cls=SeededEnvRunner,
        # With 1, RLlib skips sending new weights to a runner whose last receipt has not come in yet.
        max_requests_in_flight_per_env_runner=2,
        gym_env_vectorize_mode="async" if experiment.env.vectorization == "async" else "sync",
    )
    scale = scale_of_rewards(ppo.reward_scale, ppo.gamma, is_normalised=False)
    config.learners(learner_class=CTMPPOTorchLearner, learner_config_dict={REWARD_SCALE: scale})
    config.training(
        # RLlib clips the squared error, not the change: above the limit a value would never learn.
        vf_clip_param=float("inf"),
        # RLlib's value loss is the squared error, not half of it.
        vf_loss_coeff=ppo.value_coefficient / 2,
        use_kl_loss=False,
        minibatch_size=minibatch_size,
        train_batch_size_per_learner=batch_size,
    )
    return config


def _check_minibatch(minibatch_size: int, model: PolicyConfig, ppo: PPOSettings) -> None:
    """Refuses minibatches that hold less than one sequence: RLlib would cut them to nothing."""
    longest = min(model.max_seq_len, ppo.num_rollout_steps + 1)
    if minibatch_size < longest:
        raise UserError(
            f"a minibatch of {minibatch_size} steps is shorter than one sequence of {longest}; "
            "lower ppo.num_minibatches or model.max_seq_len, or play more environments."
        )
