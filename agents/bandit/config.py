"""The configuration of bandits: that of supervised learning, and ``BanditSettings``."""

import dataclasses

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from ctm_rl.agents.bandit.env_runner import BanditRunner
from ctm_rl.agents.bandit.learner import BanditLearner
from ctm_rl.agents.bandit.module import BanditModule
from ctm_rl.agents.experiments.answering import BanditSettings
from ctm_rl.agents.supervised.config import SupervisedConfig


class BanditConfig(SupervisedConfig):
    """Configures ``agents.bandit.algorithm.Bandit``.

    The environment is a single-step environment. Environment runners answer with the newest weights; in an iteration
    they answer ``learning.num_steps_per_iteration`` batches of ``learning.batch_size`` inputs, over all learners, and
    learners pass over these ``bandit.num_epochs`` times. Labels are only read by the test on held-out samples, whose
    accuracy is in the results as with ``SupervisedConfig``; learners log ``reward_mean`` instead.

    Example:
        >>> from ctm_rl.agents.bandit.config import BanditConfig
        >>> from ctm_rl.agents.experiments.answering import BanditSettings, LearningSettings
        >>> config = (
        ...     BanditConfig()
        ...     .environment("ctm_rl.envs:ctm_rl/Parity-v0", env_config={"length": 8})
        ...     .training(learning=LearningSettings(batch_size=256), bandit=BanditSettings(num_epochs=2))
        ... )
        >>> config.num_rows
        256
    """

    OWN_FIELDS = SupervisedConfig.OWN_FIELDS | {"bandit"}
    """Fields that RLlib does not have; ``bandit`` is a ``BanditSettings``: how PPO learns from rewards."""

    def __init__(self, algo_class: type | None = None) -> None:
        if algo_class is None:
            from ctm_rl.agents.bandit.algorithm import Bandit

            algo_class = Bandit
        super().__init__(algo_class=algo_class)
        self.env_runner_cls = BanditRunner
        self.bandit = BanditSettings()

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Returns the default module, which reads vectors; other inputs need an encoder."""
        return dataclasses.replace(super().get_default_rl_module_spec(), module_class=BanditModule)

    def get_default_learner_class(self) -> type:
        """Returns the learner of rewards."""
        return BanditLearner
