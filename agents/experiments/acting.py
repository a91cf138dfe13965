"""The configuration of a run that trains a policy; loads neither torch nor ray."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from ctm_rl.agents.experiments.json_option import JsonObject
from ctm_rl.agents.experiments.settings import MAX_STEPS, RunSettings
from ctm_rl.agents.experiments.validation import check_ahead, check_number, check_rows
from ctm_rl.config import PolicyConfig, check_share

Algorithm = Literal["ppo", "stock-ppo", "appo", "impala"]
ASYNCHRONOUS = ("appo", "impala")
"""Algorithms that collect during updates; V-trace corrects for the age of the weights."""
_OUR_OWN = (
    *("lr_kl_target", "is_clip_annealed", "value_clip", "target_kl", "normalize_rewards", "adam_epsilon"),
    *("noise_correlation", "collect_ahead"),
)
_WITHOUT_EFFECT = {
    "stock-ppo": _OUR_OWN,
    "appo": (*_OUR_OWN, "gae_lambda"),
    "impala": (*_OUR_OWN, "gae_lambda", "clip"),
}
"""Fields of ``PPOSettings`` that RLlib's own algorithms do not have."""

ENVPOOL = "envpool"
"""One of ``EnvConfig.vectorization``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvConfig:
    """The environment of a policy."""

    id: str
    """Gymnasium's id of the environment, such as CartPole-v1; module:Name-v0 imports the module first, and module:Name
    is a class or function in it, which needs no registration."""
    kwargs: JsonObject = field(default_factory=dict)
    """Arguments of the environment, such as '{"length": 16}'."""
    wrappers: tuple[str, ...] = ()
    """Wrappers by name, the first innermost: hide-velocities[=INDEX,...] (of classic control, so that the policy has to
    remember), frame-skip=N, frame-stack=N (the last N vectors or images as one), time-limit=N, MiniGrid's grid-image
    (alone), grid-full, grid-onehot, atari (small grey frames, four at a time, and in training rewards clipped to -1 to
    1), and module:Class[=VALUE] of your own."""
    previous_action: bool = False
    """Show the policy its previous action beside the observation, as part previous_action: one-hot, or the numbers of a
    Box; zeros at the beginning of an episode. The same as previous-action for the last wrapper."""
    previous_reward: bool = False
    """Show the policy its previous reward beside the observation, as part previous_reward: as the environment gave it,
    0 at the beginning of an episode. The same as previous-reward for the last wrapper."""
    max_episode_steps: int | None = None
    """Truncate episodes after this many steps of the environment itself; None: as registered. The same as time-limit
    for the first wrapper."""
    stagger_episodes: bool = False
    """In training, truncate every environment's first episode at a random step: where all episodes last until their
    time limit, environments would otherwise always be at the same step of their episodes."""
    vectorization: Literal["auto", "sync", "async", "envpool"] = "auto"
    """How environments are stepped together: by their own vector class if there is one with the same spaces (auto), in
    turn, in parallel, or in C++ by envpool, which must be installed and has some of them (evaluation uses
    Gymnasium's)."""
    step_time_limit: float | None = 600.0
    """Seconds that a step or a reset may take before it counts as a fault; None: no limit."""
    check_bounds: bool = False
    """Observations outside the bounds that their space declares are faults; otherwise the first one is warned about."""
    target: Literal["ignore", "ask"] = "ignore"
    """What to do with an environment of one step whose info holds the right answer under "target": learn to act, from
    the reward alone (ignore), or refuse the run, which says how to learn from the answers (ask)."""
    tolerate_faults: bool = False
    """After a fault (an error, a number that is not finite, an observation outside its space, a step that takes too
    long) create the environment again, count the fault and go on, unless faults end more than half of an environment's
    episodes; otherwise the run ends."""

    def __post_init__(self) -> None:
        """Checks the values."""
        if not self.id.strip():
            raise ValueError("env.id must name an environment, such as CartPole-v1; it is empty.")
        if self.max_episode_steps is not None:
            check_number("env.max_episode_steps", self.max_episode_steps, at_least=1, at_most=MAX_STEPS)
        if self.step_time_limit is not None:
            check_number("env.step_time_limit", self.step_time_limit, above=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOSettings:
    """How the policy learns: proximal policy optimisation."""

    lr: float = 1e-3
    """Adam's learning rate (at the start, when annealed)."""
    is_lr_annealed: bool = False
    """Lower the learning rate linearly to 0 over the budget of env steps."""
    lr_warmup_steps: int = 0
    """Env steps over which the learning rate rises linearly from 0: Adam's first steps are as large as later ones,
    however small the gradients, and can change a policy too much."""
    lr_kl_target: float | None = None
    """Adapt the learning rate to this KL divergence, the mean of an iteration (kl of the metrics): above twice of it
    the next rate is divided by 1.5, below half of it multiplied by 1.5, from lr / 100 to 10 lr. Where it is annealed or
    rises at the start, what is adapted is a factor of it, from 1 / 100 to 1. None: the rate does not depend on it."""
    gamma: float = 0.99
    """Discount per environment step."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    reward_scale: float | None = None
    """Rewards are multiplied by this for learning, and reported raw; None: 1 - gamma, so that values stay small, or 1
    if they are normalised."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return, in each environment runner: what is
    learned is then the same for rewards of any size, down to returns that vary by about 0.001."""
    clip: float = 0.2
    """How far the probability ratio may move from 1 (at the start, when annealed)."""
    is_clip_annealed: bool = False
    """Lower clip linearly to 0 over the budget of env steps; with algorithm ppo only."""
    value_clip: float | None = None
    """How far a value may move from the rollout's before its loss stops falling; None: no limit."""
    target_kl: float | None = None
    """End an iteration's passes when the KL divergence from the rollout's policy exceeds this; None: never."""
    entropy_coefficient: float = 0.01
    """Weight of the policy's entropy, which is maximised (at the start, when annealed)."""
    entropy_coefficient_final: float | None = None
    """Move the weight of the entropy linearly to this over the budget of env steps; None: keep it."""
    value_coefficient: float = 0.5
    """Weight of the value loss, half the squared error."""
    noise_correlation: float = 0.0
    """Box actions, in training: the correlation of their noise from one step of an episode to the next, from 0 to below
    1; the noise of each step alone stays that of the policy. Long pushes in one direction reach what independent noise
    does not; 0.9 lasts some 10 steps."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""
    adam_epsilon: float = 1e-5
    """Adam's epsilon; with algorithm ppo only."""
    num_epochs: int = 4
    """Passes over each iteration's samples."""
    num_minibatches: int = 4
    """Gradient steps in each of these passes."""
    num_rollout_steps: int = 64
    """T: steps of every environment in one iteration."""
    collect_ahead: bool = False
    """Env runners collect the next steps during the update, with weights one iteration old, for which the learners
    correct; False: they take turns."""

    @classmethod
    def recommended(cls) -> "PPOSettings":
        """Settings for an environment of which nothing is known, see docs/results/what-it-took.md.

        The defaults of the fields suit rewards of about 1 a step. Instead, rewards are normalised: of a hundredth of
        that, the values would be smaller than the errors of the critic, and little would be learned from them.
        """
        return cls(normalize_rewards=True)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_number("ppo.lr", self.lr, above=0)
        check_number("ppo.lr_warmup_steps", self.lr_warmup_steps, at_least=0)
        check_number("ppo.gamma", self.gamma, at_least=0, at_most=1)
        check_number("ppo.gae_lambda", self.gae_lambda, at_least=0, at_most=1)
        if self.reward_scale is not None:
            check_number("ppo.reward_scale", self.reward_scale, above=0)
        check_number("ppo.clip", self.clip, above=0)
        check_number("ppo.adam_epsilon", self.adam_epsilon, above=0)
        for name in ("value_clip", "target_kl", "lr_kl_target"):
            if getattr(self, name) is not None:
                check_number(f"ppo.{name}", getattr(self, name), above=0)
        if self.lr_kl_target is not None and self.target_kl is not None and self.lr_kl_target >= self.target_kl:
            raise ValueError(
                f"ppo.lr_kl_target must be below target_kl ({self.target_kl}), which ends the passes before it could "
                f"be reached, got {self.lr_kl_target}."
            )
        if self.entropy_coefficient_final is not None:
            check_number("ppo.entropy_coefficient_final", self.entropy_coefficient_final, at_least=0)
        check_number("ppo.entropy_coefficient", self.entropy_coefficient, at_least=0)
        check_share("ppo.noise_correlation", self.noise_correlation)
        check_number("ppo.value_coefficient", self.value_coefficient, at_least=0)
        check_number("ppo.max_grad_norm", self.max_grad_norm, above=0)
        for name in ("num_epochs", "num_minibatches", "num_rollout_steps"):
            check_number(f"ppo.{name}", getattr(self, name), at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActingExperiment(RunSettings):
    """An experiment that trains a policy: environment, policy, algorithm, budget and machines."""

    env: EnvConfig
    """The environment."""
    model: PolicyConfig = field(default_factory=PolicyConfig)
    """The policy."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """How the policy learns."""
    algorithm: Algorithm = "ppo"
    """Our recurrent PPO on columns of whole environments (ppo), or one of RLlib's own: PPO (stock-ppo), or APPO and
    IMPALA, which collect during updates and backpropagate through whole fragments of ppo.num_rollout_steps."""
    num_envs_per_env_runner: int = 32
    """Environments of each environment runner."""
    video_every: int = 0
    """Iterations between two videos of the policy, each an episode of at most 200 steps, in the run's folder videos/
    and, where they take some, in the loggers; 0: none."""
    exact_resume: bool = False
    """With checkpoint_iterations: begin new episodes with every checkpoint, so that a resumed run equals an
    uninterrupted one; the run ends if an episode lasts from one checkpoint to the next. False: a checkpoint leaves the
    environments as they are, and a resumed run begins new episodes, since environments cannot be saved."""

    def __post_init__(self) -> None:
        """Checks everything that does not depend on the machine."""
        RunSettings.__post_init__(self)
        check_number("num_envs_per_env_runner", self.num_envs_per_env_runner, at_least=1)
        check_number("video_every", self.video_every, at_least=0)
        _check_exact_resume(self)
        if self.stop.at_accuracy is not None:
            raise ValueError("stop.at_accuracy has no effect in runs that act; use stop.at_return.")
        if self.ppo.is_lr_annealed and self.ppo.lr_warmup_steps >= self.budget.env_steps:
            raise ValueError(
                f"ppo.lr_warmup_steps must be below budget.env_steps ({self.budget.env_steps}), where the annealed "
                f"learning rate ends, got {self.ppo.lr_warmup_steps}."
            )
        if self.algorithm == "ppo":
            check_rows(
                num_env_runners=self.num_env_runners,
                num_envs_per_env_runner=self.num_envs_per_env_runner,
                num_learners=self.num_learners,
                num_minibatches=self.ppo.num_minibatches,
                prefix="ppo.",
            )
            check_ahead(collect_ahead=self.ppo.collect_ahead, num_env_runners=self.num_env_runners, prefix="ppo.")
        else:
            _check_stock(self)

    @property
    def evaluated_env(self) -> EnvConfig:
        """The environment of evaluations during training."""
        own, given = self.env, self.eval
        if given.env is not None:
            return dataclasses.replace(own, id=given.env, kwargs=given.kwargs)
        return dataclasses.replace(own, kwargs={**own.kwargs, **given.kwargs})

    @property
    def num_envs(self) -> int:
        """Number of environments of all runners."""
        return max(1, self.num_env_runners) * self.num_envs_per_env_runner

    @property
    def batch_size(self) -> int:
        """Environment steps of one iteration."""
        return self.num_envs * self.ppo.num_rollout_steps


def without_effect(experiment: ActingExperiment, algorithm: str) -> dict[str, object]:
    """The settings of an experiment that another algorithm does not have, with their defaults.

    Args:
        experiment: whose settings.
        algorithm: the other one; an unknown one has all.

    Returns:
        The defaults by the names of fields of ``PPOSettings``; empty: the algorithm has all that are set.
    """
    defaults = PPOSettings()
    names = _WITHOUT_EFFECT.get(algorithm, ())
    return {name: getattr(defaults, name) for name in names if getattr(experiment.ppo, name) != getattr(defaults, name)}


def _check_exact_resume(experiment: ActingExperiment) -> None:
    """Refuses ``exact_resume`` where no run could repeat another."""
    if not experiment.exact_resume:
        return
    if experiment.checkpoint_iterations is None:
        raise ValueError(
            "exact_resume needs checkpoint_iterations: a checkpoint by the clock comes at another iteration."
        )
    if experiment.algorithm in ASYNCHRONOUS:
        raise ValueError(
            f"exact_resume has no effect with algorithm {experiment.algorithm}, which never learns the same twice; "
            "leave it out, or use algorithm ppo."
        )


def _check_stock(experiment: ActingExperiment) -> None:
    """Refuses what RLlib's own learners cannot do, and settings that they do not have."""
    ppo, algorithm = experiment.ppo, experiment.algorithm
    for name in without_effect(experiment, algorithm):
        raise ValueError(f"ppo.{name} has no effect with algorithm {algorithm}; leave it out, or use algorithm ppo.")
    if experiment.env.vectorization == ENVPOOL:
        raise ValueError(f"env.vectorization envpool is not for algorithm {algorithm}; use auto, or algorithm ppo.")
    if experiment.model.train_random_ticks:
        raise ValueError(
            f"model.train_random_ticks is not for algorithm {algorithm}, which does not record how many ticks a step "
            "took; leave it out, or use algorithm ppo."
        )
    if algorithm in ASYNCHRONOUS:
        _check_fragments(experiment)
        return
    if experiment.batch_size % ppo.num_minibatches:
        raise ValueError(
            f"ppo.num_minibatches must divide the {experiment.batch_size} steps of an iteration "
            f"({experiment.num_envs} environments x {ppo.num_rollout_steps} steps), got {ppo.num_minibatches}."
        )
    if experiment.num_learners > 1 and experiment.num_envs % experiment.num_learners:
        raise ValueError(
            f"num_learners must divide the {experiment.num_envs} environments into equal parts, "
            f"got {experiment.num_learners}."
        )


def _check_fragments(experiment: ActingExperiment) -> None:
    """Refuses fragments that cannot be divided: a learner gets whole fragments of a runner."""
    num_runners = max(1, experiment.num_env_runners)
    if experiment.num_learners > 1 and num_runners % experiment.num_learners:
        raise ValueError(
            f"num_learners must divide the {num_runners} environment runners into equal parts with algorithm "
            f"{experiment.algorithm}, got {experiment.num_learners}."
        )
    check_rows(
        num_env_runners=experiment.num_env_runners,
        num_envs_per_env_runner=experiment.num_envs_per_env_runner,
        num_learners=experiment.num_learners,
        num_minibatches=experiment.ppo.num_minibatches,
        prefix="ppo.",
    )
