"""Evaluates a model that answers instead of acting: on fresh samples of the single-step environment of its task."""

import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from ctm_rl.errors import UserError
from ctm_rl.interop import OfficialModel
from ctm_rl.losses import group
from ctm_rl.metrics import accuracy, decode_sorting

ENVIRONMENTS = {"parity": "ctm_rl.envs:ctm_rl/Parity-v0", "sort": "ctm_rl.envs:ctm_rl/Sorting-v0"}
"""Tasks whose samples are made, not read from a data set."""
BATCH_SIZE = 100


def evaluate_answers(official: OfficialModel, episodes: int, seed: int, device: torch.device) -> dict[str, Any]:
    """Lets a published model answer ``episodes`` fresh samples.

    Args:
        official: the model.
        episodes: how many samples; each is an episode of one step.
        seed: the same seed draws the same samples.
        device: where the model computes.

    Returns:
        ``episodes``, the task, ``accuracy`` (share of right elements; for classes at the most certain tick),
        ``accuracy_whole`` (share of samples right throughout), ``accuracy_by_tick`` (classes only), mean certainty of
        the last tick, ``env_steps``, ``seconds`` and the seed.

    Raises:
        UserError: samples of this task cannot be made here.
    """
    if official.task not in ENVIRONMENTS:
        raise UserError(
            f"a model for {official.task} is evaluated on its data set, which this version does not read; "
            f"{' and '.join(ENVIRONMENTS)} can be evaluated, and ctm_rl.load_official gives the model in Python."
        )
    started = time.perf_counter()
    inputs, targets = _draw(official, episodes, seed)
    official.model.to(device)
    with torch.no_grad():
        thoughts = [official.model(batch.to(device)) for batch in inputs.split(BATCH_SIZE)]
    predictions = torch.cat([thought.predictions for thought in thoughts]).cpu()
    certainties = torch.cat([thought.certainties for thought in thoughts]).cpu()
    if official.task == "sort":
        scores = _score_order(predictions, targets)
    else:
        right = accuracy(group(predictions, official.config.num_groups), certainties, targets)
        scores = {
            "accuracy": right.most_certain,
            "accuracy_whole": right.whole,
            "accuracy_by_tick": [round(share, 6) for share in right.by_tick.tolist()],
        }
    return {
        "episodes": episodes,
        "task": official.task,
        **scores,
        "certainty_mean": float(certainties[:, -1].mean()),
        "env_steps": episodes,
        "seconds": round(time.perf_counter() - started, 3),
        "iteration": 0,
        "seed": seed,
    }


def _draw(official: OfficialModel, episodes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs [N, ...] and their right answers [N, G] from the task's environment."""
    length = official.config.num_groups if official.task == "parity" else official.config.input_dim
    env = gym.make(ENVIRONMENTS[official.task], length=length, disable_env_checker=True)
    samples = [env.reset(seed=seed if index == 0 else None) for index in range(episodes)]
    env.close()
    inputs = np.stack([observation for observation, _ in samples])
    targets = np.stack([info["target"] for _, info in samples])
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def _score_order(predictions: Tensor, targets: Tensor) -> dict[str, float]:
    """Compares what was emitted over the ticks with the order; what is missing is wrong."""
    whole, elements = [], []
    for emitted, target in zip(decode_sorting(predictions), targets.tolist(), strict=True):
        whole.append(emitted == target)
        elements.append(sum(one == two for one, two in zip(emitted, target, strict=False)) / len(target))
    return {"accuracy": float(np.mean(elements)), "accuracy_whole": float(np.mean(whole))}


def describe_answers(result: dict[str, Any]) -> str:
    """One line for a person."""
    return (
        f"{result['episodes']} samples of {result['task']}: {100 * result['accuracy']:.1f} % of elements right, "
        f"{100 * result['accuracy_whole']:.1f} % of samples throughout, in {result['seconds']:.1f} s"
    )
