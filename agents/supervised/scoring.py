"""The loss and the accuracy of the answers to one batch."""

from collections.abc import Iterable
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from ctm_rl.agents.experiments.answering import LearningSettings
from ctm_rl.config import AnswerConfig
from ctm_rl.metrics import emissions
from ctm_rl.models.answers import Thought, most_certain_answer
from ctm_rl.models.losses import answer_loss, sorting_loss


def loss_of(
    settings: LearningSettings, config: AnswerConfig, thought: Thought, targets: Int[Tensor, "B ..."]
) -> Float[Tensor, ""]:
    """The loss that the settings name.

    Args:
        settings: the loss, and whether the most certain tick counts.
        config: of the model.
        thought: the model's answers.
        targets: the right answers.

    Returns:
        A scalar.
    """
    thought = thought._replace(predictions=thought.predictions.float(), certainties=thought.certainties.float())
    if settings.loss == "order":
        return sorting_loss(thought.predictions, targets)
    if settings.halt_certainty is not None:
        # among equally certain ticks the first counts
        thought = thought._replace(certainties=thought.certainties.clamp(max=settings.halt_certainty))
    return answer_loss(
        config,
        thought,
        targets,
        use_curriculum=settings.loss == "route",
        use_most_certain=_uses_most_certain(settings, config),
    )


def _uses_most_certain(settings: LearningSettings, config: AnswerConfig) -> bool:
    """Whether the loss uses the most certain tick besides the best one; otherwise it uses the last tick."""
    if settings.halt_certainty is not None:
        return True
    if settings.use_most_certain is not None:
        return settings.use_most_certain
    is_image = config.num_groups == 1 and config.encoder not in ("digits", "parity", "none")
    return config.kind == "ctm" or is_image


class Right(NamedTuple):
    """What is right in the answers to B samples."""

    elements: Bool[Tensor, "B G"]
    """Each element of an answer."""
    whole: Bool[Tensor, " B"]
    """All elements of it."""


class Tally(NamedTuple):
    """Sums over samples; tallies of parts add up to that of the whole."""

    num_samples: int
    elements: float
    """Sum over samples of the share of elements that are right."""
    whole: float
    """Number of samples that are right in every element."""
    loss: float
    """Sum over samples of the loss."""

    def means(self) -> dict[str, float]:
        """The means over the samples, by the names that they have in metrics."""
        sums = {"accuracy": self.elements, "accuracy_whole": self.whole, "held_out_loss": self.loss}
        return {name: total / self.num_samples for name, total in sums.items()}

    @staticmethod
    def sum(tallies: Iterable["Tally"]) -> "Tally":
        """Adds tallies up."""
        return Tally(*(sum(values) for values in zip(*tallies, strict=True)))


def tally(settings: LearningSettings, config: AnswerConfig, thought: Thought, targets: Int[Tensor, "B ..."]) -> Tally:
    """Counts right answers in a batch; classes are read at each sample's most certain tick.

    Args:
        settings: the loss, which determines the kind of answer.
        config: of the model.
        thought: the model's answers.
        targets: the right answers.

    Returns:
        The sums.
    """
    loss = float(loss_of(settings, config, thought, targets)) * len(targets)
    right = find_right(settings, config, thought, targets)
    elements = float(right.elements.float().mean(1).sum())
    return Tally(len(targets), elements, float(right.whole.sum()), loss)


def find_right(
    settings: LearningSettings, config: AnswerConfig, thought: Thought, targets: Int[Tensor, "B ..."]
) -> Right:
    """Compares answers with the right ones, see ``tally``; without a transfer from the device."""
    targets = targets.reshape(len(targets), -1)
    if settings.loss == "order":
        indices, _, counts = emissions(thought.predictions)
        length = targets.shape[1]
        is_right = pad(indices, (0, length), value=-1)[:, :length] == targets
        return Right(is_right, is_right.all(1) & (counts == length))
    is_right = most_certain_answer(config, thought).argmax(2) == targets
    return Right(is_right, is_right.all(1))
