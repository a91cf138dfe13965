"""Sorting: the order of numbers, emitted as one index after the other over the ticks."""

from dataclasses import replace

from ctm_rl.agents.experiments.answering import AnsweringExperiment, HeldOutSettings, LearningSettings, TaskConfig
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import AnswerConfig

SORTING = "ctm_rl.envs:ctm_rl/Sorting-v0"
_WORDS = ("places", "whole lists")


def sorting() -> AnsweringExperiment:
    """The order of 8 numbers, small enough for two CPU cores."""
    return AnsweringExperiment(
        name="sorting",
        env=TaskConfig(id=SORTING, kwargs={"length": 8}, words=_WORDS),
        model=AnswerConfig(
            encoder="none",
            num_heads=0,
            num_neurons=128,
            history_length=10,
            num_ticks=20,
            nlm_hidden_dim=4,
            pairing="random-pairing",
            num_output_sync_neurons=64,
            # What is emitted changes from tick to tick: sums over all ticks, and products alone, follow more slowly.
            use_first_order=True,
            start_decay_rate=1.0,
        ),
        # half of this rate suits an LSTM, see docs/results/sorting.md
        learning=LearningSettings(loss="order", batch_size=64, lr=1.6e-2, num_warmup_steps=200, max_grad_norm=1.0),
        budget=BudgetConfig(env_steps=64 * 12_000),
        held_out=HeldOutSettings(num_samples=1024),
    )


def sorting_30() -> AnsweringExperiment:
    """The order of 30 numbers as published: 512 neurons, 50 ticks."""
    base = sorting()
    return replace(
        base,
        name="sorting-30",
        env=TaskConfig(id=SORTING, kwargs={"length": 30}, words=_WORDS),
        model=replace(
            base.model,
            num_neurons=512,
            history_length=25,
            num_ticks=50,
            synapse_depth=4,
            num_output_sync_neurons=32,
            use_first_order=False,
            start_decay_rate=0.0,
        ),
        learning=LearningSettings(loss="order", batch_size=32, lr=1e-3, num_warmup_steps=5000),
        budget=BudgetConfig(env_steps=32 * 100_000),
        held_out=HeldOutSettings(),
    )
