"""The base of learners that read columns and have their own loop over batches."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch
from torch import Tensor

from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.divergence import LARGEST, explain_samples, largest_of
from ctm_rl.encoders.normaliser import RunningNormaliser
from ctm_rl.engine.keep_freed_memory import keep_freed_memory
from ctm_rl.errors import Diverged
from ctm_rl.spaces.observations import Layout

Module = TypeVar("Module", bound=TorchRLModule)

LEARNING_RATE_KEY = "lr"
"""Name of a learner's metric: the learning rate of the last gradient step."""


class GradientSteps(NamedTuple):
    """The gradient steps of one update; scalars on the device."""

    losses: Sequence[Tensor]
    """The loss of every minibatch."""
    norms: Sequence[Tensor]
    """The gradient's norm of every step that was taken, before clipping."""


class ColumnLearner(TorchLearner):
    """Replaces the loop over minibatches in RLlib's learners by ``_learn``; comes first among the bases."""

    LR_OPTION = "lr"
    """The option that sets the learning rate, for messages."""
    AXES: ClassVar[Sequence[str]] = ("environment", "step")
    """What the first axes of columns count, for messages."""

    def build(self) -> None:
        """Builds RLlib's learner, in a process that keeps freed memory for the next update and does not fill it."""
        super().build()
        keep_freed_memory()
        private.leave_new_memory_unfilled()

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
            Diverged: a loss, a gradient or a weight is not finite.
        """
        columns = private.begin_update(self, training_data, batch, timesteps)
        self._check(columns, self._learn(columns))
        # Of the last gradient step: RLlib logs the learning rate of the next update.
        self._log_values({LEARNING_RATE_KEY: private.learning_rate_of(self)})
        self.after_gradient_based_update(timesteps=timesteps or {})
        return self.metrics.reduce()

    def _learn(self, columns: Mapping[str, Any]) -> GradientSteps:
        """Takes all steps of one update, and logs the metrics."""
        raise NotImplementedError

    def _check(self, columns: Mapping[str, Any], steps: GradientSteps) -> None:
        """Refuses an update after which nothing can be learned any more, with one transfer from the device.

        Raises:
            Diverged: the line names the sample, or the gradient step, that is not finite.
        """
        largest = largest_of(private.parameters_of(self))
        losses, norms = (torch.stack([*values, torch.zeros(())]).to(largest.device) for values in steps)
        sizes = torch.stack((losses.abs().max(), norms.max(), largest)).tolist()
        if math.isfinite(sizes[0]) and (math.isfinite(sizes[1]) or self._may_overflow) and sizes[2] <= LARGEST:
            return
        checked = {"loss": losses} if self._may_overflow else {"loss": losses, "gradient's norm": norms}
        found = [
            (step, f"the {name} is {float(values[step]):.3g} in gradient step {step + 1} of {len(steps.losses)}")
            for name, values in checked.items()
            for step in (~values.isfinite()).nonzero().flatten().tolist()
        ]
        what = min(found, key=lambda item: item[0], default=(0, f"a weight has become {sizes[2]:.3g} in size"))[1]
        cause = explain_samples(columns, self.AXES, self._layout)
        rate = private.learning_rate_of(self)
        raise Diverged(f"{what}: {cause or f'the learning rate is {rate:.3g}; lower {self.LR_OPTION}.'}")

    @property
    def _may_overflow(self) -> bool:
        """Whether a gradient that is not finite is normal: its step is then skipped."""
        return False

    @property
    def _layout(self) -> Layout | None:
        """How observations are packed; ``None``: they are not."""
        return None

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


def sum_over_learners(values: Tensor, num_learners: int) -> Tensor:
    """Sums values over all learners, in place."""
    if num_learners > 1:
        torch.distributed.all_reduce(values)
    return values


def update_statistics(
    observed: Sequence[tuple[RunningNormaliser, Tensor]], num_learners: int, explain: Callable[[], str | None]
) -> None:
    """Adds the moments of observations of all learners to the running statistics.

    Args:
        observed: the normalisers, each with the moments of this learner's observations.
        num_learners: how many learners take part.
        explain: names the observation that is too large.

    Raises:
        Diverged: the statistics are no longer finite.
    """
    for normaliser, moments in observed:
        normaliser.observe_(sum_over_learners(moments, num_learners))
        if not torch.isfinite(normaliser.mean + normaliser.variance).all():
            cause = explain() or "scale them in the environment."
            raise Diverged(f"mean or variance of the observations is not finite: {cause}")
