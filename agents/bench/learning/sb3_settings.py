"""The settings with which sb3-contrib's RecurrentPPO learns each task.

Source: hyperparams/ppo_lstm.yml and ppo.yml of rl-baselines3-zoo 2.8, whose names are kept: CartPoleNoVel-v1,
PendulumNoVel-v1, MountainCarContinuousNoVel-v0 and Acrobot-v1 of the former, the settings of MiniGrid of the latter
with the recurrent policy of CartPoleNoVel. The zoo has none for POPGym, nor for tasks of others: these get MiniGrid's.
Everything else has the library's default.
"""

from dataclasses import dataclass, field
from typing import Any


def _policy() -> dict[str, Any]:
    """The zoo's recurrent policy: an LSTM of 64 each for policy and value, a layer of 64 after each."""
    return {
        "ortho_init": False,
        "activation_fn": "ReLU",
        "lstm_hidden_size": 64,
        "enable_critic_lstm": True,
        "net_arch": {"pi": [64], "vf": [64]},
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class SB3Settings:
    """How RecurrentPPO learns a task; observations and rewards are normalised, with ``gamma``."""

    n_envs: int = 8
    """Environments, stepped in turn."""
    n_steps: int = 128
    """Steps of each environment in one iteration."""
    batch_size: int = 64
    """Steps of a minibatch."""
    n_epochs: int = 10
    """Passes over each iteration's steps."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    learning_rate: float = 2.5e-4
    """Adam's learning rate, at the start."""
    clip_range: float = 0.2
    """How far the probability ratio may move from 1, at the start."""
    is_annealed: bool = False
    """Whether learning rate and clip range fall linearly to 0."""
    ent_coef: float = 0.0
    """Weight of the entropy."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    use_sde: bool = False
    """State-dependent exploration."""
    sde_sample_freq: int = -1
    """Steps after which its noise is drawn again; -1: with every iteration."""
    policy_kwargs: dict[str, Any] = field(default_factory=_policy)
    """Arguments of the policy; ``activation_fn`` names a class of torch.nn."""


_SETTINGS = {
    "cartpole": SB3Settings(
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gamma=0.98,
        gae_lambda=0.8,
        learning_rate=1e-3,
        is_annealed=True,
    ),
    "pendulum-no-velocity": SB3Settings(
        n_envs=4,
        n_steps=1024,
        batch_size=128,
        gamma=0.9,
        learning_rate=1e-3,
        use_sde=True,
        sde_sample_freq=4,
    ),
    "mountaincar-no-velocity": SB3Settings(
        n_steps=1024,
        batch_size=256,
        gamma=0.9999,
        gae_lambda=0.9,
        learning_rate=7.77e-5,
        clip_range=0.1,
        ent_coef=0.00429,
        vf_coef=0.19,
        max_grad_norm=5.0,
        use_sde=True,
        sde_sample_freq=8,
        policy_kwargs={
            "log_std_init": 0.0,
            "ortho_init": False,
            "lstm_hidden_size": 32,
            "enable_critic_lstm": True,
            "net_arch": {"pi": [64], "vf": [64]},
        },
    ),
    "acrobot": SB3Settings(
        n_envs=16, n_steps=256, batch_size=128, n_epochs=4, gae_lambda=0.94, learning_rate=3e-4, policy_kwargs={}
    ),
    "minigrid-fourrooms": SB3Settings(n_steps=512),
}


def settings_of(task: str) -> SB3Settings:
    """The settings for a task, by its name."""
    return _SETTINGS.get(task, SB3Settings())
