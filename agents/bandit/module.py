"""A model that answers and is told no more than how good its answer was: a contextual bandit, as an RLModule."""

from typing import Any, NamedTuple

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from ctm_rl.agents.supervised.module import AnsweringModule
from ctm_rl.agents.supervised.scoring import most_certain_answer
from ctm_rl.models.answering import Thought
from ctm_rl.spaces.actions import Chosen, chosen

LOGITS = "logits"
VALUES = "values"
"""What ``forward_train`` gives: of the answers at the most certain tick, [B, G, C], and rewards to expect, [B]."""


class Answered(NamedTuple):
    """Answers that were drawn, B of them."""

    actions: Tensor
    """A class for each of the G elements of an answer, [B, G]."""
    logp: Tensor
    """Log-probability of the whole answer, [B]."""
    values: Tensor
    """The reward that was to be expected before it was drawn, [B]."""


class BanditModule(AnsweringModule):
    """A model that draws the elements of its answer, each on its own, from what it thinks at its most certain tick.

    The reward to be expected is a linear function of how decided each element is, ``sum_c p_c^2``: the chance that a
    drawn class is right where the probabilities are. It sends no gradient into the model.
    """

    def setup(self) -> None:
        """Builds the model and the baseline; RLlib calls this once, from the constructor."""
        super().setup()
        self.value = nn.Linear(self.model.config.num_groups, 1)

    def answer(self, shown: Any, generator: torch.Generator) -> Answered:
        """Draws the answers to a batch of observations.

        Args:
            shown: the observations, [B, ...].
            generator: of the draws, on the model's device.

        Returns:
            The answers.
        """
        outputs = self._forward({Columns.OBS: shown})
        logits = outputs[LOGITS]
        drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator)
        actions = drawn.view(logits.shape[:2])
        return Answered(actions, chosen_whole(logits, actions).logp, outputs[VALUES])

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Thinks; gives the logits at the most certain tick, and the values."""
        thought = self.think(batch[Columns.OBS])
        thought = Thought(thought.predictions.float(), thought.certainties.float())
        logits = most_certain_answer(self.model.config, thought)
        decided = logits.detach().softmax(-1).square().sum(-1)  # [B, G]
        with torch.autocast(logits.device.type, enabled=False):
            return {LOGITS: logits, VALUES: self.value(decided).squeeze(-1)}


def chosen_whole(logits: Tensor, actions: Tensor) -> Chosen:
    """Log-probability and entropy of whole answers: sums over their elements.

    Args:
        logits: [B, G, C].
        actions: [B, G].

    Returns:
        [B] each.
    """
    elements = chosen(logits, actions)
    return Chosen(elements.logp.sum(1), elements.entropy.sum(1))
