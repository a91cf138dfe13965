"""Evaluates a model that answers, on held-out samples: by tick, by certainty and by kind of question."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from ctm_rl.agents.evaluation.halting_curve import Batch, check_can_halt_answers, describe_points, halting_curve, joined
from ctm_rl.agents.experiments.answering import LossKind, TaskConfig
from ctm_rl.agents.rllib.columns import to_device
from ctm_rl.agents.run_directory.progress import describe_accuracy
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
)
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, Thought, group
from ctm_rl.models.preprocessing import model_inputs

BATCH_SIZE = 100

_OFFICIAL: dict[str, tuple[str, LossKind, tuple[str, str]]] = {
    "parity": ("ctm_rl.envs:ctm_rl/Parity-v0", "classes", ("bits", "whole sequences")),
    "sort": ("ctm_rl.envs:ctm_rl/Sorting-v0", "order", ("places", "whole lists")),
}
"""Environments, losses and words of published tasks with generated samples."""


class EvaluationTask(NamedTuple):
    """The task that a model is evaluated on."""

    env: TaskConfig
    """The environment."""
    loss: LossKind
    """The loss, which says what an answer is."""
    name: str
    """Its name in the result."""


def evaluation_task_of(official: OfficialModel) -> EvaluationTask:
    """The task that a published model was trained on.

    Raises:
        UserError: samples of this task cannot be generated.
    """
    if official.task not in _OFFICIAL:
        raise UserError(
            f"a model for {official.task} needs its data set, which an imported checkpoint does not name; "
            f"{' and '.join(_OFFICIAL)} can be evaluated, and ctm_rl.load_official returns the model in Python."
        )
    env_id, loss, words = _OFFICIAL[official.task]
    length = official.config.num_groups if official.task == "parity" else official.config.input_dim
    return EvaluationTask(TaskConfig(id=env_id, kwargs={"length": length}, words=words), loss, official.task)


def evaluate_answers(
    model: ContinuousThoughtMachine | FeedForwardModel,
    task: EvaluationTask,
    *,
    episodes: int,
    seed: int,
    device: torch.device,
    human: Tensor | None = None,
    thresholds: Sequence[float | None] = (),
    observe: Callable[[Thought, dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Evaluates a model on held-out samples.

    Args:
        model: the model.
        task: what it is evaluated on.
        episodes: how many samples; each is an episode of one step. Of a finite set, at most all of it.
        seed: the same seed makes the same samples.
        device: of the model.
        human: the share of people who chose each class, [N, C], for the samples of a finite set in their order.
        thresholds: certainties at which rows halt, each in an additional pass.
        observe: called with the answers to each batch, after each tick that answers, and with its samples, as tensors
            by the names of ``Sampler``'s columns.

    Returns:
        ``task``, ``episodes``, ``accuracy`` (share of correct elements) and ``accuracy_whole`` (share of samples with
        all elements correct), at the most certain tick, with ``accuracy_interval`` and ``accuracy_whole_interval``,
        which hold the true share with 95 %; the results of the fitting scores of ``ctm_rl.metrics``;
        for mazes ``solved_by_reapplying``, the share solved when each route continues from the end of the last one;
        with thresholds ``halting``, see ``halting_curve``.

    Raises:
        UserError: the environment cannot be made, or there are fewer human answers than samples.
    """
    started = time.perf_counter()
    sampler = Sampler(task.env, num_rows=min(episodes, BATCH_SIZE), num_steps=1, seed=0, held_out_seed=seed)
    _check_fits(model.config, sampler.spaces, task)
    episodes = sampler.count_held_out(episodes)
    if human is not None and len(human) < episodes:
        raise UserError(
            f"there are human answers for {len(human)} samples, and {episodes} are evaluated; use fewer episodes."
        )
    model = model.to(device).eval()
    if thresholds:
        check_can_halt_answers(model, task.loss)
    batches: list[Batch] = []
    scores = _scores_for(model.config, task.loss, human)
    reapply = getattr(sampler.task, "reapply", None)
    first = num_solved = 0
    for chunk in range(-(-episodes // BATCH_SIZE)):
        made = sampler.held_out(chunk, episodes)
        samples = to_device(made.as_dict(), device)
        thought = _thought(model, samples[OBSERVATIONS])
        scores.add(thought, samples, first)
        if observe is not None:
            observe(thought, samples)
        if thresholds:
            targets = samples[TARGETS]
            batches.append(Batch(*model_inputs(model.config, samples[OBSERVATIONS]), targets.reshape(len(targets), -1)))
        first += len(samples[TARGETS])
        if reapply is not None:
            num_solved += int(reapply(made.observations, lambda observed: _most_certain(model, observed)).sum())
    sampler.close()
    return {
        "episodes": episodes,
        "task": task.name,
        **({"words": list(task.env.words)} if task.env.words else {}),
        **scores.summary(),
        **({} if reapply is None else {"solved_by_reapplying": num_solved / episodes}),
        **({"halting": halting_curve(model, joined(batches), thresholds)} if thresholds else {}),
        "env_steps": episodes,
        "seconds": round(time.perf_counter() - started, 3),
        "seed": seed,
    }


def _check_fits(config: AnswerConfig, spaces: tuple[gym.Space, gym.Space], task: EvaluationTask) -> None:
    """Refuses an environment whose observations or answers do not fit the model."""
    fitted = fit_answer_config(config, *spaces, task.loss)
    names = ["num_groups", "num_classes"] + (["input_dim"] if config.encoder != "parity" else [])
    for name in names:
        given, needed = getattr(config, name), getattr(fitted, name)
        if given != needed:
            raise UserError(f"{task.env.id} with these arguments needs {name} {needed}, and the model has {given}.")


@torch.no_grad()
def _thought(model: ContinuousThoughtMachine | FeedForwardModel, observations: Any) -> Thought:
    """The predictions of the ticks that answer."""
    return model.thought(observations)


def _most_certain(model: ContinuousThoughtMachine | FeedForwardModel, observations: np.ndarray) -> np.ndarray:
    """Predicted classes at the most certain tick, [N, G]."""
    parts = np.array_split(observations, -(-len(observations) // BATCH_SIZE))
    return np.concatenate([model.answer(rows).classes.reshape(len(rows), -1) for rows in parts])


class _Scores:
    """Several scores of the same predictions.

    Args:
        parts: for each score its key in the summary (empty: merged into it), the score, and its arguments for a batch.
    """

    def __init__(self, parts: list[tuple[str, Any, Callable[..., tuple[Any, ...]]]]) -> None:
        self._parts = parts

    def add(self, thought: Thought, samples: dict[str, Any], first: int) -> None:
        """Adds one batch; ``first`` is the number of samples before it."""
        for _, score, given in self._parts:
            score.add(*given(thought, samples, first))

    def summary(self) -> dict[str, Any]:
        """The results of all scores."""
        results: dict[str, Any] = {}
        for name, score, _ in self._parts:
            results |= {name: score.summary()} if name else score.summary()
        results.pop("num_samples")
        return results


def _scores_for(config: AnswerConfig, loss: LossKind, human: Tensor | None) -> _Scores:
    """The scores that fit a task."""
    if loss == "order":
        return _Scores([("", SortingScores(), lambda t, s, _: (t.predictions, s[OBSERVATIONS], s[TARGETS]))])

    def classes(thought: Thought, samples: dict[str, Any], first: int) -> tuple[Tensor, Tensor, Tensor]:
        targets = samples[TARGETS]
        return group(thought.predictions, config.num_groups), thought.certainties, targets.reshape(len(targets), -1)

    def question(thought: Thought, samples: dict[str, Any], first: int) -> tuple[Tensor, ...]:
        observations = samples[OBSERVATIONS]
        num_operations = ((observations["question"] == -1) | (observations["question"] == -2)).sum(1)
        return *classes(thought, samples, first), observations["num_digits"], num_operations

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
    """The result as one line of text, and one more for each point of the halting curve."""
    words = result.get("words", ())
    return (
        f"{result['episodes']} samples of {result['task']}: {_describe(result, words)}, in {result['seconds']:.1f} s"
        + (f", halting after {result['ticks_mean']:.2f} ticks" if "ticks_mean" in result else "")
        + describe_points(
            result,
            lambda point: f", {_describe(point, words)}, {1e3 * point['seconds_per_sample']:.3f} ms per sample",
        )
    )


def _describe(result: dict[str, Any], words: Sequence[str]) -> str:
    """Both accuracies of a result or of a point of its halting curve."""
    elements, whole = (describe_share(result, name) for name in ("accuracy", "accuracy_whole"))
    return ", ".join(describe_accuracy(elements, whole, words))


def describe_share(result: dict[str, Any], name: str) -> str:
    """A share in percent, with its 95 % interval."""
    low, high = result[f"{name}_interval"]
    return f"{100 * result[name]:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
