"""An environment runner that samples answers and records their rewards."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.policy.sample_batch import MultiAgentBatch
from torch.nn.modules.batchnorm import _BatchNorm

from ctm_rl.agents.bandit.module import VALUES, BanditModule, SampledAnswers
from ctm_rl.agents.rllib.columns import batch_of, join, to_device
from ctm_rl.agents.rllib.iteration import report
from ctm_rl.agents.rllib.runner_base import check_arguments, load_weights
from ctm_rl.agents.supervised.env_runner import SampleRunner
from ctm_rl.agents.supervised.sampler import OBSERVATIONS, REWARDS

if TYPE_CHECKING:
    from ctm_rl.agents.bandit.config import BanditConfig

ACTIONS = "actions"
LOGP = "action_logp"
"""Names of columns, beside those of samples."""


class BanditRunner(SampleRunner):
    """Answers the inputs of a single-step environment and returns rewards instead of labels.

    Answers depend on the seed, the requested iteration, part and steps, and the weights, not on the runner.

    Args of the constructor are RLlib's.
    """

    config: "BanditConfig"  # pyright: ignore[reportIncompatibleVariableOverride]

    def sample(
        self, *, iteration: int = 0, part: int = 0, steps: range | None = None, weights: Any = None, **kwargs: Any
    ) -> MultiAgentBatch:
        """Answers the batches that one learner learns from in one iteration, or some of them.

        Args:
            iteration: which, from 0.
            part: which learner, from 0.
            steps: which batches, from 0; ``None``: all.
            weights: of the module, or an object reference to them; ``None``: the current ones.
            **kwargs: none is supported.

        Returns:
            Observations, actions [N, G], their log-probabilities [N], values [N] and rewards [N], batch after batch.
        """
        check_arguments(kwargs, "iteration, part, steps and weights")
        if weights is not None:
            self.set_state({COMPONENT_RL_MODULE: weights})
        module = self._answering()
        is_single = isinstance(self.sampler.env.single_action_space, Discrete)
        answers: list[SampledAnswers] = []

        def answer(observations: Any, seed: int) -> np.ndarray:
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                answers.append(module.answer(to_device({OBSERVATIONS: observations}, "cpu")[OBSERVATIONS], generator))
            actions = answers[-1].actions.numpy()
            return actions[:, 0] if is_single else actions

        steps = range(self.config.learning.num_steps_per_iteration) if steps is None else steps
        answered = []
        for step in steps:
            report("answers", step - steps.start, len(steps))
            answered.append(self.sampler.answered(iteration, part, step, answer))
        columns = {
            OBSERVATIONS: join([observations for observations, _ in answered]),
            REWARDS: np.concatenate([rewards for _, rewards in answered]),
            **{
                name: torch.cat(parts).numpy()
                for name, parts in zip((ACTIONS, LOGP, VALUES), zip(*answers, strict=True), strict=True)
            },
        }
        return batch_of(columns, len(columns[REWARDS]))

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores weights, if the state has any; RLlib sends them to every runner."""
        weights = state.get(COMPONENT_RL_MODULE)
        if weights is not None:
            load_weights(self._answering(), weights)

    def _answering(self) -> BanditModule:
        """The module, created at its first use."""
        if self.module is None:
            self.module = self._build_module(BanditModule)
            # Learners keep the batches as they were sampled: batch normalisation by the batch's own statistics then
            # gives the same answers here and there.
            for part in self.module.modules():
                if isinstance(part, _BatchNorm):
                    part.train()
        return self.module
