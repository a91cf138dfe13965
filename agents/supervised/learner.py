"""The learner of labelled samples: one optimiser step for every batch."""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import Learner
from torch import Tensor

from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.column_learner import ColumnLearner, GradientSteps
from ctm_rl.agents.rllib.columns import map_arrays, to_device
from ctm_rl.agents.rllib.iteration import report
from ctm_rl.agents.supervised.module import CERTAINTIES, PREDICTIONS, AnsweringModule
from ctm_rl.agents.supervised.optimisation import QuantileClipper, learning_rate, parameter_groups
from ctm_rl.agents.supervised.sampler import OBSERVATIONS, TARGETS
from ctm_rl.agents.supervised.scoring import Tally, find_right, loss_of, tally
from ctm_rl.machine.core import project_
from ctm_rl.models.answering import Thought

if TYPE_CHECKING:
    from ctm_rl.agents.supervised.config import SupervisedConfig

GRADIENT_NORM_KEY = "gradient_norm"
ACCURACY_KEY = "accuracy"
"""Names of metrics, beside RLlib's own; the accuracy is that of the batches before they were learned from."""

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class SupervisedLearner(ColumnLearner):
    """Learns from labelled samples, with a loss over the ticks; reads ``learning`` of the configuration."""

    config: "SupervisedConfig"  # pyright: ignore[reportIncompatibleVariableOverride]
    LR_OPTION = "--learning.lr"
    AXES = ("sample",)

    def build(self) -> None:
        """Builds the module, its optimiser, the gradient clipper and the loss scaler."""
        super().build()
        self.num_steps_taken = 0
        self._shares: list[Tensor] = []
        settings = self.config.learning
        self._clipper = None
        if settings.clip_quantile is not None:
            self._clipper = QuantileClipper(len(private.parameters_of(self)), settings.clip_quantile)
        self._scaler = torch.amp.GradScaler(self._device_type, enabled=settings.precision == "float16")

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """Creates AdamW; its learning rate is set before every step."""
        settings = self.config.learning
        module = cast(Any, self.module[module_id])
        optimizer = torch.optim.AdamW(parameter_groups(module.named_parameters(), settings), settings.lr, fused=True)
        self.register_optimizer(
            module_id=module_id,
            optimizer=optimizer,
            params=cast(Any, self.get_parameters(module)),
            lr_or_lr_schedule=settings.lr,
        )

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Does nothing: the learning rate is set before every step, not by RLlib."""

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Computes the loss of one part of a batch."""
        thought = Thought(fwd_out[PREDICTIONS], fwd_out[CERTAINTIES])
        least = self.config.learning.min_num_ticks
        if least is not None:
            num_ticks = int(torch.randint(least, thought.certainties.shape[-1] + 1, ()))
            thought = Thought(thought.predictions[..., :num_ticks], thought.certainties[..., :num_ticks])
        settings, model = self.config.learning, self._answering_module.model.config
        with torch.no_grad():
            self._shares.append(find_right(settings, model, thought, batch[TARGETS]).elements.float().mean())
        return loss_of(settings, model, thought, batch[TARGETS])

    def score(self, samples: Mapping[str, Any]) -> Tally:
        """Evaluates samples in evaluation mode.

        Args:
            samples: observations and targets by name, as from a ``Sampler``.

        Returns:
            Sums over the samples.
        """
        module = self._answering_module
        is_training = module.training
        module.eval()
        try:
            with torch.no_grad(), self._autocast():
                batch = to_device(samples, self._device)
                thought = module.think(batch[OBSERVATIONS])
            return tally(self.config.learning, module.model.config, thought, batch[TARGETS])
        finally:
            module.train(is_training)

    def get_own_state(self) -> dict[str, Any]:
        """Returns the learner's state, beside weights and optimiser."""
        return {
            "num_steps_taken": self.num_steps_taken,
            "clipper": None if self._clipper is None else self._clipper.get_state(),
            "scaler": self._scaler.state_dict(),
        }

    def set_own_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state from ``get_own_state``."""
        self.num_steps_taken = int(state["num_steps_taken"])
        if self._clipper is not None and state["clipper"] is not None:
            self._clipper.set_state(state["clipper"])
        if state["scaler"]:  # empty but for float16
            self._scaler.load_state_dict(dict(state["scaler"]))

    @property
    def _answering_module(self) -> AnsweringModule:
        return self._module_as(AnsweringModule)

    @property
    def _may_overflow(self) -> bool:
        """Whether a gradient that is not finite is normal: with half precision, the scaler skips its step."""
        return self.config.learning.precision == "float16"

    @property
    def _device_type(self) -> str:
        return torch.device(self._device).type

    def _learn(self, columns: Mapping[str, Any]) -> GradientSteps:
        """Learns from the samples, batch by batch."""
        samples = to_device(columns, self._device)
        num_samples = len(columns[TARGETS])
        num_batches = num_samples // self.config.num_rows
        steps = self._take_steps(cut(samples, num_batches), num_batches)
        private.log_trained_steps(self, num_samples)
        return steps

    def _take_steps(self, batches: Iterable[dict[str, Any]], num_batches: int) -> GradientSteps:
        """Takes an optimiser step for every batch, and logs the mean loss and norm."""
        settings = self.config.learning
        self._answering_module.train()
        self._shares = []
        losses, norms = [], []
        for number, batch in enumerate(batches):
            report("batches", number, num_batches)
            rate = learning_rate(settings, self.num_steps_taken, self.config.num_total_steps)
            loss, norm = self._step(batch, rate)
            losses.append(loss)
            norms.append(norm)
            self.num_steps_taken += 1
        columns = {Learner.TOTAL_LOSS_KEY: losses, GRADIENT_NORM_KEY: norms, ACCURACY_KEY: self._shares}
        means = {name: torch.stack(values).mean().to(self._device) for name, values in columns.items() if values}
        # One transfer from the device for all.
        self._log_values(dict(zip(means, torch.stack([*means.values()]).tolist(), strict=True)))
        return GradientSteps(losses, norms)

    def _step(self, batch: dict[str, Any], rate: float) -> tuple[Tensor, Tensor]:
        """Takes one optimiser step; returns the loss and the gradient's norm before clipping."""
        settings = self.config.learning
        parts = list(cut(batch, settings.num_accumulated))
        for optimizer in private.optimizers_of(self).values():
            optimizer.zero_grad(set_to_none=True)
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
        total = torch.zeros((), device=self._device)
        for index, part in enumerate(parts):
            with self._unsynchronised(is_needed=index < len(parts) - 1):
                with self._autocast():
                    outputs = self.module.forward_train({DEFAULT_MODULE_ID: {**part, Columns.OBS: part[OBSERVATIONS]}})
                loss = self.compute_losses(fwd_out=outputs, batch={DEFAULT_MODULE_ID: part})[DEFAULT_MODULE_ID]
                self._scaler.scale(loss / len(parts)).backward()
            total += loss.detach() / len(parts)
        for optimizer in private.optimizers_of(self).values():
            self._scaler.unscale_(optimizer)
        if self._clipper is not None:
            norm = self._clipper.clip_(private.parameters_of(self))
        else:
            norm = self._clip_gradients(settings.max_grad_norm)
        for optimizer in private.optimizers_of(self).values():
            self._scaler.step(optimizer)
        self._scaler.update()
        project_(self._answering_module)
        return total, norm

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of the forward pass."""
        dtype = _DTYPES.get(self.config.learning.precision)
        return contextlib.nullcontext() if dtype is None else torch.autocast(self._device_type, dtype)

    def _unsynchronised(self, *, is_needed: bool) -> contextlib.AbstractContextManager[Any]:
        """Keeps learners from exchanging gradients before all parts of a batch are accumulated."""
        module = self.module[DEFAULT_MODULE_ID]
        no_sync = getattr(module, "no_sync", None)
        return no_sync() if is_needed and no_sync is not None else contextlib.nullcontext()


def cut(columns: dict[str, Any], num_parts: int) -> Iterator[dict[str, Any]]:
    """Cuts all columns into equal parts; their number must divide that of the rows."""
    for part in range(num_parts):
        yield map_arrays(columns, functools.partial(_part, part=part, num_parts=num_parts))


def _part(column: Tensor, part: int, num_parts: int) -> Tensor:
    size = len(column) // num_parts
    return column[part * size : (part + 1) * size]
