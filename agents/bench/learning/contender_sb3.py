"""Trains and evaluates sb3-contrib's RecurrentPPO on the environment of an experiment."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from ctm_rl.agents.bench.learning.sb3_settings import SB3Settings
from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.environment import make_env

_EVALUATION_SEED = 2**30
"""Of the first evaluation environment; those of training are below."""
_NUM_EVALUATED = 10
"""Environments of the evaluation, at most."""


def flat_env(config: EnvConfig) -> gym.Env:
    """The experiment's environment with vectors as observations: images in a row, choices as one-hot vectors."""
    env = make_env(config)
    space = env.observation_space
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return env
    return gym.wrappers.FlattenObservation(env)


def make_envs(config: EnvConfig, num_envs: int, gamma: float) -> Any:
    """Environments whose observations and rewards are normalised; the monitor below sees raw rewards.

    Args:
        config: the environment.
        num_envs: how many.
        gamma: discount of the returns that rewards are scaled by.

    Returns:
        A ``VecNormalize``.
    """
    from stable_baselines3.common.monitor import Monitor  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize  # pyright: ignore[reportMissingImports]

    return VecNormalize(DummyVecEnv([lambda: Monitor(flat_env(config)) for _ in range(num_envs)]), gamma=gamma)


def make_model(envs: Any, settings: SB3Settings, seed: int) -> Any:
    """A ``RecurrentPPO`` that has not learned yet."""
    import torch
    from sb3_contrib import RecurrentPPO  # pyright: ignore[reportMissingImports]

    policy = dict(settings.policy_kwargs)
    if "activation_fn" in policy:
        policy["activation_fn"] = getattr(torch.nn, policy["activation_fn"])

    def schedule(value: float) -> float | Callable[[float], float]:
        return (lambda remaining: remaining * value) if settings.is_annealed else value

    return RecurrentPPO(
        "MlpLstmPolicy",
        envs,
        learning_rate=schedule(settings.learning_rate),
        clip_range=schedule(settings.clip_range),
        n_steps=settings.n_steps,
        batch_size=settings.batch_size,
        n_epochs=settings.n_epochs,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
        ent_coef=settings.ent_coef,
        vf_coef=settings.vf_coef,
        max_grad_norm=settings.max_grad_norm,
        use_sde=settings.use_sde,
        sde_sample_freq=settings.sde_sample_freq,
        policy_kwargs=policy,
        seed=seed,
        device="cpu",
    )


def learn(model: Any, env_steps: int) -> list[tuple[int, float | None]]:
    """Trains a model.

    Args:
        model: see ``make_model``.
        env_steps: training ends with the first iteration that reaches so many.

    Returns:
        After each iteration's steps: how many have been taken, and the mean raw return of the last 100 episodes;
        ``None``: none has ended.
    """
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]

    rows: list[tuple[int, float | None]] = []

    class Recorder(BaseCallback):
        """Records returns as the monitors see them, below the normalisation."""

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            returns = [float(episode["r"]) for episode in self.model.ep_info_buffer or ()]
            rows.append((int(self.num_timesteps), float(np.mean(returns)) if returns else None))

    model.learn(env_steps, callback=Recorder())
    return rows


def evaluate(model: Any, config: EnvConfig, num_episodes: int, *, deterministic: bool) -> list[float]:
    """Plays episodes with a trained model, as the zoo does: with the normaliser of training, which stays as it is.

    Returns:
        Raw returns.
    """
    from stable_baselines3.common.evaluation import evaluate_policy  # pyright: ignore[reportMissingImports]

    envs = make_envs(config, min(num_episodes, _NUM_EVALUATED), model.gamma)
    try:
        envs.training, envs.norm_reward = False, False
        envs.obs_rms = model.get_vec_normalize_env().obs_rms
        envs.seed(_EVALUATION_SEED)
        returns, _ = evaluate_policy(
            model, envs, n_eval_episodes=num_episodes, deterministic=deterministic, return_episode_rewards=True
        )
    finally:
        envs.close()
    return [float(value) for value in np.asarray(returns)]


def run(
    config: EnvConfig, settings: SB3Settings, *, seed: int, env_steps: int, episodes: int, deterministic: bool
) -> dict[str, Any]:
    """Trains and evaluates.

    Args:
        config: the environment; in training a fault ends the run.
        settings: how it learns.
        seed: of weights, actions and environments.
        env_steps: how long it learns.
        episodes: of the evaluation.
        deterministic: whether it takes the most probable actions.

    Returns:
        ``rows``, see ``learn``; ``seconds`` of training; ``returns`` of the evaluation.
    """
    config = replace(config, tolerate_faults=False)
    envs = make_envs(config, settings.n_envs, settings.gamma)
    model = make_model(envs, settings, seed)
    started = time.perf_counter()
    rows = learn(model, env_steps)
    seconds = time.perf_counter() - started
    returns = evaluate(model, config, episodes, deterministic=deterministic)
    envs.close()
    return {"rows": rows, "seconds": seconds, "returns": returns}
