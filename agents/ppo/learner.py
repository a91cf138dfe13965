"""The learner of the recurrent PPO: minibatches of whole environments, one loss over all learners."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import Learner
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.schedules.scheduler import Scheduler
from torch import Tensor

from ctm_rl.agents.ppo.gae import estimate_advantages
from ctm_rl.agents.ppo.loss import KL_KEY, PART_KEYS, PPOLoss, ppo_loss
from ctm_rl.agents.ppo.moments import Moments, moments_of_sums
from ctm_rl.agents.ppo.rollout import IS_LAST, IS_VALID, NEXT_VALUES, REWARDS, VALUES
from ctm_rl.agents.ppo.step_size import HIGHEST_FACTOR, follow_kl
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.column_learner import ColumnLearner, GradientSteps, sum_over_learners, update_statistics
from ctm_rl.agents.rllib.columns import map_arrays, to_device, to_tensor
from ctm_rl.agents.rllib.divergence import explain_samples
from ctm_rl.agents.rllib.iteration import report
from ctm_rl.agents.rllib.module import CTMModule
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.observations import Layout

if TYPE_CHECKING:
    from ctm_rl.agents.ppo.config import RecurrentPPOConfig

EXPLAINED_VARIANCE_KEY = "vf_explained_var"
GRADIENT_NORM_KEY = "gradients_default_optimizer_global_norm"
NUM_GRADIENT_STEPS_KEY = "num_gradient_steps"
"""Names of a learner's metrics, beside RLlib's own."""

_ADVANTAGES = "advantages"
_RETURNS = "returns"
_WEIGHTS = "weights"
_GENERATOR = "minibatch_generator"
_LR_FACTOR = "lr_factor"
_CLIP = "clip"


class _Minibatch(NamedTuple):
    """The environments of a minibatch."""

    rows: Tensor
    """Their indices, [MB]."""
    num_steps: int
    """Valid steps in them, of this learner only."""


class RecurrentPPOLearner(ColumnLearner, PPOTorchLearner):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Learns from the columns of a ``RolloutFragment``.

    Advantages are estimated once for each update, from the rollout's values and scaled rewards, and normalised for each
    minibatch by mean and standard deviation over the valid steps of all learners. With ``collect_ahead`` the behaviour
    policy is one iteration old: clipped ratios are then relative to the policy before the update, and advantages are
    corrected for the age by V-trace. Of the configuration it reads ``ppo`` and RLlib's own fields.
    """

    config: "RecurrentPPOConfig"  # pyright: ignore[reportIncompatibleVariableOverride]
    LR_OPTION = "--ppo.lr"

    def build(self) -> None:
        """Builds the module, its optimiser, the schedule of the clip range, and the generator of minibatches."""
        super().build()
        self._lr_factor = 1.0
        if self._follows_kl:
            private.scale_learning_rates(self, lambda: self._lr_factor)
        self._clip_schedule = Scheduler(fixed_value_or_schedule=cast(Any, self.config.clip_param))
        self.set_clip(0)
        self.minibatch_generator = torch.Generator()
        if self.config.seed is not None:
            # The same on every learner: each shuffles its own environments.
            self.minibatch_generator.manual_seed(self.config.seed)
        else:
            self.minibatch_generator.seed()

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """Creates Adam, with the configuration's epsilon."""
        parameters: Any = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.Adam(parameters, eps=self.config.ppo.adam_epsilon, fused=True)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=self.config.lr
        )

    def set_clip(self, num_env_steps: int) -> None:
        """Sets the clip range to its schedule's value after a number of environment steps of the run."""
        self.clip = float(self._clip_schedule.update(timestep=num_env_steps))

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Lets RLlib set scheduled values for the next update, and sets the clip range."""
        super().after_gradient_based_update(timesteps=timesteps)
        self.set_clip(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Computes the loss of one minibatch and keeps its parts for the metrics."""
        ppo = self.config.ppo
        self._parts: PPOLoss = ppo_loss(
            self._agent.actions.score(fwd_out[Columns.ACTION_DIST_INPUTS], batch[Columns.ACTIONS]),
            fwd_out[Columns.EMBEDDINGS],
            logp=batch[Columns.ACTION_LOGP],
            old_values=batch[VALUES],
            advantages=batch[_ADVANTAGES],
            returns=batch[_RETURNS],
            weights=batch[_WEIGHTS],
            clip=self.clip,
            value_clip=ppo.value_clip,
            value_coefficient=ppo.value_coefficient,
            entropy_coefficient=cast(Any, self.entropy_coeff_schedulers_per_module[module_id].get_current_value()),
        )
        return self._parts.total

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns RLlib's state of a learner, and what ``get_own_state`` holds."""
        state = {**super().get_state(*args, **kwargs), _GENERATOR: self.minibatch_generator.get_state().numpy()}
        state[_CLIP] = self.clip
        return {**state, _LR_FACTOR: self._lr_factor} if self._follows_kl else state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state."""
        super().set_state(dict(state))
        if _GENERATOR in state:
            self.minibatch_generator.set_state(torch.as_tensor(state[_GENERATOR]))
        if self._follows_kl:
            self._lr_factor = min(float(state.get(_LR_FACTOR, self._lr_factor)), self._highest_factor)
        self.clip = float(state.get(_CLIP, self.clip))

    def get_own_state(self) -> dict[str, Any]:
        """The learner's state beside weights and optimiser."""
        state = {"minibatches": self.minibatch_generator.get_state()}
        return {**state, _LR_FACTOR: self._lr_factor} if self._follows_kl else state

    def set_own_state(self, state: Mapping[str, Any]) -> None:
        """Restores the result of ``get_own_state``."""
        self.minibatch_generator.set_state(state["minibatches"])
        if self._follows_kl:
            self._lr_factor = min(float(state.get(_LR_FACTOR, 1.0)), self._highest_factor)

    def _learn(self, columns: Mapping[str, Any]) -> GradientSteps:
        """Takes a gradient step for each minibatch of each pass, and logs the metrics."""
        ppo, device_columns = self.config.ppo, to_device(columns, self.device)
        ratios = self._recompute_logp(device_columns) if ppo.collect_ahead else None
        advantages = estimate_advantages(
            self.config.scale * columns[REWARDS],
            columns[VALUES],
            columns[NEXT_VALUES],
            columns[IS_LAST],
            ppo.gamma,
            ppo.gae_lambda,
            ratios,
        )
        returns = advantages + columns[VALUES]
        minibatches = list(self._split(columns[IS_VALID]))
        device_columns[_ADVANTAGES] = to_tensor(advantages, self.device)
        device_columns[_RETURNS] = to_tensor(returns, self.device)
        parts, norms = [], []
        moments_of = zip(minibatches, self._moments(device_columns, minibatches), strict=True)
        for number, (minibatch, moments) in enumerate(moments_of):
            report("minibatches", number, len(minibatches))
            chosen = _select(device_columns, minibatch.rows.to(self.device))
            chosen[_ADVANTAGES] = moments.normalise(chosen[_ADVANTAGES])
            chosen[_WEIGHTS] = chosen[IS_VALID] * (self._num_learners / moments.num_values)
            _, _, step = self._update({DEFAULT_MODULE_ID: chosen})
            parts.append(torch.stack(self._parts).detach())
            if not step:
                break
            norms.append(step["gradient_norm"])
            private.log_trained_steps(self, minibatch.num_steps)
        self._update_observation_statistics(device_columns)
        self._adapt_learning_rate(self._log_learning(parts, norms))
        valid = columns[IS_VALID]
        explained = _explained_variance(columns[VALUES][valid], returns[valid])
        self._log_values({EXPLAINED_VARIANCE_KEY: explained})
        return GradientSteps([part[0] for part in parts], norms)

    @torch.no_grad()
    def _recompute_logp(self, columns: dict[str, Any]) -> np.ndarray:
        """Replaces the behaviour policy's log-probabilities in ``columns`` by those of the current policy.

        Returns:
            The probability ratio of each action, at most 1, [B, T].
        """
        module = self._module_as(CTMModule)
        is_training = module.training
        module.eval()
        logp = torch.empty_like(columns[Columns.ACTION_LOGP])
        for rows in torch.arange(len(logp), device=logp.device).chunk(self.config.ppo.num_minibatches):
            chosen = _select(columns, rows)
            outputs = module.forward_train(chosen)
            logp[rows] = self._agent.actions.score(outputs[Columns.ACTION_DIST_INPUTS], chosen[Columns.ACTIONS]).logp
        module.train(is_training)
        ratios = (logp - columns[Columns.ACTION_LOGP]).exp().clamp(max=1.0)
        columns[Columns.ACTION_LOGP] = logp
        return ratios.cpu().numpy()

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        """Takes one gradient step, unless the KL divergence is above ``target_kl``.

        Returns:
            The module's outputs, the losses, and the gradient's norm before clipping, or nothing if no step was taken.
        """
        outputs = self.module.forward_train(batch)
        losses = self.compute_losses(fwd_out=outputs, batch=batch)
        if self._is_too_far():
            return outputs, losses, {}
        optimizers = private.optimizers_of(self).values()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses[DEFAULT_MODULE_ID].backward()
        norm = self._clip_gradients(self.config.grad_clip)
        for optimizer in optimizers:
            optimizer.step()
        self._agent.project_()
        return outputs, losses, {"gradient_norm": norm}

    @property
    def _agent(self) -> ActorCritic:
        """The policy that is trained."""
        return self._module_as(CTMModule).agent

    @property
    def _layout(self) -> Layout:
        """How observations are packed."""
        return self._agent.layout

    def _update_observation_statistics(self, columns: Mapping[str, Any]) -> None:
        """Updates the statistics of observations, over all learners, after the gradient steps.

        Until then they are those of the rollout, so that ratios begin at 1.
        """
        observations, is_valid = columns[Columns.OBS].flatten(0, 1), columns[IS_VALID].flatten().float()
        update_statistics(
            self._agent.observed(observations, is_valid),
            self._num_learners,
            lambda: explain_samples(columns, self.AXES, self._layout),
        )

    def _is_too_far(self) -> bool:
        """Whether the minibatch's KL divergence over all learners is above ``target_kl``; the same on every learner."""
        limit = self.config.ppo.target_kl
        if limit is None:
            return False
        kl = sum_over_learners(self._parts.kl.detach().clone(), self._num_learners) / self._num_learners
        return kl.item() > limit

    @property
    def _follows_kl(self) -> bool:
        """Whether the learning rate is adapted to the KL divergence."""
        return self.config.ppo.lr_kl_target is not None

    def _adapt_learning_rate(self, kl: float) -> None:
        """Adapts the next iteration's learning rate to this learner's KL divergence; the same on every learner."""
        target = self.config.ppo.lr_kl_target
        if target is None:
            return
        total = sum_over_learners(torch.tensor(kl, device=self.device), self._num_learners)
        mean = total.item() / self._num_learners
        self._lr_factor = follow_kl(self._lr_factor, mean, target, highest=self._highest_factor)

    @property
    def _highest_factor(self) -> float:
        """The upper limit of the learning rate's factor: a schedule is one for the rate itself."""
        return 1.0 if isinstance(self.config.lr, (list, tuple)) else HIGHEST_FACTOR

    def _split(self, is_valid: np.ndarray) -> Iterator[_Minibatch]:
        """Splits the environments into minibatches, differently in each pass."""
        num_rows, num_minibatches = len(is_valid), self.config.ppo.num_minibatches
        if num_rows % num_minibatches:
            raise ValueError(f"{num_rows} environments cannot be divided into {num_minibatches} equal minibatches.")
        num_steps = is_valid.sum(1)
        for _ in range(self.config.ppo.num_epochs):
            order = torch.arange(num_rows)
            if self.config.shuffle_batch_per_epoch:
                order = torch.randperm(num_rows, generator=self.minibatch_generator)
            for rows in order.chunk(num_minibatches):
                yield _Minibatch(rows, int(num_steps[rows.numpy()].sum()))

    def _moments(self, columns: dict[str, Any], minibatches: list[_Minibatch]) -> list[Moments]:
        """Moments of the advantages of each minibatch's valid steps, over all learners."""
        weights = columns[IS_VALID].double()
        weighted = columns[_ADVANTAGES] * weights
        sums = torch.stack((weights.sum(1), weighted.sum(1), (weighted * columns[_ADVANTAGES]).sum(1)), -1)  # [B, 3]
        totals = torch.stack([sums[minibatch.rows.to(sums.device)].sum(0) for minibatch in minibatches])
        stacked = torch.stack(moments_of_sums(totals.T.contiguous(), self._num_learners), -1).float()
        return [Moments(*row) for row in stacked]

    def _log_learning(self, parts: list[Tensor], norms: list[Tensor]) -> float:
        """Logs the means over the minibatches, with one transfer from the device; returns the KL divergence."""
        norm = torch.stack(norms).mean() if norms else torch.zeros((), device=self.device)
        means = torch.cat((torch.stack(parts).mean(0), norm[None])).tolist()
        names = (Learner.TOTAL_LOSS_KEY, *PART_KEYS, GRADIENT_NORM_KEY)
        values = dict(zip(names, means, strict=True))
        self._log_values({**values, NUM_GRADIENT_STEPS_KEY: len(norms)})
        return values[KL_KEY]


def _select(columns: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Selects environments from all columns."""
    # Copies whole rows; indexing would copy one number after the other.
    return map_arrays(columns, lambda column: column.index_select(0, rows))


def _explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """Share of the returns' variance that the rollout's values explain, at least -1."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is reported by the check of the update
        variance = float(returns.var()) if len(returns) else 0.0
        return max(-1.0, 1.0 - float((returns - values).var()) / variance) if variance > 0 else 0.0
