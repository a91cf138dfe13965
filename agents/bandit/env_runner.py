"""RLlib's seam for answering: an environment runner that draws answers, and keeps what they were rewarded with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from gymnasium.spaces import Discrete
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch
from torch.nn.modules.batchnorm import _BatchNorm

from ctm_rl.agents.bandit.module import VALUES, Answered, BanditModule
from ctm_rl.agents.rllib.columns import batch_of, to_device
from ctm_rl.agents.supervised.env_runner import SampleRunner
from ctm_rl.agents.supervised.sampler import OBSERVATIONS, REWARDS, join

if TYPE_CHECKING:
    from ctm_rl.agents.bandit.config import BanditConfig

ACTIONS = "actions"
LOGP = "action_logp"
"""Names of columns, beside those of samples."""


class BanditRunner(SampleRunner):
    """Answers the inputs of a single-step environment; of the right answers it tells nothing.

    What it draws depends on the seed, the numbers of what it is asked for and the weights: whichever runner does it, it
    comes out the same.

    Args of the constructor are RLlib's.
    """

    config: "BanditConfig"  # pyright: ignore[reportIncompatibleVariableOverride]

    def sample(
        self, *, iteration: int = 0, part: int = 0, steps: range | None = None, weights: Any = None, **kwargs: Any
    ) -> MultiAgentBatch:
        """Answers the batches that one learner learns from in one iteration, or some of them.

        Args:
            iteration: which, from 0.
            part: of which learner, from 0.
            steps: which batches, from 0; ``None``: all.
            weights: of the module that answers, or where they lie; ``None``: as they are.
            **kwargs: none is known.

        Returns:
            Observations, actions [N, G], their log-probabilities [N], values [N] and rewards [N], batch after batch.
        """
        if kwargs:
            raise ValueError(f"samples have a number and a part; {', '.join(kwargs)} cannot be asked for.")
        if weights is not None:
            self.set_state({COMPONENT_RL_MODULE: weights})
        module = self._answering()
        is_single = isinstance(self.sampler.env.single_action_space, Discrete)
        answers: list[Answered] = []

        def answer(shown: Any, seed: int) -> np.ndarray:
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                answers.append(module.answer(to_device({OBSERVATIONS: shown}, "cpu")[OBSERVATIONS], generator))
            actions = answers[-1].actions.numpy()
            return actions[:, 0] if is_single else actions

        steps = range(self.config.learning.num_steps_per_iteration) if steps is None else steps
        answered = [self.sampler.answered(iteration, part, step, answer) for step in steps]
        columns = {
            OBSERVATIONS: join([shown for shown, _ in answered]),
            REWARDS: np.concatenate([rewards for _, rewards in answered]),
            **{
                name: torch.cat(parts).numpy()
                for name, parts in zip((ACTIONS, LOGP, VALUES), zip(*answers, strict=True), strict=True)
            },
        }
        return batch_of(columns, len(columns[REWARDS]))

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Takes weights, if there are any in it; RLlib sends them to every runner."""
        weights = state.get(COMPONENT_RL_MODULE)
        if weights is None:
            return
        if isinstance(weights, ray.ObjectRef):
            weights = ray.get(weights)
        self._answering().set_state(weights.get(DEFAULT_MODULE_ID, weights))

    def _answering(self) -> BanditModule:
        """The module, made when it is first needed."""
        if self.module is None:
            module = self.config.get_rl_module_spec(spaces=self.get_spaces(), inference_only=True).build()
            if not isinstance(module, BanditModule):
                raise ValueError(
                    f"a bandit's answers are those of a BanditModule, and rl_module_spec makes a "
                    f"{type(module).__name__}."
                )
            # Dropout is for learning. Batches are learned from as they were drawn: normalised by their own statistics
            # in both places, they are answered alike.
            module.eval()
            for part in module.modules():
                if isinstance(part, _BatchNorm):
                    part.train()
            self.module = module
        return self.module
