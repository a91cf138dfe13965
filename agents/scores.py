"""How right the answers to one batch are, whatever the loss they were learned with."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.agents.supervised_experiment import LearningSettings, LossKind
from ctm_rl.config import ThinkerConfig
from ctm_rl.losses import answer_loss, group, sorting_loss
from ctm_rl.metrics import decode_sorting
from ctm_rl.models import Thought


def loss_of(
    settings: LearningSettings, config: ThinkerConfig, thought: Thought, targets: Int[Tensor, "B ..."]
) -> Float[Tensor, ""]:
    """The loss that the settings name.

    Args:
        settings: say which, and whether the most certain tick counts.
        config: of the model.
        thought: what it answered.
        targets: the right answers.

    Returns:
        A scalar.
    """
    thought = thought._replace(predictions=thought.predictions.float(), certainties=thought.certainties.float())
    if settings.loss == "order":
        return sorting_loss(thought.predictions, targets)
    return answer_loss(
        config,
        thought,
        targets,
        use_curriculum=settings.loss == "route",
        use_most_certain=settings.use_most_certain,
    )


class Tally(NamedTuple):
    """Sums over samples; tallies of parts add up to that of the whole."""

    num_samples: int
    elements: float
    """Sum over samples of the share of elements that are right."""
    whole: float
    """How many samples are right in every element."""
    loss: float
    """Sum over samples of the loss."""

    @staticmethod
    def sum(tallies: Iterable["Tally"]) -> "Tally":
        """Adds tallies up."""
        return Tally(*(sum(values) for values in zip(*tallies, strict=True)))


def tally(settings: LearningSettings, config: ThinkerConfig, thought: Thought, targets: Int[Tensor, "B ..."]) -> Tally:
    """Counts what is right in a batch; classes are read at each sample's most certain tick.

    Args:
        settings: say what kind of answer it is.
        config: of the model.
        thought: what it answered.
        targets: the right answers.

    Returns:
        The sums.
    """
    is_right = right_elements(settings.loss, config, thought, targets)
    loss = float(loss_of(settings, config, thought, targets)) * len(is_right)
    return Tally(len(is_right), float(is_right.float().mean(1).sum()), float(is_right.all(1).sum()), loss)


def right_elements(kind: LossKind, config: ThinkerConfig, thought: Thought, targets: Int[Tensor, "B ..."]) -> Tensor:
    """Which elements of each answer are right, [B, G]; with an order, what was not emitted is wrong."""
    targets = targets.reshape(len(targets), -1)
    if kind == "order":
        length = targets.shape[1]
        emitted = torch.full((len(targets), length), -1)
        for row, order in zip(emitted, decode_sorting(thought.predictions), strict=True):
            kept = torch.tensor(order[:length], dtype=torch.long)
            row[: len(kept)] = kept
            if len(order) > length:
                row[-1] = -1
        return emitted == targets.cpu()
    predictions, certainties = thought.predictions, thought.certainties
    if config.num_answer_ticks:
        predictions, certainties = (part[..., -config.num_answer_ticks :] for part in (predictions, certainties))
    answers = group(predictions, config.num_groups)
    chosen = certainties.argmax(1)[:, None, None, None].expand(-1, *answers.shape[1:3], 1)
    return answers.gather(3, chosen).squeeze(3).argmax(2) == targets
