"""Builds RLlib's configuration of any experiment: our recurrent PPO, RLlib's own algorithms, models that answer."""

import contextlib
import dataclasses
from collections.abc import Callable

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from ctm_rl.agents.bandit.config import BanditConfig
from ctm_rl.agents.bandit.module import BanditModule
from ctm_rl.agents.evaluation.play import make_fitting
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.ppo.config import RecurrentPPOConfig
from ctm_rl.agents.ppo.exploration_noise import check_correlation
from ctm_rl.agents.rllib.columns import to_device
from ctm_rl.agents.rllib.distributions import check_stock_spaces
from ctm_rl.agents.rllib.environment import make_env, make_vector_env, training_arguments
from ctm_rl.agents.rllib.module import CTMModule
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.agents.runs.memory import check_memory
from ctm_rl.agents.runs.schedules import clip_schedule, entropy_schedule, learning_rate_schedule
from ctm_rl.agents.stock.config import longest_sequence, stock_config
from ctm_rl.agents.supervised.config import SupervisedConfig
from ctm_rl.agents.supervised.module import AnsweringModule, fit_answer_config
from ctm_rl.agents.supervised.sampler import OBSERVATIONS, check_samples, count_samples, make_samples_env
from ctm_rl.config import AnswerConfig, PolicyConfig, encoder_names, is_own_encoder
from ctm_rl.encoders import build_input_encoder, build_observation_encoder
from ctm_rl.errors import UserError

SAMPLE_TIMEOUT_SECONDS = 1800.0
"""How long a remote environment runner may take for its share of an iteration."""


def build_algorithm_config(experiment: AnyExperiment) -> AlgorithmConfig:
    """Translates an experiment for RLlib; needs no running Ray.

    Args:
        experiment: what to train.

    Returns:
        RLlib's configuration; ``build_algo()`` makes the algorithm of it.

    Raises:
        UserError: the environment cannot be made, its spaces are not supported, a minibatch would be too small, or a
            batch too large for the memory of this machine.
    """
    if isinstance(experiment, AnsweringExperiment):
        config, module_class, model = _answering_config(experiment)
    else:
        config, module_class, model = _acting_config(experiment)
    config.env_runners(
        num_env_runners=experiment.num_env_runners,
        num_cpus_per_env_runner=experiment.num_cpus_per_env_runner,  # pyright: ignore[reportArgumentType]
        sample_timeout_s=SAMPLE_TIMEOUT_SECONDS,
    )
    config.learners(num_learners=experiment.num_learners, num_gpus_per_learner=experiment.num_gpus_per_learner)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=module_class, model_config=dataclasses.asdict(model)))
    config.debugging(seed=experiment.seed, log_level="ERROR", log_sys_usage=False)
    return config


def _acting_config(experiment: ActingExperiment) -> tuple[AlgorithmConfig, type, PolicyConfig]:
    """The configuration of an algorithm that acts, its module and the module's model."""
    model, ppo = _fit_policy(experiment), experiment.ppo
    config = _columnar_config(experiment) if experiment.algorithm == "ppo" else stock_config(experiment, model)
    env_id, arguments = training_arguments(experiment.env, has_own_class=experiment.algorithm == "ppo")
    config.environment(env_id, env_config=arguments)
    config.env_runners(
        num_envs_per_env_runner=experiment.num_envs_per_env_runner, rollout_fragment_length=ppo.num_rollout_steps
    )
    steps = experiment.budget.env_steps
    config.training(
        lr=learning_rate_schedule(ppo, steps),  # pyright: ignore[reportArgumentType]
        gamma=ppo.gamma,
        grad_clip=ppo.max_grad_norm,
        grad_clip_by="global_norm",
        num_epochs=ppo.num_epochs,
    )
    # Each of the algorithms has this parameter, and each declares its own.
    config.training(entropy_coeff=entropy_schedule(ppo, steps))  # pyright: ignore[reportCallIssue]
    return config, CTMModule, model


def _columnar_config(experiment: ActingExperiment) -> RecurrentPPOConfig:
    """What only our own PPO has."""
    if experiment.env.vectorization != "sync":
        make_vector_env(experiment.env, 1).close()  # fails before Ray starts if it cannot be made
    ppo = experiment.ppo
    return RecurrentPPOConfig().training(ppo=ppo, clip_param=clip_schedule(ppo, experiment.budget.env_steps))


def _fit_policy(experiment: ActingExperiment) -> PolicyConfig:
    """Completes the policy's configuration with the sizes that follow from the environment's spaces."""
    env = make_env(experiment.env)
    try:
        model = dataclasses.replace(experiment.model, max_seq_len=longest_sequence(experiment))
        config, layout, actions = fit(model, env.observation_space, env.action_space)
    finally:
        env.close()
    _check_own_encoder(config, lambda: build_observation_encoder(layout, config.feature_dim, config.encoder))
    if experiment.evaluated_env != experiment.env:
        make_fitting(experiment.evaluated_env, config, layout, actions, "a policy of this run (--eval.env)").close()
    check_correlation(experiment.ppo.noise_correlation, actions, "ppo.")
    if experiment.algorithm != "ppo":
        check_stock_spaces(layout, actions)
    return config


def _check_own_encoder(config: PolicyConfig | AnswerConfig, build: Callable[[], object]) -> None:
    """Builds encoders of the user's once: what is wrong with them is reported before Ray starts.

    Raises:
        UserError: one of them cannot be imported or built, or returns another shape than it says.
    """
    if any(map(is_own_encoder, encoder_names(config))):
        with torch.random.fork_rng(devices=[]):
            build()


def _answering_config(experiment: AnsweringExperiment) -> tuple[AlgorithmConfig, type, AnswerConfig]:
    """The configuration of an algorithm that answers, its module and the module's model."""
    model = fit_model(experiment)
    _check_own_encoder(model, lambda: build_input_encoder(model))
    with contextlib.closing(make_samples_env(experiment.env, 1)) as env:
        observations, _ = env.reset(seed=0)
    check_memory(experiment, model, to_device({OBSERVATIONS: observations}, "cpu")[OBSERVATIONS])
    config, module_class = SupervisedConfig(), AnsweringModule
    if experiment.signal == "reward":
        config, module_class = BanditConfig().training(bandit=experiment.bandit), BanditModule
    config.environment(experiment.env.id, env_config=experiment.env.kwargs)
    config.training(
        learning=experiment.learning,
        held_out=experiment.held_out,
        held_out_kwargs=experiment.env.held_out_kwargs,
        num_total_steps=experiment.num_steps,
    )
    return config, module_class, model


def fit_model(experiment: AnsweringExperiment) -> AnswerConfig:
    """Completes the configuration of a model that answers with the sizes that follow from the environment's spaces.

    Raises:
        UserError: the environment cannot be made, has no samples to learn from, would be tested on the samples it
            learns from, or the model does not fit it.
    """
    fitted = []
    for is_held_out in (False, True):
        with contextlib.closing(make_samples_env(experiment.env, 1, is_held_out=is_held_out)) as env:
            if is_held_out and count_samples(env) is not None and not experiment.env.held_out_kwargs:
                raise UserError(
                    f"env.held_out_kwargs must select samples of {experiment.env.id} other than those learned from, "
                    'such as \'{"split": "test"}\'; it is empty.'
                )
            check_samples(env)
            spaces = env.single_observation_space, env.single_action_space
            fitted.append(fit_answer_config(experiment.model, *spaces, experiment.learning.loss))
    if fitted[0] != fitted[1]:
        raise UserError(
            f"env.held_out_kwargs of {experiment.env.id} must not change the number of answers or channels."
        )
    return fitted[0]
