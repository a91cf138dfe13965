"""Cumulative parity: whether each prefix of a sequence has an odd number of -1."""

from dataclasses import replace

from ctm_rl.agents.experiments.answering import (
    AnsweringExperiment,
    BanditSettings,
    HeldOutSettings,
    LearningSettings,
    TaskConfig,
)
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import AnswerConfig

PARITY = "ctm_rl.envs:ctm_rl/Parity-v0"
_WORDS = ("bits", "whole sequences")


def parity() -> AnsweringExperiment:
    """Parity of every prefix of 16 values, small enough for two CPU cores."""
    return AnsweringExperiment(
        name="parity",
        env=TaskConfig(id=PARITY, kwargs={"length": 16}, words=_WORDS),
        model=AnswerConfig(
            encoder="parity",
            positions="rotational-1d",
            num_neurons=128,
            history_length=10,
            num_ticks=10,  # positions are learned one after the other; twenty ticks only cost more
            nlm_hidden_dim=8,
            feature_dim=64,
            num_heads=4,
            pairing="random",
            num_output_sync_neurons=32,
            num_action_sync_neurons=32,
        ),
        learning=LearningSettings(batch_size=64, lr=1e-3, num_warmup_steps=200, max_grad_norm=1.0),
        budget=BudgetConfig(env_steps=64 * 12_000),
        held_out=HeldOutSettings(num_samples=1024),
    )


def parity_64() -> AnsweringExperiment:
    """Parity of every prefix of 64 values as published: 1,024 neurons, 75 ticks."""
    base = parity()
    return replace(
        base,
        name="parity-64",
        env=TaskConfig(id=PARITY, kwargs={"length": 64}, words=_WORDS),
        model=replace(
            base.model,
            num_neurons=1024,
            history_length=25,
            num_ticks=75,
            nlm_hidden_dim=16,
            feature_dim=512,
            num_heads=8,
        ),
        learning=LearningSettings(batch_size=64, lr=1e-4, num_warmup_steps=500, clip_quantile=0.9),
        budget=BudgetConfig(env_steps=64 * 200_000),
        held_out=HeldOutSettings(),
    )


def parity_bandit() -> AnsweringExperiment:
    """Parity of every prefix of 8 values, learned from the share of right answers alone: a bandit."""
    base = parity()
    return replace(
        base,
        name="parity-bandit",
        env=TaskConfig(id=PARITY, kwargs={"length": 8}, words=_WORDS),
        model=replace(
            base.model,
            num_neurons=64,
            history_length=8,
            num_ticks=8,
            nlm_hidden_dim=4,
            feature_dim=32,
            num_output_sync_neurons=16,
            num_action_sync_neurons=16,
            # more sequences are right after as many samples, see docs/results/parity.md
            use_first_order=True,
        ),
        signal="reward",
        learning=LearningSettings(
            batch_size=128, num_steps_per_iteration=4, lr=3e-3, num_warmup_steps=50, max_grad_norm=0.5
        ),
        # Positions are learned one after the other: entropy keeps later ones from being decided by chance before.
        bandit=BanditSettings(entropy_coefficient=0.1),
        budget=BudgetConfig(env_steps=128 * 8000),
        held_out=HeldOutSettings(num_samples=1024, num_iterations=25),
    )
