"""The configuration of the recurrent PPO: RLlib's fields, and those of ``PPOSettings`` that RLlib lacks."""

import dataclasses
from typing import Any, cast

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.schedules.scheduler import Scheduler

from ctm_rl.agents.experiments.acting import PPOSettings
from ctm_rl.agents.experiments.validation import (
    check_ahead,
    check_api_stack,
    check_number,
    check_rows,
    scale_of_rewards,
)
from ctm_rl.agents.ppo.env_runner import ColumnarEnvRunner
from ctm_rl.agents.ppo.learner import RecurrentPPOLearner
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.callbacks import SAMPLE_CALLBACK, is_given
from ctm_rl.agents.rllib.module import CTMModule
from ctm_rl.agents.rllib.seeded_env_runner import SeededEnvRunner
from ctm_rl.config import PolicyConfig

_RLLIB_NAMES = {
    "gae_lambda": "lambda_",
    "clip": "clip_param",
    "value_coefficient": "vf_loss_coeff",
    "entropy_coefficient": "entropy_coeff",
    "max_grad_norm": "grad_clip",
    "num_rollout_steps": "rollout_fragment_length",
}
"""Fields of ``PPOSettings`` that RLlib calls something else."""
_OF_SCHEDULES = {"is_lr_annealed", "lr_warmup_steps", "is_clip_annealed", "entropy_coefficient_final"}
_ATTRIBUTES = {
    field.name: _RLLIB_NAMES.get(field.name, field.name)
    for field in dataclasses.fields(PPOSettings)
    if field.name not in _OF_SCHEDULES
}
"""The attribute of the configuration for each field of ``PPOSettings``."""
_NUMBERS = _ATTRIBUTES.keys() - {"lr", "clip", "entropy_coefficient", "max_grad_norm", "num_rollout_steps"}
"""Fields whose attribute always holds what ``PPOSettings`` allows."""
_OWN_FIELDS = _NUMBERS - _RLLIB_NAMES.keys() - {"gamma", "num_epochs"}
"""Fields that RLlib's PPO does not have."""
_WAYS_OUT = {
    "torch_grad_scaler_class": "gradients are not scaled",
    "torch_lr_scheduler_classes": "give lr as a schedule",
}
_DEFAULT_BATCH_SIZE = PPOConfig().train_batch_size
"""RLlib's, which stands where the user has given none."""


