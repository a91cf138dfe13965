"""From an experiment to RLlib: our recurrent PPO, or an algorithm of RLlib's own, with our module in it."""

import dataclasses
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from ctm_rl.agents.experiments.acting import ActingExperiment, PPOSettings
from ctm_rl.agents.ppo.config import RecurrentPPOConfig
from ctm_rl.agents.rllib.distributions import check_stock_spaces
from ctm_rl.agents.rllib.environment import VECTORIZATIONS, make_env, make_vector_env, training_arguments
from ctm_rl.agents.rllib.module import CTMModule
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.agents.runs.task import SAMPLE_TIMEOUT_SECONDS
from ctm_rl.agents.stock.config import longest_sequence, stock_config
from ctm_rl.config import PolicyConfig


def build_algorithm_config(experiment: ActingExperiment) -> AlgorithmConfig:
    """Translates an experiment for RLlib; needs no running Ray.

    Args:
        experiment: what to train.

    Returns:
        RLlib's configuration; ``build_algo()`` makes the algorithm of it.

    Raises:
        UserError: the environment cannot be made, its spaces are not supported, or a minibatch would be too small.
    """
    model, ppo = _fit_model(experiment), experiment.ppo
    config = _columnar_config(experiment) if experiment.algorithm == "ppo" else stock_config(experiment, model)
    env_id, arguments = training_arguments(experiment.env)
    config.environment(env_id, env_config=arguments)
    config.env_runners(
        num_env_runners=experiment.num_env_runners,
        num_envs_per_env_runner=experiment.num_envs_per_env_runner,
        num_cpus_per_env_runner=experiment.num_cpus_per_env_runner,  # pyright: ignore[reportArgumentType]
        rollout_fragment_length=ppo.num_rollout_steps,
        sample_timeout_s=SAMPLE_TIMEOUT_SECONDS,
    )
    config.learners(num_learners=experiment.num_learners, num_gpus_per_learner=experiment.num_gpus_per_learner)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=CTMModule, model_config=dataclasses.asdict(model)))
    steps, final = experiment.budget.env_steps, ppo.entropy_coefficient_final
    entropy = ppo.entropy_coefficient
    config.training(
        lr=_lr_schedule(ppo, steps),
        gamma=ppo.gamma,
        grad_clip=ppo.max_grad_norm,
        grad_clip_by="global_norm",
        num_epochs=ppo.num_epochs,
    )
    # Every one of the algorithms has it, and each declares it anew.
    schedule = entropy if final is None else [[0, entropy], [steps, final]]
    config.training(entropy_coeff=schedule)  # pyright: ignore[reportCallIssue]
    config.debugging(seed=experiment.seed, log_level="ERROR", log_sys_usage=False)
    return config


def _lr_schedule(ppo: PPOSettings, num_env_steps: int) -> Any:
    """The learning rate as RLlib takes it: a number, or corners of a line over env steps."""
    if not ppo.lr_warmup_steps and not ppo.is_lr_annealed:
        return ppo.lr
    warm = [[0, 0.0]] if ppo.lr_warmup_steps else []
    end = [[num_env_steps, 0.0]] if ppo.is_lr_annealed else []
    return [*warm, [ppo.lr_warmup_steps, ppo.lr], *end]


def _columnar_config(experiment: ActingExperiment) -> RecurrentPPOConfig:
    """What is special to our own PPO."""
    if experiment.env.vectorization != "sync":
        make_vector_env(experiment.env, 1).close()  # what cannot be made is to be known before Ray starts
    config = RecurrentPPOConfig().training(ppo=experiment.ppo)
    config.env_runners(gym_env_vectorize_mode=VECTORIZATIONS[experiment.env.vectorization])
    return config


def _fit_model(experiment: ActingExperiment) -> PolicyConfig:
    """Looks at the environment once and settles what its spaces mean for the model."""
    env = make_env(experiment.env)
    try:
        model = dataclasses.replace(experiment.model, max_seq_len=longest_sequence(experiment))
        config, layout, actions = fit(model, env.observation_space, env.action_space)
    finally:
        env.close()
    if experiment.algorithm != "ppo":
        check_stock_spaces(layout, actions)
    return config
