"""The base of learners that read columns and have their own loop over batches."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch
from torch import Tensor

from ctm_rl.agents.rllib import private
from ctm_rl.engine.keep_freed_memory import keep_freed_memory

Module = TypeVar("Module", bound=TorchRLModule)


class ColumnLearner(TorchLearner):
    """Replaces the loop over minibatches in RLlib's learners by ``_learn``; comes first among the bases."""

    def build(self) -> None:
        """Builds RLlib's learner, in a process that keeps freed memory for the next update."""
        super().build()
        keep_freed_memory()

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        training_data: TrainingData | None = None,
        batch: MultiAgentBatch | None = None,
        timesteps: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Learns from one iteration's columns.

        Args:
            training_data: holds this learner's rows as one ``MultiAgentBatch`` of one module.
            batch: the same rows, unwrapped.
            timesteps: RLlib's counters, by which schedules advance.
            **kwargs: RLlib passes them to every learner; the configuration has all that is needed here.

        Returns:
            RLlib's metrics, reduced.

        Raises:
            ValueError: the rows cannot be divided into equal minibatches.
        """
        self._learn(private.begin_update(self, training_data, batch, timesteps))
        self.after_gradient_based_update(timesteps=timesteps or {})
        return self.metrics.reduce()

    def _learn(self, columns: Mapping[str, Any]) -> None:
        """Takes all steps of one update, and logs the metrics."""
        raise NotImplementedError

    def _module_as(self, kind: type[Module]) -> Module:
        """The only module, which must be of this kind."""
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        assert isinstance(module, kind)
        return module

    @property
    def _num_learners(self) -> int:
        """Number of learners, at least 1."""
        return max(1, self.config.num_learners or 0)

    def _clip_gradients(self, limit: float | None) -> Tensor:
        """Scales all gradients together down to a norm; returns the norm before that."""
        # One norm over all parameters, without a transfer from the device for each.
        limit = float("inf") if limit is None else limit
        return torch.nn.utils.clip_grad_norm_(private.parameters_of(self), limit, foreach=True)

    def _log_values(self, values: Mapping[str, Any]) -> None:
        """Logs the module's metrics of this update."""
        for name, value in values.items():
            self.metrics.log_value((DEFAULT_MODULE_ID, name), value, window=1)
