"""The RLModule of contextual bandits: a model that answers, with a baseline of the reward."""

from typing import Any, NamedTuple

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from ctm_rl.agents.rllib.divergence import explain_samples
from ctm_rl.agents.supervised.module import AnsweringModule
from ctm_rl.errors import Diverged
from ctm_rl.models.answers import Thought, most_certain_answer
from ctm_rl.spaces.actions import Chosen, chosen

LOGITS = "logits"
VALUES = "values"
"""Outputs of ``forward_train``: logits at the most certain tick, [B, G, C], and expected rewards, [B]."""


class SampledAnswers(NamedTuple):
    """Sampled answers of B rows."""

    actions: Tensor
    """A class for each of the G elements of an answer, [B, G]."""
    logp: Tensor
    """Log-probability of the whole answer, [B]."""
    values: Tensor
    """The expected reward before sampling, [B]."""


class BanditModule(AnsweringModule):
    """A model that samples the elements of its answer independently, from its prediction at the most certain tick.

    The expected reward is a linear function of each element's ``sum_c p_c^2``, the probability that a sampled class is
    right if the probabilities are calibrated. It sends no gradient into the model.
    """

    def setup(self) -> None:
        """Builds the model and the baseline; RLlib calls this once, from the constructor."""
        super().setup()
        self.value = nn.Linear(self.model.config.num_groups, 1)

    def answer(self, observations: Any, generator: torch.Generator) -> SampledAnswers:
        """Samples the answers to a batch of observations.

        Args:
            observations: [B, ...].
            generator: for sampling, on the model's device.

        Returns:
            The answers.

        Raises:
            Diverged: they are not finite.
        """
        outputs = self._forward({Columns.OBS: observations})
        logits = outputs[LOGITS]
        if not logits.isfinite().all():
            cause = explain_samples({Columns.OBS: observations}, ("sample",)) or "lower --learning.lr."
            raise Diverged(f"the model's answers are not finite: {cause}")
        drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator)
        actions = drawn.view(logits.shape[:2])
        return SampledAnswers(actions, chosen_whole(logits, actions).logp, outputs[VALUES])

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Returns the logits at the most certain tick, and the values."""
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
