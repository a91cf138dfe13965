"""Mazes: the route from the red pixel to the green one in an image, as moves."""

from dataclasses import replace

from ctm_rl.agents.experiments.answering import AnsweringExperiment, HeldOutSettings, LearningSettings, TaskConfig
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import AnswerConfig

MAZE = "ctm_rl.envs:ctm_rl/Maze-v0"
_WORDS = ("steps", "whole routes")


def mazes() -> AnsweringExperiment:
    """Routes through mazes of 9 pixels, without position encoding, small enough for two CPU cores."""
    return AnsweringExperiment(
        name="mazes",
        env=TaskConfig(id=MAZE, kwargs={"size": 9, "route_length": 30}, words=_WORDS),
        model=AnswerConfig(
            encoder="resnet18-1",
            num_neurons=128,
            history_length=10,
            num_ticks=16,
            nlm_hidden_dim=8,
            feature_dim=64,
            num_heads=4,
            pairing="random-pairing",
            num_output_sync_neurons=64,
            num_action_sync_neurons=64,
            num_baseline_layers=2,
        ),
        learning=LearningSettings(loss="route", batch_size=64, lr=1e-3, num_warmup_steps=200, max_grad_norm=1.0),
        budget=BudgetConfig(env_steps=64 * 11_000),
        held_out=HeldOutSettings(num_samples=1024),
        num_threads=2,
    )


def mazes_19() -> AnsweringExperiment:
    """Routes through mazes of 19 pixels as published: 1,024 neurons, 50 ticks."""
    base = mazes()
    return replace(
        base,
        name="mazes-19",
        env=TaskConfig(id=MAZE, kwargs={"size": 19, "route_length": 50}, words=_WORDS),
        model=replace(
            base.model,
            num_neurons=1024,
            history_length=25,
            num_ticks=50,
            synapse_depth=8,
            nlm_hidden_dim=32,
            feature_dim=256,
            dropout=0.1,
            num_output_sync_neurons=128,
            num_action_sync_neurons=128,
        ),
        learning=LearningSettings(loss="route", batch_size=64, lr=1e-4, num_warmup_steps=10_000),
        budget=BudgetConfig(env_steps=64 * 100_000),
        held_out=HeldOutSettings(),
        num_threads=1,
    )


def mazes_39() -> AnsweringExperiment:
    """Routes through mazes of 39 pixels as published: 2,048 neurons, 75 ticks."""
    base = mazes_19()
    return replace(
        base,
        name="mazes-39",
        env=TaskConfig(id=MAZE, kwargs={"size": 39, "route_length": 100}, words=_WORDS),
        model=replace(
            base.model,
            encoder="resnet34-2",
            num_neurons=2048,
            num_ticks=75,
            feature_dim=512,
            num_heads=16,
            pairing="first-last",
            num_output_sync_neurons=64,
            num_action_sync_neurons=32,
        ),
        budget=BudgetConfig(env_steps=64 * 1_000_000),
    )
