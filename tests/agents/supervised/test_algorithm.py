"""Results of supervised learning as users of RLlib read them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from ctm_rl.agents.experiments.answering import HeldOutSettings, LearningSettings, TaskConfig
from ctm_rl.agents.supervised.config import SupervisedConfig
from ctm_rl.agents.supervised.module import AnsweringModule
from ctm_rl.agents.supervised.sampler import Sampler
from ctm_rl.config import AnswerConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
LENGTH, BATCH = 5, 8
MODEL = AnswerConfig(
    encoder="parity", num_neurons=12, history_length=4, num_ticks=3, feature_dim=8, num_heads=2, num_groups=LENGTH,
    num_classes=2, input_dim=LENGTH, num_output_sync_neurons=5, num_action_sync_neurons=4,
)  # fmt: skip


def config() -> SupervisedConfig:
    """Two optimiser steps an iteration, so small that the second one answers as the first."""
    learning = LearningSettings(batch_size=BATCH, num_steps_per_iteration=2, lr=1e-12)
    return (
        SupervisedConfig()
        .environment("ctm_rl.envs:ctm_rl/Parity-v0", env_config={"length": LENGTH})
        .training(learning=learning, held_out=HeldOutSettings(num_samples=30, seed=2))
        .rl_module(rl_module_spec=RLModuleSpec(module_class=AnsweringModule, model_config=dataclasses.asdict(MODEL)))
        .debugging(seed=3)
    )


@pytest.mark.usefixtures("ray_session")
def test_results_hold_the_accuracy_of_batches_and_of_held_out_samples() -> None:
    seen: list[dict[str, Any]] = []
    algorithm = (
        config()
        .evaluation(evaluation_interval=2)
        .callbacks(on_evaluate_end=lambda *, evaluation_metrics, **_: seen.append(evaluation_metrics))
        .build_algo()
    )
    try:
        results = [algorithm.train(), algorithm.train()]
        again = algorithm.evaluate()
        learner: Any = algorithm.learner_group
        model = learner._learner.module["default_policy"].model.eval()
    finally:
        algorithm.stop()
    task = TaskConfig(id="ctm_rl.envs:ctm_rl/Parity-v0", kwargs={"length": LENGTH})
    sampler = Sampler(task, num_rows=BATCH, num_steps=2, seed=3, held_out_seed=2)
    for iteration, result in enumerate(results):
        samples = sampler.fragment(iteration, 0)
        expected = (model.answer(samples.observations).classes == samples.targets).mean()
        assert result["learners"]["default_policy"]["accuracy"] == pytest.approx(expected)
    held_out = [sampler.held_out(chunk, 30) for chunk in range(4)]
    right = np.concatenate([model.answer(part.observations).classes == part.targets for part in held_out])
    assert "evaluation" not in results[0]
    for result in (results[1]["evaluation"], again):
        assert result["accuracy"] == pytest.approx(right.mean())
        assert result["accuracy_whole"] == pytest.approx(right.all(1).mean())
        assert (result["num_samples"], result["held_out_loss"] > 0) == (30, True)
    assert [metrics["accuracy"] for metrics in seen] == [again["accuracy"]] * 2
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("option", ["evaluation_parallel_to_training", "evaluation_num_env_runners"])
def test_options_of_evaluation_without_effect_are_refused(option: str) -> None:
    with pytest.raises(
        ValueError, match="have no effect: the learners evaluate held-out samples between two iterations"
    ):
        config().evaluation(**{option: 1}).validate()  # pyright: ignore[reportArgumentType]