class RecurrentPPOConfig(PPOConfig):
    """Configures ``agents.ppo.algorithm.RecurrentPPO``.

    An iteration is T = ``rollout_fragment_length`` steps of every environment of every runner; each pass over it splits
    the environments, with all of their T steps, into ``num_minibatches`` parts for each learner. Settings of RLlib's
    PPO that would have no effect are refused.

    Example:
        >>> from ctm_rl.agents import RecurrentPPOConfig
        >>> config = (
        ...     RecurrentPPOConfig()
        ...     .environment("CartPole-v1")
        ...     .env_runners(num_env_runners=0, num_envs_per_env_runner=32, rollout_fragment_length=64)
        ...     .training(lr=1e-3, num_epochs=4, num_minibatches=4, clip_param=0.2)
        ... )
        >>> config.total_train_batch_size
        2048
    """

    # Always numbers here; RLlib's annotations allow more.
    num_learners: int  # pyright: ignore[reportIncompatibleVariableOverride]
    num_env_runners: int  # pyright: ignore[reportIncompatibleVariableOverride]
    num_envs_per_env_runner: int  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, algo_class: type | None = None) -> None:
        if algo_class is None:
            from ctm_rl.agents.ppo.algorithm import RecurrentPPO

            algo_class = RecurrentPPO
        super().__init__(algo_class=algo_class)
        self.env_runner_cls = ColumnarEnvRunner
        self.num_envs_per_env_runner = 16
        # The environment's own vector class if it has one; otherwise environments are stepped in turn.
        self.gym_env_vectorize_mode = "vector_entry_point"
        self.max_requests_in_flight_per_env_runner = private.MAX_REQUESTS_IN_FLIGHT
        private.keep_env_runner_states_apart(self)
        # Evaluation counts episodes, which RLlib's runner does.
        self.evaluation_config = {"env_runner_cls": SeededEnvRunner, "gym_env_vectorize_mode": "sync"}
        self.grad_clip_by = "global_norm"
        self.use_kl_loss = False
        self.vf_clip_param = None
        self.minibatch_size = None
        self._set(PPOSettings.recommended())

    def training(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, ppo: PPOSettings | None = None, **kwargs: Any
    ) -> "RecurrentPPOConfig":
        """Sets how the policy learns.

        Args:
            ppo: all settings at once, except for those of schedules (``is_lr_annealed``, ``lr_warmup_steps``,
                ``is_clip_annealed``, ``entropy_coefficient_final``): these need the length of the run, and go into
                ``lr``, ``clip_param`` and ``entropy_coeff`` as RLlib's schedules.
            **kwargs: single settings, which take precedence: fields of ``PPOSettings`` that RLlib has no name for
                (``num_minibatches``, ``lr_kl_target``, ``reward_scale``, ``normalize_rewards``, ``value_clip``,
                ``target_kl``, ``noise_correlation``, ``adam_epsilon``, ``collect_ahead``), and RLlib's: ``lr``,
                ``clip_param`` and ``entropy_coeff`` (numbers or schedules), ``gamma``, ``lambda_``, ``vf_loss_coeff``
                (of half the squared error), ``grad_clip``, ``num_epochs`` and others. Each may be a search space of
                Ray Tune.

        Returns:
            This configuration.
        """
        if ppo is not None:
            self._set(ppo)
        for name in _OWN_FIELDS & kwargs.keys():
            setattr(self, name, kwargs.pop(name))
        super().training(**kwargs)
        return self

    def _set(self, ppo: PPOSettings) -> None:
        """Stores every setting as an attribute of this configuration, which is all that RLlib and Tune read."""
        for name, attribute in _ATTRIBUTES.items():
            setattr(self, attribute, getattr(ppo, name))

    @property
    def ppo(self) -> PPOSettings:
        """The current settings, checked.

        Where RLlib allows more than a number (``lr`` and ``entropy_coeff``: schedules, ``grad_clip``: ``None``,
        ``rollout_fragment_length``: "auto"), the default stands here: read these from RLlib's attributes. Of a
        schedule in ``clip_param`` it is the first value.

        Raises:
            ValueError: a setting is outside its limits; the message has RLlib's name of it.
        """
        values = {name: getattr(self, _ATTRIBUTES[name]) for name in _NUMBERS}
        clip: Any = self.clip_param
        try:
            return PPOSettings(**values, clip=clip[0][1] if isinstance(clip, (list, tuple)) else clip)
        except ValueError as error:
            name, _, limits = str(error).removeprefix("ppo.").partition(" ")
            raise ValueError(f"{_ATTRIBUTES[name]} {limits}") from error

    @property
    def num_rows(self) -> int:
        """Number of environments of all runners."""
        return max(1, self.num_env_runners) * self.num_envs_per_env_runner

    @property
    def num_rows_unit(self) -> int:
        """The number of environments must be a multiple of this: learners x minibatches."""
        return max(1, self.num_learners) * self.ppo.num_minibatches

    @property
    def scale(self) -> float:
        """The factor that rewards are multiplied with for learning."""
        ppo = self.ppo
        return scale_of_rewards(ppo.reward_scale, ppo.gamma, is_normalised=ppo.normalize_rewards)

    @property
    def train_batch_size_per_learner(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Environment steps of each learner in an iteration; computed from the environments if not set."""
        if self._train_batch_size_per_learner is None and self.rollout_fragment_length != "auto":
            return self.num_rows * int(self.rollout_fragment_length) // max(1, self.num_learners)
        return super().train_batch_size_per_learner

    @train_batch_size_per_learner.setter
    def train_batch_size_per_learner(self, value: int | None) -> None:
        """Sets it; ``validate`` checks that it has an effect and fits the environments."""
        self._train_batch_size_per_learner = value

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Returns the module with ``PolicyConfig.recommended()``."""
        return RLModuleSpec(module_class=CTMModule, model_config=dataclasses.asdict(PolicyConfig.recommended()))

    def get_default_learner_class(self) -> type:
        """Returns the learner of columns."""
        return RecurrentPPOLearner

    def validate(self) -> None:
        """Checks all settings and refuses those that would have no effect.

        Raises:
            ValueError: a setting is not allowed; the message is one line with the way out.
        """
        check_api_stack(self)
        if not self.in_evaluation:
            self._check()
        super().validate()

    def _check(self) -> None:
        """Checks what RLlib does not check."""
        _check_meaning(self)
        _check_clip(self.clip_param)
        ppo = self.ppo
        check_ahead(collect_ahead=ppo.collect_ahead, num_env_runners=self.num_env_runners)
        if self.rollout_fragment_length != "auto":
            self._check_batch_size(int(self.rollout_fragment_length))
        elif self.total_train_batch_size % self.num_rows:
            raise ValueError(
                f"train_batch_size_per_learner x learners = {self.total_train_batch_size} must be a multiple of the "
                f"{self.num_rows} environments; leave it out and set rollout_fragment_length."
            )
        check_rows(
            num_env_runners=self.num_env_runners,
            num_envs_per_env_runner=self.num_envs_per_env_runner,
            num_learners=self.num_learners,
            num_minibatches=ppo.num_minibatches,
        )

    def _check_batch_size(self, fragment_length: int) -> None:
        """Refuses a batch size beside the fragments' length, which determines it."""
        learners, taken = max(1, self.num_learners), self.num_rows * fragment_length
        given = {
            "train_batch_size_per_learner": (self._train_batch_size_per_learner, taken // learners),
            "train_batch_size": (
                None if self.train_batch_size == _DEFAULT_BATCH_SIZE else self.train_batch_size,
                taken,
            ),
        }
        for name, (value, size) in given.items():
            if value is not None and value != size:
                raise ValueError(
                    f"{name} {value} has no effect in RecurrentPPO with rollout_fragment_length {fragment_length}: "
                    f"{self.num_rows} environments x {fragment_length} steps make {size}; leave it out, or set "
                    'rollout_fragment_length="auto".'
                )


def _check_clip(clip: Any) -> None:
    """Checks ``clip_param`` where it is a schedule, which RLlib does not expect there."""
    if isinstance(clip, (list, tuple)):
        clip = cast(list[list[float]], clip)
        Scheduler.validate(fixed_value_or_schedule=clip, setting_name="clip_param", description="clip range")
        for corner in clip[1:]:
            check_number("clip_param", corner[1], at_least=0)


def _check_meaning(config: RecurrentPPOConfig) -> None:
    """Refuses settings of RLlib's PPO that would have no effect."""
    wrong = {
        "use_kl_loss": (config.use_kl_loss, "the loss has no KL term; use target_kl"),
        "vf_clip_param": (config.vf_clip_param is not None, "use value_clip"),
        "minibatch_size": (config.minibatch_size is not None, "minibatches are environments; use num_minibatches"),
        "use_gae": (not config.use_gae, "advantages are always GAE; lambda_=1 uses the plain return"),
        "use_critic": (not config.use_critic, "advantages need values"),
        "grad_clip_by": (config.grad_clip is not None and config.grad_clip_by != "global_norm", "use global_norm"),
        "batch_mode": (config.batch_mode != "truncate_episodes", "fragments truncate episodes; use truncate_episodes"),
        "torch_skip_nan_gradients": (config.torch_skip_nan_gradients, "no gradient is skipped; leave it False"),
        "policies": (config.is_multi_agent, "one policy is trained; leave multi_agent out"),
    }
    for name, value in private.unused_parts_of(config).items():
        wrong[name] = (value is not None, _WAYS_OUT.get(name, "there are no connectors"))
    wrong[SAMPLE_CALLBACK] = (is_given(config, SAMPLE_CALLBACK), "samples are columns; use on_episode_end")
    for name, (is_wrong, way_out) in wrong.items():
        if is_wrong:
            raise ValueError(f"{name} has no effect in RecurrentPPO with this value: {way_out}.")
