"""RLlib's own algorithms with our module in them: PPO, and the asynchronous APPO and IMPALA."""

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
"""How long an asynchronous algorithm waits for its environment runners before it looks again."""


def stock_config(experiment: ActingExperiment, model: PolicyConfig) -> AlgorithmConfig:
    """Gives what is special to RLlib's own algorithms, learners and environment runner.

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
    config = _vtrace_config(experiment) if experiment.algorithm in ASYNCHRONOUS else _ppo_config(ppo)
    if isinstance(config, PPOConfig):
        _check_minibatch(minibatch_size, model, ppo)
    config.env_runners(
        env_runner_cls=SeededEnvRunner,
        max_requests_in_flight_per_env_runner=private.MAX_REQUESTS_IN_FLIGHT,
        gym_env_vectorize_mode="async" if experiment.env.vectorization == "async" else "sync",
    )
    scale = scale_of_rewards(ppo.reward_scale, ppo.gamma, is_normalised=False)
    config.learners(learner_class=_LEARNERS[experiment.algorithm], learner_config_dict={REWARD_SCALE: scale})
    config.training(minibatch_size=minibatch_size, train_batch_size_per_learner=batch_size)
    return config


def longest_sequence(experiment: ActingExperiment) -> int:
    """How long a sequence RLlib's learners may backpropagate through, in environment steps.

    V-trace reads on from step to step, and at the end of a sequence from its bootstrap value: with whole fragments that
    is always the next step, whichever sequences a minibatch holds.
    """
    is_whole = experiment.algorithm in ASYNCHRONOUS
    return experiment.ppo.num_rollout_steps + 1 if is_whole else experiment.model.max_seq_len


def _ppo_config(ppo: PPOSettings) -> PPOConfig:
    """What is special to PPO."""
    config = PPOConfig()
    config.training(
        lambda_=ppo.gae_lambda,
        clip_param=ppo.clip,
        # RLlib clips the squared error, not the change: above the limit a value would never learn.
        vf_clip_param=float("inf"),
        # RLlib's value loss is the squared error, not half of it.
        vf_loss_coeff=ppo.value_coefficient / 2,
        use_kl_loss=False,
    )
    return config


def _vtrace_config(experiment: ActingExperiment) -> IMPALAConfig:
    """What is special to APPO and IMPALA: environments are played on while the learner learns."""
    ppo = experiment.ppo
    config = APPOConfig() if experiment.algorithm == "appo" else IMPALAConfig()
    settings: dict[str, Any] = {}
    if isinstance(config, APPOConfig):
        settings = {
            "clip_param": ppo.clip,
            # Passes over one batch after the other, as in PPO; a batch's policy is clipped to the one before it.
            # The circular buffer's passes go on behind the back of whoever wants to save.
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
    # An iteration has as many steps as with the others, or some more, and something has been learned in it.
    config.reporting(
        min_time_s_per_iteration=0,
        min_sample_timesteps_per_iteration=experiment.batch_size,
        min_train_timesteps_per_iteration=1,
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
