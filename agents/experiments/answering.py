"""An experiment that answers: a single-step environment, a model that answers its inputs, and how it is trained."""

import json
from dataclasses import dataclass, field
from typing import Literal, get_args

from ctm_rl.agents.experiments.json_option import JsonObject
from ctm_rl.agents.experiments.settings import MAX_SEED, MAX_STEPS, RunSettings
from ctm_rl.agents.experiments.validation import check_number
from ctm_rl.config import AnswerConfig, check_choice

Signal = Literal["label", "reward"]
LossKind = Literal["classes", "route", "order"]
Schedule = Literal["constant", "cosine", "multistep"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """The single-step environment whose inputs the model answers."""

    id: str
    """Gymnasium's id of the environment, such as ctm_rl/Parity-v0; module:Name-v0 imports the module first. Its info
    must hold the right answer under "target"."""
    kwargs: JsonObject = field(default_factory=dict)
    """Arguments of the environment, such as '{"length": 16}'."""
    held_out_kwargs: JsonObject = field(default_factory=dict)
    """Arguments that differ for held-out samples, such as '{"split": "test"}'."""
    words: tuple[str, ...] = ()
    """What an element of an answer and a whole sample are called, such as bits and "whole sequences", or one word where
    a sample has one element, such as images: progress and evaluate use them."""

    def __post_init__(self) -> None:
        """Refuses an empty id, and arguments that JSON cannot hold."""
        if not self.id.strip():
            raise ValueError("env.id must name an environment, such as ctm_rl/Parity-v0; it is empty.")
        if len(self.words) > 2 or not all(word.strip() for word in self.words):
            raise ValueError(f"env.words must be at most two, none of them empty, got {list(self.words)}.")
        for name in ("kwargs", "held_out_kwargs"):
            try:
                json.dumps(getattr(self, name))
            except (TypeError, ValueError) as error:
                raise ValueError(f"env.{name} must contain only values that JSON can hold: {error}.") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningSettings:
    """How the model is trained: the kind of answer, batches, optimiser and schedule."""

    loss: LossKind = "classes"
    """classes: cross-entropy at every tick; route: the same on the part of a route that is right from its start, and a
    few steps beyond; order: connectionist temporal classification over the ticks."""
    use_most_certain: bool | None = None
    """Which tick the loss uses besides the best one: True: the most certain; False: the last; None: as published, the
    last one for baselines, except for images with one answer, and otherwise the most certain."""
    min_num_ticks: int | None = None
    """Compute each loss from the first ticks alone, their number drawn between this and model.num_ticks, so that the
    model answers early and can halt; None: from all ticks."""
    halt_certainty: float | None = None
    """In the loss, use the first tick that is at least this certain in place of the most certain one, so that a model
    that halts there learns to be right there; None: the most certain tick."""
    batch_size: int = 64
    """Samples of one optimiser step, all learners together."""
    num_steps_per_iteration: int = 50
    """Optimiser steps of one iteration; their samples are sent together."""
    num_accumulated: int = 1
    """Parts that each learner's share of a batch is divided into, processed one after the other to save memory."""
    lr: float = 1e-3
    """Learning rate of AdamW after the warm-up."""
    schedule: Schedule = "cosine"
    """constant; cosine: down to 0 over the budget of env steps; multistep: times lr_decay at each milestone."""
    num_warmup_steps: int = 100
    """Optimiser steps over which the learning rate rises from 0."""
    milestones: tuple[int, ...] = ()
    """multistep: the optimiser steps at which the learning rate falls."""
    lr_decay: float = 0.1
    """multistep: the factor by which it falls."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    undecayed: tuple[str, ...] = ("bias", "norm", "start_", "decay_rate", "temperature")
    """Parameters are not decayed if their name contains one of these, or if they have one dimension only."""
    max_grad_norm: float | None = None
    """Scale gradients down to this global norm; None: do not."""
    clip_quantile: float | None = None
    """Scale each parameter's gradient down to this quantile of its last 1,000 norms; None: do not."""
    precision: Precision = "float32"
    """Number format of the forward pass; float16 scales the loss."""

    def __post_init__(self) -> None:
        """Refuses settings that cannot learn."""
        for name, choices in (("loss", LossKind), ("schedule", Schedule), ("precision", Precision)):
            check_choice(f"learning.{name}", getattr(self, name), get_args(choices))
        check_number("learning.batch_size", self.batch_size, at_least=1, at_most=MAX_STEPS)
        for name in ("num_steps_per_iteration", "num_accumulated"):
            check_number(f"learning.{name}", getattr(self, name), at_least=1)
        if self.min_num_ticks is not None:
            check_number("learning.min_num_ticks", self.min_num_ticks, at_least=1)
        if self.halt_certainty is not None:
            check_number("learning.halt_certainty", self.halt_certainty, above=0, at_most=1)
        check_number("learning.lr", self.lr, above=0)
        check_number("learning.num_warmup_steps", self.num_warmup_steps, at_least=0)
        check_number("learning.lr_decay", self.lr_decay, above=0, at_most=1)
        check_number("learning.weight_decay", self.weight_decay, at_least=0)
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError("learning.milestones must be given with schedule multistep, and only with it.")
        if self.max_grad_norm is not None:
            check_number("learning.max_grad_norm", self.max_grad_norm, above=0)
        if self.clip_quantile is not None:
            check_number("learning.clip_quantile", self.clip_quantile, above=0, at_most=1)
            if self.max_grad_norm is not None:
                raise ValueError("learning.max_grad_norm and learning.clip_quantile exclude each other; make one None.")


@dataclass(frozen=True, kw_only=True, slots=True)
class BanditSettings:
    """How the model is trained from rewards alone: proximal policy optimisation of randomly drawn answers.

    Batches, optimiser and schedule are those of ``learning``.
    """

    clip: float = 0.2
    """How far the probability ratio may move from 1."""
    entropy_coefficient: float = 0.01
    """Weight of the answers' entropy, summed over their elements, which is maximised (at the start, when annealed)."""
    entropy_coefficient_final: float | None = None
    """Move the weight of the entropy linearly to this over the budget of env steps; None: keep it."""
    value_coefficient: float = 0.5
    """Weight of the value loss, half the squared error."""
    num_epochs: int = 1
    """Passes over each iteration's samples; batches stay as they were drawn, each pass shuffles their order."""

    def __post_init__(self) -> None:
        """Refuses settings that cannot learn."""
        check_number("bandit.clip", self.clip, above=0)
        check_number("bandit.entropy_coefficient", self.entropy_coefficient, at_least=0)
        if self.entropy_coefficient_final is not None:
            check_number("bandit.entropy_coefficient_final", self.entropy_coefficient_final, at_least=0)
        check_number("bandit.value_coefficient", self.value_coefficient, at_least=0)
        check_number("bandit.num_epochs", self.num_epochs, at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutSettings:
    """Tests during training: how often, and on which samples."""

    num_samples: int = 1000
    """Held-out samples of a test; of a finite data set, at most all of it."""
    num_iterations: int = 10
    """Iterations between two tests, unless eval.every is set; there is always one after the last iteration."""
    seed: int = 0
    """The same seed makes the same samples; training uses none of them."""

    def __post_init__(self) -> None:
        """Refuses settings that test nothing."""
        check_number("held_out.num_samples", self.num_samples, at_least=1)
        check_number("held_out.num_iterations", self.num_iterations, at_least=1)
        check_number("held_out.seed", self.seed, at_least=0, at_most=MAX_SEED)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweringExperiment(RunSettings):
    """An experiment that trains a model on a single-step task: environment, model, training, budget and machines."""

    env: TaskConfig
    """The environment; a sample is one environment step."""
    model: AnswerConfig
    """The model; sizes that follow from the environment's spaces are set automatically."""
    signal: Signal = "label"
    """label: learn from the right answers, with the machine's own loss; reward: learn from the share of right elements
    of its own answers alone, by proximal policy optimisation."""
    learning: LearningSettings = field(default_factory=LearningSettings)
    """How it is trained; with signal reward, the loss only determines the kind of answer."""
    bandit: BanditSettings = field(default_factory=BanditSettings)
    """More settings for training with signal reward."""
    held_out: HeldOutSettings = field(default_factory=HeldOutSettings)
    """Tests during training."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run on any machine."""
        RunSettings.__post_init__(self)
        if self.stop.at_return is not None:
            raise ValueError("stop.at_return has no effect in runs that answer; use stop.at_accuracy.")
        learning = self.learning
        if self.signal not in get_args(Signal):
            raise ValueError(f"signal must be one of {', '.join(get_args(Signal))}; got {self.signal!r}.")
        unit = max(1, self.num_learners) * learning.num_accumulated
        if learning.batch_size % unit:
            below, above = learning.batch_size // unit * unit, (learning.batch_size // unit + 1) * unit
            raise ValueError(
                f"learning.batch_size {learning.batch_size} must be a multiple of {max(1, self.num_learners)} learners "
                f"x {learning.num_accumulated} parts; the nearest that work: "
                f"{f'{below} or {above}' if below else above}."
            )
        if self.eval.changed:
            raise ValueError(
                f"eval.{self.eval.changed[0]} has no effect on a run that answers: its tests use held-out samples, see "
                "held_out.num_samples and held_out.seed; leave it out."
            )
        _check_signal(self)
        _check_ticks(self)
        _check_halting(self)

    @property
    def num_rows(self) -> int:
        """Samples of one optimiser step in one learner."""
        return self.learning.batch_size // max(1, self.num_learners)

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole budget; with signal reward, every pass uses each sample."""
        num_batches = -(-self.budget.env_steps // self.learning.batch_size)
        return num_batches * (self.bandit.num_epochs if self.signal == "reward" else 1)


def _check_ticks(experiment: AnsweringExperiment) -> None:
    """Refuses ``min_num_ticks`` for models that do not answer at every tick, and above the number of ticks."""
    model, learning, least = experiment.model, experiment.learning, experiment.learning.min_num_ticks
    if least is None:
        return
    if experiment.signal == "reward" or learning.loss == "order" or model.kind == "mlp" or model.num_answer_ticks:
        raise ValueError(
            "learning.min_num_ticks is for models that answer at every tick, with signal label: not for loss order, "
            "kind mlp, or questions about digits."
        )
    check_number("learning.min_num_ticks", least, at_least=1, at_most=model.num_ticks)


def _check_halting(experiment: AnsweringExperiment) -> None:
    """Refuses ``halt_certainty`` where the loss does not use the most certain tick."""
    learning, kind = experiment.learning, experiment.model.kind
    if learning.halt_certainty is None:
        return
    if learning.loss == "order" or learning.use_most_certain is False or kind == "mlp" or experiment.signal == "reward":
        raise ValueError(
            "learning.halt_certainty is for models that are read at their most certain tick, with signal label: not "
            "for loss order, use_most_certain False, or kind mlp."
        )


def _check_signal(experiment: AnsweringExperiment) -> None:
    """Refuses settings that the signal cannot train, and settings that have no effect with it."""
    learning = experiment.learning
    if experiment.signal == "label":
        if experiment.bandit != BanditSettings():
            raise ValueError(
                "bandit.* fields have no effect with signal label; set signal to reward, or leave them out."
            )
        return
    if learning.loss == "order":
        raise ValueError(
            "signal reward needs one answer at one tick; an order is spread over all ticks and is learned with "
            "signal label."
        )
    if learning.use_most_certain is False:
        raise ValueError("learning.use_most_certain cannot be False with signal reward: answers are read at that tick.")
    # Advantages are relative to the batch's mean.
    check_number("learning.batch_size", learning.batch_size, at_least=2, at_most=MAX_STEPS)
