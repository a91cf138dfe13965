"""Learning to answer, as a run sees it: losses, and how right the answers to held-out samples are."""

import contextlib
import dataclasses
from typing import Any

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.task import COMMON_METRICS, MODULE, SAMPLE_TIMEOUT_SECONDS, number_of, peak_memory_mb
from ctm_rl.errors import UserError

ANSWERING_METRICS = (
    *COMMON_METRICS,
    "accuracy",
    "accuracy_whole",
    "held_out_loss",
    "total_loss",
    "gradient_norm",
    "lr",
    "memory_mb",
)
"""Keys of a line of metrics, in their order. ``accuracy`` is the share of right elements among held-out samples, read
at their most certain tick, ``accuracy_whole`` that of samples right throughout; repeated until the next test."""

BANDIT_METRICS = (
    *COMMON_METRICS,
    "reward_mean",
    "accuracy",
    "accuracy_whole",
    "held_out_loss",
    "total_loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "kl",
    "clip_fraction",
    "gradient_norm",
    "lr",
    "memory_mb",
)
"""The same where rewards are all that is learned from. ``reward_mean`` is that of the answers drawn in the iteration;
``held_out_loss`` is always ``null``, for no loss is made of right answers."""

_TESTED = ("accuracy", "accuracy_whole", "held_out_loss")
_NOT_LEARNED = (*COMMON_METRICS, *_TESTED, "memory_mb")
_THEIRS = {"value_loss": "vf_loss"}
"""RLlib's names, where they are not ours."""


class AnsweringTask:
    """Learning from right answers, or from how good the answers were that were drawn.

    Args:
        experiment: what is learned.
    """

    def __init__(self, experiment: AnsweringExperiment) -> None:
        self._experiment = experiment
        self._is_bandit = experiment.signal == "reward"
        self._tested: Row = dict.fromkeys(_TESTED)
        self._num_iterations = 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of a line of metrics, in their order."""
        return BANDIT_METRICS if self._is_bandit else ANSWERING_METRICS

    def build_config(self) -> Any:
        """RLlib's configuration."""
        from ray.rllib.core.rl_module.rl_module import RLModuleSpec

        experiment = self._experiment
        model = fit_model(experiment)
        config, module_class = _bandit_parts(experiment) if self._is_bandit else _supervised_parts()
        config.environment(experiment.env.id, env_config=experiment.env.kwargs)
        config.env_runners(
            num_env_runners=experiment.num_env_runners,
            num_cpus_per_env_runner=experiment.num_cpus_per_env_runner,  # pyright: ignore[reportArgumentType]
            sample_timeout_s=SAMPLE_TIMEOUT_SECONDS,
        )
        config.learners(num_learners=experiment.num_learners, num_gpus_per_learner=experiment.num_gpus_per_learner)
        spec = RLModuleSpec(module_class=module_class, model_config=dataclasses.asdict(model))
        config.rl_module(rl_module_spec=spec)
        config.training(
            learning=experiment.learning,
            held_out=experiment.held_out,
            held_out_kwargs=experiment.env.held_out_kwargs,
            num_total_steps=experiment.num_steps,
        )
        config.debugging(seed=experiment.seed, log_level="ERROR", log_sys_usage=False)
        return config

    def describe(self, algorithm: Any) -> dict[str, Any]:
        """The model with its weights."""
        from ctm_rl.inference.load_model import MODEL_ENTRY, describe

        return {MODEL_ENTRY: describe(first_module(algorithm).model)}

    def read(self, algorithm: Any, result: dict[str, Any], *, is_last: bool) -> Row:
        """Losses, and every few iterations a test on held-out samples."""
        self._num_iterations += 1
        if is_last or self._num_iterations % self._experiment.held_out.num_iterations == 0:
            scores = algorithm.test()
            sums = scores.elements, scores.whole, scores.loss
            self._tested = {name: total / scores.num_samples for name, total in zip(_TESTED, sums, strict=True)}
            if self._is_bandit:
                self._tested["held_out_loss"] = None
        learner = result["learners"][MODULE]
        return {
            **self._tested,
            **{name: number_of(learner, _THEIRS.get(name, name)) for name in self.metrics if name not in _NOT_LEARNED},
            "memory_mb": peak_memory_mb(),
        }

    def get_memory(self) -> dict[str, Any]:
        """The last test, and how many iterations there have been."""
        return {"tested": self._tested, "num_iterations": self._num_iterations}

    def set_memory(self, memory: dict[str, Any]) -> None:
        """Puts them back."""
        self._tested, self._num_iterations = dict(memory["tested"]), int(memory["num_iterations"])


def _supervised_parts() -> tuple[Any, type]:
    """The configuration and the module of learning from right answers."""
    from ctm_rl.agents.supervised.config import SupervisedConfig
    from ctm_rl.agents.supervised.module import AnsweringModule

    return SupervisedConfig(), AnsweringModule


def _bandit_parts(experiment: AnsweringExperiment) -> tuple[Any, type]:
    """The configuration and the module of learning from rewards."""
    from ctm_rl.agents.bandit.config import BanditConfig
    from ctm_rl.agents.bandit.module import BanditModule

    return BanditConfig().training(bandit=experiment.bandit), BanditModule


def fit_model(experiment: AnsweringExperiment) -> Any:
    """Looks at the environment once and settles what its spaces mean for the model; gives a ``AnswerConfig``.

    Raises:
        UserError: the environment cannot be made, shows nothing to learn from, would be tested on what it is learned
            from, or the model does not fit it.
    """
    from ctm_rl.agents.supervised.module import fit_answer_config
    from ctm_rl.agents.supervised.sampler import check_samples, count_samples, make_samples_env

    fitted = []
    for is_held_out in (False, True):
        with contextlib.closing(make_samples_env(experiment.env, 1, is_held_out=is_held_out)) as env:
            if is_held_out and count_samples(env) is not None and not experiment.env.held_out_kwargs:
                raise UserError(
                    f"env.held_out_kwargs must choose other samples of {experiment.env.id} than those learned from, as "
                    '\'{"split": "test"}\'; it is empty.'
                )
            check_samples(env)
            spaces = env.single_observation_space, env.single_action_space
            fitted.append(fit_answer_config(experiment.model, *spaces, experiment.learning.loss))
    if fitted[0] != fitted[1]:
        raise UserError(f"env.held_out_kwargs of {experiment.env.id} must leave answers and channels as they are.")
    return fitted[0]


def first_module(algorithm: Any) -> Any:
    """The module of the first learner, with its weights as they are now, in this process."""
    from ctm_rl.agents.rllib import private

    group = algorithm.learner_group
    if group.is_local:
        return private.local_learner(group).module[MODULE].unwrapped()
    module = algorithm.config.get_multi_rl_module_spec(
        spaces=algorithm.env_runner_group.get_spaces(), inference_only=False
    ).build()[MODULE]
    weights = group.get_weights()[MODULE]
    module.set_state(weights)
    return module
