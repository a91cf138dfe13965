"""Evaluates a model that answers, on held-out samples: by tick, by certainty and by what was asked."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from ctm_rl.agents.evaluation.halting_curve import Batch, check_can_halt_answers, halting_curve, joined, threshold_name
from ctm_rl.agents.experiments.answering import LossKind, TaskConfig
from ctm_rl.agents.rllib.columns import to_device
from ctm_rl.agents.supervised.module import fit_answer_config
from ctm_rl.agents.supervised.sampler import OBSERVATIONS, TARGETS, Sampler
from ctm_rl.checkpoints.published import OfficialModel
from ctm_rl.config import AnswerConfig
from ctm_rl.errors import UserError
from ctm_rl.metrics import (
    AnswerScores,
    CalibrationScores,
    HumanScores,
    PositionScores,
    QuestionScores,
    RouteScores,
    SortingScores,
    StoppingScores,
    at_tick,
    most_certain_tick,
)
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, Thought, group
from ctm_rl.models.preprocessing import model_inputs

BATCH_SIZE = 100

_OFFICIAL: dict[str, tuple[str, LossKind]] = {
    "parity": ("ctm_rl.envs:ctm_rl/Parity-v0", "classes"),
    "sort": ("ctm_rl.envs:ctm_rl/Sorting-v0", "order"),
}
"""Environments of published tasks whose samples are made, not read from a data set, and how they are answered."""


class Asked(NamedTuple):
    """What a model is asked."""

    env: TaskConfig
    """The environment."""
    loss: LossKind
    """What kind of answer it is."""
    name: str
    """What the result calls it."""


def asked_of(official: OfficialModel) -> Asked:
    """What a published model was trained to answer.

    Raises:
        UserError: samples of this task cannot be made here.
    """
    if official.task not in _OFFICIAL:
        raise UserError(
            f"a model for {official.task} is evaluated on its data set, which is not known of an imported one; "
            f"{' and '.join(_OFFICIAL)} can be evaluated, and ctm_rl.load_official gives the model in Python."
        )
    env_id, loss = _OFFICIAL[official.task]
    length = official.config.num_groups if official.task == "parity" else official.config.input_dim
    return Asked(TaskConfig(id=env_id, kwargs={"length": length}), loss, official.task)


def evaluate_answers(
    model: ContinuousThoughtMachine | FeedForwardModel,
    asked: Asked,
    *,
    episodes: int,
    seed: int,
    device: torch.device,
    human: Tensor | None = None,
    thresholds: Sequence[float | None] = (),
) -> dict[str, Any]:
    """Lets a model answer held-out samples.

    Args:
        model: the model.
        asked: what it is asked.
        episodes: how many samples; each is an episode of one step. Of a finite set, at most all of it.
        seed: the same seed makes the same samples.
        device: where the model computes.
        human: the share of people who chose each class, [N, C], for the samples of a finite set in their order.
        thresholds: certainties at which rows are to halt as well, each in a pass of its own.

    Returns:
        ``task``, ``episodes``, ``accuracy`` (share of right elements) and ``accuracy_whole`` (of samples right
        throughout), at the most certain tick; what the scores of ``ctm_rl.metrics`` tell that fit the task; of mazes
        ``solved_by_reapplying``, the share solved when each route goes on from where the last one led; with thresholds
        ``halting``, see ``halting_curve``.

    Raises:
        UserError: the environment cannot be made, or there are fewer human answers than samples.
    """
    started = time.perf_counter()
    sampler = Sampler(asked.env, num_rows=min(episodes, BATCH_SIZE), num_steps=1, seed=0, held_out_seed=seed)
    _check_fits(model.config, sampler.spaces, asked)
    episodes = sampler.count_held_out(episodes)
    if human is not None and len(human) < episodes:
        raise UserError(f"there are human answers for {len(human)} samples, and {episodes} are to be answered.")
    model = model.to(device).eval()
    if thresholds:
        check_can_halt_answers(model, asked.loss)
    batches: list[Batch] = []
    scores = _scores_for(model.config, asked.loss, human)
    reapply = getattr(sampler.task, "reapply", None)
    first = num_solved = 0
    for chunk in range(-(-episodes // BATCH_SIZE)):
        made = sampler.held_out(chunk, episodes)
        samples = to_device(made.as_dict(), device)
        scores.add(_answer(model, samples[OBSERVATIONS]), samples, first)
        if thresholds:
            targets = samples[TARGETS]
            batches.append(Batch(*model_inputs(model.config, samples[OBSERVATIONS]), targets.reshape(len(targets), -1)))
        first += len(samples[TARGETS])
        if reapply is not None:
            num_solved += int(reapply(made.observations, lambda shown: _most_certain(model, shown, device)).sum())
    sampler.close()
    return {
        "episodes": episodes,
        "task": asked.name,
        **scores.summary(),
        **({} if reapply is None else {"solved_by_reapplying": num_solved / episodes}),
        **({"halting": halting_curve(model, joined(batches), thresholds)} if thresholds else {}),
        "env_steps": episodes,
        "seconds": round(time.perf_counter() - started, 3),
        "seed": seed,
    }


def _check_fits(config: AnswerConfig, spaces: tuple[gym.Space, gym.Space], asked: Asked) -> None:
    """Refuses an environment that shows, or asks for, something else than the model reads and answers."""
    fitted = fit_answer_config(config, *spaces, asked.loss)
    names = ["num_groups", "num_classes"] + (["input_dim"] if config.encoder != "parity" else [])
    for name in names:
        given, needed = getattr(config, name), getattr(fitted, name)
        if given != needed:
            raise UserError(f"{asked.env.id} as it is asked for needs {name} {needed}, and the model has {given}.")


@torch.no_grad()
def _answer(model: ContinuousThoughtMachine | FeedForwardModel, shown: Any) -> Thought:
    """The ticks that answer."""
    inputs, question = model_inputs(model.config, shown)
    thought = model(inputs) if question is None else model(inputs, question)
    if not model.config.num_answer_ticks:
        return thought
    last = slice(-model.config.num_answer_ticks, None)
    return Thought(thought.predictions[..., last], thought.certainties[:, last])


def _most_certain(
    model: ContinuousThoughtMachine | FeedForwardModel, shown: np.ndarray, device: torch.device
) -> np.ndarray:
    """Answers read at the most certain tick, [N, G]."""
    parts = []
    for rows in np.array_split(shown, -(-len(shown) // BATCH_SIZE)):
        thought = _answer(model, torch.from_numpy(rows).to(device))
        answers = at_tick(group(thought.predictions, model.config.num_groups), most_certain_tick(thought.certainties))
        parts.append(answers.argmax(2).cpu().numpy())
    return np.concatenate(parts)


class _Scores:
    """Several scores of the same answers.

    Args:
        parts: for each score its place in the summary (empty: at the top), the score, and what it is given of a batch.
    """

    def __init__(self, parts: list[tuple[str, Any, Callable[..., tuple[Any, ...]]]]) -> None:
        self._parts = parts

    def add(self, thought: Thought, samples: dict[str, Any], first: int) -> None:
        """Counts one batch, whose samples are those from ``first`` on."""
        for _, score, given in self._parts:
            score.add(*given(thought, samples, first))

    def summary(self) -> dict[str, Any]:
        """What all of them tell."""
        told: dict[str, Any] = {}
        for name, score, _ in self._parts:
            told |= {name: score.summary()} if name else score.summary()
        told.pop("num_samples")
        return told


def _scores_for(config: AnswerConfig, loss: LossKind, human: Tensor | None) -> _Scores:
    """The scores that fit a task."""
    if loss == "order":
        return _Scores([("", SortingScores(), lambda t, s, _: (t.predictions, s[OBSERVATIONS], s[TARGETS]))])

    def classes(thought: Thought, samples: dict[str, Any], first: int) -> tuple[Tensor, Tensor, Tensor]:
        targets = samples[TARGETS]
        return group(thought.predictions, config.num_groups), thought.certainties, targets.reshape(len(targets), -1)

    def question(thought: Thought, samples: dict[str, Any], first: int) -> tuple[Tensor, ...]:
        shown = samples[OBSERVATIONS]
        num_operations = ((shown["question"] == -1) | (shown["question"] == -2)).sum(1)
        return *classes(thought, samples, first), shown["num_digits"], num_operations

    def people(thought: Thought, samples: dict[str, Any], first: int) -> tuple[Tensor, ...]:
        assert human is not None
        return thought.predictions, thought.certainties, human[first : first + len(samples[TARGETS])]

    parts: list[tuple[str, Any, Any]] = [
        ("", AnswerScores(), classes),
        ("stopping", StoppingScores(), classes),
        ("calibration", CalibrationScores(), classes),
    ]
    if loss == "route":
        parts.append(("routes", RouteScores(), classes))
    if config.encoder == "parity":
        parts.append(("", PositionScores(), classes))
    if config.encoder == "digits":
        parts.append(("questions", QuestionScores(), question))
    if human is not None:
        parts.append(("human", HumanScores(), people))
    return _Scores(parts)


def describe_answers(result: dict[str, Any]) -> str:
    """One line for a person."""
    return (
        f"{result['episodes']} samples of {result['task']}: {100 * result['accuracy']:.1f} % of elements right, "
        f"{100 * result['accuracy_whole']:.1f} % of samples throughout, in {result['seconds']:.1f} s"
        + (f", halting after {result['ticks_mean']:.2f} ticks" if "ticks_mean" in result else "")
        + "".join(map(_describe_halting, result.get("halting", ())))
    )


def _describe_halting(point: dict[str, Any]) -> str:
    """One more line for each certainty that rows halted at."""
    name = threshold_name(point["threshold"])
    return (
        f"\n  {name}: {point['ticks_mean']:.2f} ticks, {100 * point['accuracy']:.1f} % of elements right, "
        f"{100 * point['accuracy_whole']:.1f} % of samples throughout, "
        f"{1e3 * point['seconds_per_sample']:.3f} ms a sample"
    )
