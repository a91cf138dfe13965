"""Configurations of RLlib's own algorithms with our module: PPO, and the asynchronous APPO and IMPALA."""

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig

from ctm_rl.agents.experiments.acting import ASYNCHRONOUS, ActingExperiment, PPOSettings
from ctm_rl.agents.experiments.validation import scale_of_rewards
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.seeded_env_runner import SeededEnvRunner
from ctm_rl.agents.stock.learner import REWARD_SCALE, CTMAPPOTorchLearner, CTMIMPALATorchLearner, CTMPPOTorchLearner
from ctm_rl.config import PolicyConfig
from ctm_rl.errors import UserError

_LEARNERS = {"stock-ppo": CTMPPOTorchLearner, "appo": CTMAPPOTorchLearner, "impala": CTMIMPALATorchLearner}
_WAIT_SECONDS = 0.05
"""Seconds that an asynchronous algorithm waits for environment runners at a time."""


def stock_config(experiment: ActingExperiment, model: PolicyConfig) -> AlgorithmConfig:
    """Returns the part of the configuration that is specific to RLlib's own algorithms.

    Args:
        experiment: the run.
        model: the policy, fitted to the environment.

    Returns:
        The configuration, not yet complete.

    Raises:
        UserError: a minibatch would be too small.
    """
    ppo = experiment.ppo
    batch_size = experiment.batch_size // max(1, experiment.num_learners)
    minibatch_size = batch_size // ppo.num_minibatches
    config = _vtrace_config(experiment) if experiment.algorithm in ASYNCHRONOUS else _ppo_config(ppo)
    if isinstance(config, PPOConfig):
        _check_minibatch(minibatch_size, model, ppo)
    config.env_runners(
        env_runner_cls=SeededEnvRunner,
        max_requests_in_flight_per_env_runner=private.MAX_REQUESTS_IN_FLIGHT,
        gym_env_vectorize_mode="vector_entry_point",  # our environments vectorise themselves
    )
    scale = scale_of_rewards(ppo.reward_scale, ppo.gamma, is_normalised=False)
    config.learners(learner_class=_LEARNERS[experiment.algorithm], learner_config_dict={REWARD_SCALE: scale})
    config.training(minibatch_size=minibatch_size, train_batch_size_per_learner=batch_size)
    return config


def longest_sequence(experiment: ActingExperiment) -> int:
    """The longest sequence that RLlib's learners backpropagate through, in environment steps.

    V-trace uses the value of the next step, and at the end of a sequence its bootstrap value: with whole fragments both
    are right, whichever sequences are in a minibatch.
    """
    is_whole = experiment.algorithm in ASYNCHRONOUS
    return experiment.ppo.num_rollout_steps + 1 if is_whole else experiment.model.max_seq_len


def _ppo_config(ppo: PPOSettings) -> PPOConfig:
    """The part that is specific to PPO."""
    config = PPOConfig()
    config.training(
        lambda_=ppo.gae_lambda,
        clip_param=ppo.clip,
        # RLlib clips the squared error, not the change of the value: above the limit there is no gradient.
        vf_clip_param=float("inf"),
        # RLlib's value loss is the squared error, not half of it.
        vf_loss_coeff=ppo.value_coefficient / 2,
        use_kl_loss=False,
    )
    return config


def _vtrace_config(experiment: ActingExperiment) -> IMPALAConfig:
    """The part that is specific to APPO and IMPALA, which collect during updates."""
    ppo = experiment.ppo
    config = APPOConfig() if experiment.algorithm == "appo" else IMPALAConfig()
    settings: dict[str, Any] = {}
    if isinstance(config, APPOConfig):
        settings = {
            "clip_param": ppo.clip,
            # Passes over one batch after the other, as in PPO; ratios are relative to the policy before the batch.
            # With the circular buffer, updates would go on while a checkpoint is saved.
            "use_circular_buffer": False,
            "circular_buffer_num_batches": 1,
            "circular_buffer_iterations_per_batch": 1,
            "target_network_update_freq": 1,
        }
    config.training(
        vf_loss_coeff=ppo.value_coefficient,
        broadcast_interval=1,
        timeout_s_sampler_manager=_WAIT_SECONDS if experiment.num_env_runners else 0.0,
        **settings,
    )
    # An iteration has at least as many steps as with the other algorithms, and at least one update.
    config.reporting(
        min_time_s_per_iteration=0,
        min_sample_timesteps_per_iteration=experiment.batch_size,
        min_train_timesteps_per_iteration=1,
    )
    return config


def _check_minibatch(minibatch_size: int, model: PolicyConfig, ppo: PPOSettings) -> None:
    """Refuses minibatches shorter than one sequence: RLlib would make them empty."""
    longest = min(model.max_seq_len, ppo.num_rollout_steps + 1)
    if minibatch_size < longest:
        raise UserError(
            f"a minibatch of {minibatch_size} steps is shorter than one sequence of {longest}; "
            "lower ppo.num_minibatches or model.max_seq_len, or use more environments."
        )
