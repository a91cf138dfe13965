"""The configuration of supervised learning: RLlib's own, and a few fields more."""

import dataclasses
from typing import Any, ClassVar, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from ctm_rl.agents.experiments.answering import HeldOutSettings, LearningSettings
from ctm_rl.agents.experiments.validation import check_api_stack
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.callbacks import EPISODE_CALLBACKS, SAMPLE_CALLBACK, is_given
from ctm_rl.agents.supervised.env_runner import SampleRunner
from ctm_rl.agents.supervised.learner import SupervisedLearner
from ctm_rl.agents.supervised.module import AnsweringModule
from ctm_rl.config import AnswerConfig


class SupervisedConfig(AlgorithmConfig):
    """Configures ``agents.supervised.algorithm.Supervised``.

    The environment has episodes of a single step; its info holds the right answer under "target". Environment runners
    only make samples; learners take ``learning.num_steps_per_iteration`` optimiser steps in an iteration, each on
    ``learning.batch_size`` samples, all learners together.

    In the result of ``train``, ``["learners"]["default_policy"]["accuracy"]`` is the share of right elements in the
    batches, each before it was learned from. With ``evaluation(evaluation_interval=N)``,
    ``["evaluation"]["accuracy"]`` is that of ``held_out``; so is ``evaluate()["accuracy"]``.

    Example:
        >>> from ctm_rl.agents import LearningSettings, SupervisedConfig
        >>> config = (
        ...     SupervisedConfig()
        ...     .environment("ctm_rl.envs:ctm_rl/Parity-v0", env_config={"length": 8})
        ...     .training(learning=LearningSettings(batch_size=32))
        ... )
        >>> config.num_rows
        32
    """

    OWN_FIELDS: ClassVar[frozenset[str]] = frozenset({"learning", "held_out", "held_out_kwargs", "num_total_steps"})
    """Fields that RLlib does not have."""

    # Always set here; RLlib's annotations allow None.
    num_learners: int  # pyright: ignore[reportIncompatibleVariableOverride]
    num_env_runners: int  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, algo_class: type | None = None) -> None:
        if algo_class is None:
            from ctm_rl.agents.supervised.algorithm import Supervised

            algo_class = Supervised
        super().__init__(algo_class=algo_class)
        self.env_runner_cls = SampleRunner
        self.rollout_fragment_length = 1
        private.keep_env_runner_states_apart(self)
        self.learning = LearningSettings()
        self.held_out = HeldOutSettings()
        self.held_out_kwargs: dict[str, Any] = {}
        self.num_total_steps = 10_000

    def training(self, **kwargs: Any) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Sets how the model learns.

        Args:
            **kwargs: ``learning`` (a ``LearningSettings``: loss, batches, optimiser and its schedule), ``held_out`` (a
                ``HeldOutSettings``: the samples for evaluation), ``held_out_kwargs`` (arguments of the environment that
                differ for held-out samples), ``num_total_steps`` (optimiser steps of the whole run, for the schedule),
                and RLlib's own.

        Returns:
            This configuration.
        """
        for name in self.OWN_FIELDS & kwargs.keys():
            setattr(self, name, kwargs.pop(name))
        super().training(**kwargs)
        return self

    @property
    def num_rows(self) -> int:
        """Samples of one optimiser step in one learner."""
        return self.learning.batch_size // max(1, self.num_learners)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Returns a model for vectors; other inputs need an encoder."""
        model = AnswerConfig(encoder="none", num_heads=0, input_dim=1)
        return RLModuleSpec(module_class=AnsweringModule, model_config=dataclasses.asdict(model))

    def get_default_learner_class(self) -> type:
        """Returns the learner of labelled samples."""
        return SupervisedLearner

    def validate(self) -> None:
        """Checks everything.

        Raises:
            ValueError: one line with the allowed values.
        """
        check_api_stack(self)
        unit = max(1, self.num_learners) * self.learning.num_accumulated
        if self.learning.batch_size % unit:
            raise ValueError(
                f"learning.batch_size {self.learning.batch_size} must be a multiple of {unit}, learners x parts."
            )
        for name in (*EPISODE_CALLBACKS, SAMPLE_CALLBACK):
            if is_given(self, name):
                raise ValueError(f"{name} has no effect here: samples are no episodes; use on_train_result.")
        if not isinstance(self.env, str):
            raise ValueError(f"the environment must be a name: environment('ctm_rl/Parity-v0'), got {self.env!r}.")
        if self.evaluation_parallel_to_training or self.evaluation_num_env_runners:
            raise ValueError(
                "evaluation_parallel_to_training and evaluation_num_env_runners have no effect: the learners evaluate "
                "held-out samples between two iterations; leave them out."
            )
        super().validate()
