"""The learner of bandits: proximal policy optimisation of whole answers from their rewards."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch import Tensor

from ctm_rl.agents.bandit.env_runner import ACTIONS, LOGP
from ctm_rl.agents.bandit.module import LOGITS, VALUES, chosen_whole
from ctm_rl.agents.ppo.loss import PART_KEYS, ppo_loss
from ctm_rl.agents.ppo.moments import moments_of_sums
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.column_learner import GradientSteps
from ctm_rl.agents.rllib.columns import to_device
from ctm_rl.agents.supervised.learner import SupervisedLearner, cut
from ctm_rl.agents.supervised.sampler import REWARDS

if TYPE_CHECKING:
    from ctm_rl.agents.bandit.config import BanditConfig

REWARD_KEY = "reward_mean"
"""Name of a learner's metric, beside RLlib's own and those of the loss."""

_ADVANTAGES = "advantages"


class BanditLearner(SupervisedLearner):
    """Learns from sampled answers and their rewards; it never gets a label.

    An advantage is the reward minus the value, normalised over its batch, of all learners.
    Batches stay as they were sampled, because the number of ticks may differ between batches; passes differ in their
    order. It reads the fields ``learning`` and ``bandit`` of the configuration.
    """

    config: "BanditConfig"  # pyright: ignore[reportIncompatibleVariableOverride]

    def build(self) -> None:
        """Builds the base learner, and the generator of the batches' order."""
        super().build()
        # The same on every learner: they must process parts of the same batch at the same time.
        self.batch_generator = torch.Generator().manual_seed(self.config.seed or 0)
        self._parts: list[Tensor] = []

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Computes the loss of one part of a batch, and keeps its parts for the metrics."""
        bandit = self.config.bandit
        rewards = batch[REWARDS]
        loss = ppo_loss(
            chosen_whole(fwd_out[LOGITS], batch[ACTIONS]),
            fwd_out[VALUES],
            logp=batch[LOGP],
            old_values=batch[VALUES],
            advantages=batch[_ADVANTAGES],
            returns=rewards,
            weights=torch.full_like(rewards, 1 / len(rewards)),
            clip=bandit.clip,
            value_clip=None,
            value_coefficient=bandit.value_coefficient,
            entropy_coefficient=self._entropy_coefficient(),
        )
        self._parts.append(torch.stack(loss).detach())
        return loss.total

    def get_own_state(self) -> dict[str, Any]:
        """The learner's state beside weights and optimiser."""
        return {**super().get_own_state(), "batches": self.batch_generator.get_state()}

    def set_own_state(self, state: Mapping[str, Any]) -> None:
        """Restores the result of ``get_own_state``."""
        super().set_own_state(state)
        self.batch_generator.set_state(state["batches"])

    def _learn(self, columns: Mapping[str, Any]) -> GradientSteps:
        """Takes the steps of all passes, and logs the metrics."""
        samples = to_device(columns, self.device)
        num_samples, num_epochs = len(columns[REWARDS]), self.config.bandit.num_epochs
        num_batches = num_samples // self.config.num_rows
        advantages = (samples[REWARDS] - samples[VALUES]).view(num_batches, -1)
        samples[_ADVANTAGES] = self._normalise(advantages).flatten()
        batches = list(cut(samples, num_batches))
        self._parts = []
        steps = self._take_steps((batches[index] for index in self._order(num_batches)), num_batches * num_epochs)
        _, *means = torch.stack(self._parts).mean(0).tolist()
        self._log_values({REWARD_KEY: float(columns[REWARDS].mean()), **dict(zip(PART_KEYS, means, strict=True))})
        private.log_trained_steps(self, num_samples * num_epochs)
        return steps

    def _order(self, num_batches: int) -> Iterator[int]:
        """Indices of the batches of one iteration, each once in each pass."""
        for _ in range(self.config.bandit.num_epochs):
            yield from torch.randperm(num_batches, generator=self.batch_generator).tolist()

    def _normalise(self, advantages: Tensor) -> Tensor:
        """Shifts and scales the advantages [batches, rows] of each batch by its moments over all learners."""
        values = advantages.double()
        sums = torch.stack((torch.full_like(values[:, 0], values.shape[1]), values.sum(1), values.square().sum(1)))
        moments = moments_of_sums(sums[:, :, None], self._num_learners)
        return moments.normalise(values).float()

    def _entropy_coefficient(self) -> float:
        """The entropy coefficient of this step."""
        bandit = self.config.bandit
        if bandit.entropy_coefficient_final is None:
            return bandit.entropy_coefficient
        share = min(1.0, self.num_steps_taken / self.config.num_total_steps)
        return bandit.entropy_coefficient + share * (bandit.entropy_coefficient_final - bandit.entropy_coefficient)
