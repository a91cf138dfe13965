"""From an experiment to RLlib: its own proximal policy optimisation, with our module in it."""

import dataclasses
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import GeneralAdvantageEstimation
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.typing import ParamDict

from ctm_rl.agents.env_runner import SeededEnvRunner
from ctm_rl.agents.environment import gym_arguments, make_env
from ctm_rl.agents.experiment import Experiment, PPOSettings
from ctm_rl.agents.module import CTMModule
from ctm_rl.agents.spaces import count_actions, fit_config
from ctm_rl.config import PolicyConfig
from ctm_rl.errors import UserError

REWARD_SCALE = "reward_scale"
"""Name of the factor in RLlib's ``learner_config_dict``."""
SAMPLE_TIMEOUT_SECONDS = 1800.0
"""How long a remote environment runner may take for its share of an iteration."""


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


def build_algorithm_config(experiment: Experiment) -> PPOConfig:
    """Translates an experiment for RLlib; needs no running Ray.

    Args:
        experiment: what to train.

    Returns:
        RLlib's configuration; ``build_algo()`` makes the algorithm of it.

    Raises:
        UserError: the environment cannot be made, its spaces are not supported, or a minibatch would be too small.
    """
    model, ppo = _fit_model(experiment), experiment.ppo
    num_learners = max(1, experiment.num_learners)
    batch_size = experiment.batch_size // num_learners
    minibatch_size = batch_size // ppo.num_minibatches
    _check_minibatch(minibatch_size, model, ppo)
    env_id, arguments = gym_arguments(experiment.env)
    config = PPOConfig()
    config.environment(env_id, env_config=arguments)
    config.env_runners(
        env_runner_cls=SeededEnvRunner,
        num_env_runners=experiment.num_env_runners,
        num_envs_per_env_runner=experiment.num_envs_per_env_runner,
        num_cpus_per_env_runner=experiment.num_cpus_per_env_runner,  # pyright: ignore[reportArgumentType]
        rollout_fragment_length=ppo.num_rollout_steps,
        sample_timeout_s=SAMPLE_TIMEOUT_SECONDS,
        # With 1, RLlib skips sending new weights to a runner whose last receipt has not come in yet.
        max_requests_in_flight_per_env_runner=2,
        gym_env_vectorize_mode="sync",
    )
    config.learners(
        learner_class=CTMPPOTorchLearner,
        learner_config_dict={REWARD_SCALE: _reward_scale(ppo)},
        num_learners=experiment.num_learners,
        num_gpus_per_learner=experiment.num_gpus_per_learner,
    )
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=CTMModule, model_config=dataclasses.asdict(model)))
    config.training(
        lr=[[0, ppo.lr], [experiment.budget.env_steps, 0.0]] if ppo.is_lr_annealed else ppo.lr,
        gamma=ppo.gamma,
        lambda_=ppo.gae_lambda,
        clip_param=ppo.clip,
        # RLlib clips the squared error, not the change: above the limit a value would never learn.
        vf_clip_param=float("inf"),
        vf_loss_coeff=ppo.value_coefficient,
        entropy_coeff=ppo.entropy_coefficient,
        use_kl_loss=False,
        grad_clip=ppo.max_grad_norm,
        grad_clip_by="global_norm",
        num_epochs=ppo.num_epochs,
        minibatch_size=minibatch_size,
        train_batch_size_per_learner=batch_size,
    )
    config.debugging(seed=experiment.seed, log_level="ERROR", log_sys_usage=False)
    return config


def _check_minibatch(minibatch_size: int, model: PolicyConfig, ppo: PPOSettings) -> None:
    """Refuses minibatches that hold less than one sequence: RLlib would cut them to nothing."""
    longest = min(model.max_seq_len, ppo.num_rollout_steps + 1)
    if minibatch_size < longest:
        raise UserError(
            f"a minibatch of {minibatch_size} steps is shorter than one sequence of {longest}; "
            "lower ppo.num_minibatches or model.max_seq_len, or play more environments."
        )


def _reward_scale(ppo: PPOSettings) -> float:
    """The factor that was asked for, or the one that makes a value a mean of rewards instead of their sum."""
    if ppo.reward_scale is not None:
        return ppo.reward_scale
    return 1.0 - ppo.gamma if ppo.gamma < 1.0 else 1.0


def _fit_model(experiment: Experiment) -> PolicyConfig:
    """Looks at the environment once and settles what its spaces mean for the model."""
    env = make_env(experiment.env)
    try:
        count_actions(env.action_space)
        return fit_config(experiment.model, env.observation_space)
    finally:
        env.close()
