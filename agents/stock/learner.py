"""RLlib's own learners for our module: scaled rewards, projected decay rates, and bootstrapped fragments."""

from typing import Any

import torch
from ray.rllib.algorithms.appo.torch.appo_torch_learner import APPOTorchLearner
from ray.rllib.algorithms.impala.torch.impala_torch_learner import IMPALATorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import GeneralAdvantageEstimation
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.typing import ParamDict
from torch import Tensor

from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.column_learner import LEARNING_RATE_KEY, update_statistics
from ctm_rl.agents.rllib.divergence import LARGEST, explain_samples, largest_of
from ctm_rl.agents.rllib.module import CTMModule
from ctm_rl.encoders.normaliser import RunningNormaliser
from ctm_rl.errors import Diverged

REWARD_SCALE = "reward_scale"
"""Key of the factor in RLlib's ``learner_config_dict``."""
_NEVER_TAKEN = 30.0
"""Log-probability for which the importance ratio of any policy is practically 0."""


class ScaleRewards(ConnectorV2):
    """Multiplies the rewards in a learner's batch; episodes and metrics keep raw rewards.

    Args:
        scale: the factor.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._scale = scale

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Scales the rewards of every module, [B, T]."""
        for columns in batch.values():
            columns[Columns.REWARDS] = columns[Columns.REWARDS] * self._scale
        return batch


class KeepBootstrapValues(ConnectorV2):
    """Keeps the value after a fragment's last step unchanged by V-trace.

    RLlib appends a step to every piece of an episode, so that its value is computed. V-trace corrects that value too,
    by ``rho * (0 - value)``, to 0: rewards after the fragment would be ignored. With a ratio rho of 0 at that step the
    value stays. The step is masked out of the losses.
    """

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Replaces the log-probabilities of appended steps, [B, T]."""
        for columns in batch.values():
            log_probability: Tensor = columns[Columns.ACTION_LOGP]
            is_real = columns[Columns.LOSS_MASK].bool()
            columns[Columns.ACTION_LOGP] = torch.where(is_real, log_probability, _NEVER_TAKEN)
        return batch


class MachineLearner(TorchLearner):
    """Adds to RLlib's learners what the machine needs; comes first among the bases.

    Decay rates are projected into their limits. Training works without that too: rates outside are read as the nearest
    limit. Rewards are scaled because values of unscaled returns have errors, and gradients in the shared core, many
    times those of the policy; after clipping the common norm, little would be left of the policy's gradient.
    """

    def build(self) -> None:
        """Builds RLlib's learner, in a process that does not fill new memory."""
        super().build()
        self._observed: list[tuple[RunningNormaliser, Tensor]] = []
        private.leave_new_memory_unfilled()

    @property
    def scaling(self) -> ScaleRewards:
        """The connector that scales the rewards."""
        return ScaleRewards(self.config.learner_config_dict.get(REWARD_SCALE, 1.0))

    def apply_gradients(self, gradients_dict: ParamDict) -> None:
        """Takes the optimiser's step, then projects decay rates."""
        super().apply_gradients(gradients_dict)
        for module_id in self.module.keys():
            if isinstance(module := self.module[module_id].unwrapped(), CTMModule):
                module.agent.project_()

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Checks the weights, updates the statistics of observations, logs the learning rate that was used.

        RLlib then sets that of the next update.

        Raises:
            Diverged: a weight, or a mean of observations, is not finite.
        """
        largest, rate = float(largest_of(private.parameters_of(self))), private.learning_rate_of(self)
        if not largest <= LARGEST:
            cause = self._cause or f"the learning rate is {rate:.3g}; lower --ppo.lr."
            raise Diverged(f"a weight has become {largest:.3g} in size: {cause}")
        update_statistics(self._observed, max(1, self.config.num_learners or 0), lambda: self._cause)
        self._observed = []
        self.metrics.log_value((DEFAULT_MODULE_ID, LEARNING_RATE_KEY), rate, window=1)
        super().after_gradient_based_update(timesteps=timesteps)

    def _make_batch_if_necessary(self, training_data: TrainingData) -> MultiAgentBatch:
        """Creates the training batch without gradient: RLlib would keep the graph of the values for its advantages."""
        with torch.no_grad():
            batch = super()._make_batch_if_necessary(training_data)
        columns = batch.policy_batches[DEFAULT_MODULE_ID]
        self._cause = explain_samples(columns, ("sequence", "step"))
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        if isinstance(module, CTMModule):
            # until the update is over, the statistics are those that the samples were collected with
            self._observed = module.observed(columns)
        return batch


class CTMPPOTorchLearner(MachineLearner, PPOTorchLearner):
    """RLlib's learner of proximal policy optimisation."""

    def build(self) -> None:
        """Builds RLlib's learner and inserts the scaling before its advantages."""
        super().build()
        if (connector := private.learner_connector(self)) is not None:
            connector.insert_before(GeneralAdvantageEstimation, self.scaling)


class VTraceLearner(MachineLearner):
    """The base of learners with V-trace, which compute advantages in the loss."""

    def build(self) -> None:
        """Builds RLlib's learner and appends our connectors, which change the finished batch."""
        super().build()
        if (connector := private.learner_connector(self)) is not None:
            connector.append(self.scaling)
            connector.append(KeepBootstrapValues())


class CTMIMPALATorchLearner(VTraceLearner, IMPALATorchLearner):
    """RLlib's learner of IMPALA."""


class CTMAPPOTorchLearner(VTraceLearner, APPOTorchLearner):
    """RLlib's learner of asynchronous proximal policy optimisation."""

    def get_own_state(self) -> dict[str, Any]:
        """Returns after how many steps each module's target network was last updated."""
        return {"last_update": dict(private.target_updates_of(self))}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Restores it."""
        private.target_updates_of(self).update(state["last_update"])
