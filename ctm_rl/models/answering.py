"""Models that answer: they attend to one input for many ticks and answer after each, or in one pass (feed-forward)."""

import abc
import math
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from ctm_rl.config import RESNETS, AnswerConfig, CoreConfig, check_at_least
from ctm_rl.encoders import build_input_encoder
from ctm_rl.encoders.digits import QuestionEncoder
from ctm_rl.encoders.own import OwnEncoder
from ctm_rl.encoders.parity import ParityEncoder
from ctm_rl.encoders.positions import build_positions
from ctm_rl.engine.dispatch import answer_ticking, answer_ticks
from ctm_rl.machine.attention import AttentionReader, AttentionReading, ConstantReading, Memory, RowReading
from ctm_rl.machine.certainty import certainty
from ctm_rl.machine.core import Core, CTMCore, project_
from ctm_rl.machine.halting import Halted, Ticking, check_halt_certainty, tick_until_certain
from ctm_rl.machine.recorder import Recorder, Recording
from ctm_rl.machine.recurrent_baselines import GRUCore, LSTMCore
from ctm_rl.models.answers import Answer, answer_of, answering_ticks, joined, read_answer
from ctm_rl.models.answers import Thought as Thought
from ctm_rl.models.answers import group as group
from ctm_rl.models.baseline_width import settle_width
from ctm_rl.models.feed_forward import MAP_SIDE, FeedForward, QuestionFeedForward
from ctm_rl.models.preprocessing import check_observations, model_inputs, rows_of_equal_length


class AnsweringModel(nn.Module, abc.ABC):
    """A model that answers observations: what the machine, its baselines and the feed-forward network share."""

    config: AnswerConfig
    """All sizes and choices."""

    @abc.abstractmethod
    def forward(self, inputs: Tensor, question: Int[Tensor, "B N"] | None = None) -> Thought:
        """Answers a batch of inputs after each tick."""

    def thought(self, observations: Any, *, num_ticks: int | None = None, record: bool = False) -> Thought:
        """Answers what an environment shows, after each tick; only the ticks that answer count.

        Args:
            observations: as of ``answer``.
            num_ticks: K; ``None``: as configured.
            record: whether to keep what happens inside each tick.

        Returns:
            Predictions [N, G x C, K] and certainties [N, K] of the ticks that answer, and the recording or None.

        Raises:
            ValueError: the observations are not what the model was trained on, see ``check_observations``.
        """
        checked = check_observations(self.config, observations, next(self.parameters()).device)
        inputs = model_inputs(self.config, checked)
        return answering_ticks(self.config, self._answer_all(*inputs, num_ticks, record))

    @torch.no_grad()
    def answer(
        self,
        observations: Any,
        num_ticks: int | None = None,
        halt_certainty: float | None = None,
        record: bool = False,
    ) -> Answer:
        """Answers what an environment shows, in evaluation mode and without gradient.

        Args:
            observations: one observation or a batch of N, as arrays, tensors or lists, or these by name: images of
                bytes with channels last or first, vectors, or a dictionary of digits and a question. One observation
                counts as a batch of one.
            num_ticks: K, the most ticks that are taken; ``None``: as trained. Not for questions, whose parts set it.
            halt_certainty: read each row at the first tick that is as certain, from 0 to 1, or at its last one;
                unless ``record`` is set, it takes no more ticks. ``None``: all ticks are taken, and each row is read
                at its most certain one, as ``ctm-rl evaluate`` does.
            record: whether to keep what happens inside each tick, see ``AnswerRecord``.

        Returns:
            Classes, probabilities, certainty and ticks of each row, as NumPy arrays.

        Raises:
            ValueError: one line that says what the model expects and what it got; or it is in training mode.
        """
        if self.training:
            raise ValueError("a model answers in evaluation mode: call model.eval() first.")
        check_halt_certainty(halt_certainty)
        if halt_certainty is not None and self.config.is_emitted:
            raise ValueError("halt_certainty needs an answer at every tick; an order is spread over all of them.")
        checked = check_observations(self.config, observations, next(self.parameters()).device)
        groups = rows_of_equal_length(checked)
        if record and len(groups) > 1:
            raise ValueError("record needs questions with equally many digits and operations in all rows of a batch.")
        return joined(
            [self._answer(*model_inputs(self.config, part), num_ticks, halt_certainty, record) for _, part in groups],
            [rows for rows, _ in groups],
        )

    def _answer(
        self,
        inputs: Tensor,
        question: Int[Tensor, "B N"] | None,
        num_ticks: int | None,
        halt_certainty: float | None,
        record: bool,
    ) -> Answer:
        """The answers to inputs; see ``answer``."""
        if halt_certainty is not None and not record:
            return self._halt(inputs, question, num_ticks, halt_certainty)
        thought = self._answer_all(inputs, question, num_ticks, record)
        places = self._places_of(inputs, question) if record else ()
        return read_answer(self.config, thought, halt_certainty, places)

    @abc.abstractmethod
    def _answer_all(
        self, inputs: Tensor, question: Int[Tensor, "B N"] | None, num_ticks: int | None, record: bool
    ) -> Thought:
        """The answers after all ticks."""

    @abc.abstractmethod
    def _halt(
        self, inputs: Tensor, question: Int[Tensor, "B N"] | None, num_ticks: int | None, halt_certainty: float
    ) -> Answer:
        """The answers of rows that stop when they are certain."""

    @abc.abstractmethod
    def _places_of(self, inputs: Tensor, question: Int[Tensor, "B N"] | None) -> tuple[int, ...]:
        """The shape of the map that is attended to."""


class ContinuousThoughtMachine(AnsweringModel):
    """The machine for data: encoder, reader, recurrent core, linear answer head. Source: arXiv:2505.05522.

    With ``config.kind`` ``lstm`` or ``gru``, that baseline replaces the core; everything else is the same. The
    feed-forward baseline, which does not tick, is ``FeedForwardModel``; ``build_model`` makes either.

    Args:
        config: all sizes and choices; ``self.config`` has a baseline's width settled.
    """

    def __init__(self, config: AnswerConfig) -> None:
        super().__init__()
        if config.kind == "mlp":
            raise ValueError("kind mlp does not tick; use build_model or FeedForwardModel.")
        self.config = config = settle_width(config, build_model)
        self.encoder = build_input_encoder(config)
        self.positions = build_positions(config.positions, self.encoder.out_dim)
        self.question = QuestionEncoder(config.feature_dim) if config.encoder == "digits" else None
        num_features = config.feature_dim if config.num_heads else config.input_dim
        self.core = build_core(config, num_features, config.kind, config.baseline_dim, config.num_baseline_layers)
        self.reader = None
        if config.num_heads:
            self.reader = AttentionReader(
                self.core.query_dim, self.encoder.out_dim, config.feature_dim, config.num_heads, config.dropout
            )
        self.head = nn.Linear(self.core.answer_dim, config.num_groups * config.num_classes)

    def forward(self, inputs: Tensor, question: Int[Tensor, "B N"] | None = None, *, record: bool = False) -> Thought:
        """Answers a batch of inputs after each tick, from the learned start state.

        Args:
            inputs: images [B, I, H, W]; sequences of -1 and 1 [B, S]; digits one after the other [B, N, 1, H, W];
                or the features themselves [B, F], without an encoder.
            question: with digits only: index, operator, index, ... [B, N]; an operator is -1 (plus) or -2 (minus).
            record: whether to keep what happens inside each tick.

        Returns:
            Predictions [B, G x C, K], certainties [B, K], and the recording or None.
        """
        return self._answer_all(inputs, question, None, record)

    @torch.no_grad()
    def think(
        self,
        inputs: Tensor,
        question: Int[Tensor, "B N"] | None = None,
        *,
        halt_certainty: float | None,
        num_ticks: int | None = None,
    ) -> Halted:
        """Ticks until each row is certain, without gradient; rows that have halted cost nothing from then on.

        A row halts at ``min {k: certainty_k >= halt_certainty}``, or at its last tick; of questions only the ticks
        that answer count. Equal to the answer of ``forward`` at that tick.

        Args:
            inputs: as of ``forward``, B rows.
            question: as of ``forward``.
            halt_certainty: the certainty at which a row halts, from 0 to 1; ``None``: all ticks are taken.
            num_ticks: K, the most ticks that are taken; ``None``: as configured. Not for questions, whose parts set it.

        Returns:
            The answer after each row's last tick, the number of ticks it took, and its certainty.

        Raises:
            ValueError: a value is not allowed, or the model is in training mode.
        """
        if self.training:
            raise ValueError("rows halt in evaluation mode only: call eval() first.")
        readings = self._readings_of(inputs, question, num_ticks)
        first_tick = len(readings) - self.config.num_answer_ticks + 1 if self.question is not None else 1
        num_rows = len(inputs)
        with answer_ticking(self.core, readings, num_rows, inputs.device.type) as ticking:
            (predictions,), ticks, certainty = tick_until_certain(
                _Answering(ticking, self), num_rows, len(readings), halt_certainty, first_tick
            )
        return Halted(predictions, ticks, certainty)

    def project_(self) -> None:
        """Brings decay rates back into their limits; call it after each optimiser step."""
        project_(self)

    def _answer_all(
        self, inputs: Tensor, question: Int[Tensor, "B N"] | None, num_ticks: int | None, record: bool
    ) -> Thought:
        readings = self._readings_of(inputs, question, num_ticks)
        recorder = Recorder() if record else None
        logits = answer_ticks(self.core, readings, len(inputs), self.head, recorder)
        return _thought(self.config, logits.transpose(1, 2), None if recorder is None else recorder.finish())

    def _halt(
        self, inputs: Tensor, question: Int[Tensor, "B N"] | None, num_ticks: int | None, halt_certainty: float
    ) -> Answer:
        halted = self.think(inputs, question, halt_certainty=halt_certainty, num_ticks=num_ticks)
        return answer_of(group(halted.predictions, self.config.num_groups), halted.certainty, halted.ticks)

    def _places_of(self, inputs: Tensor, question: Int[Tensor, "B N"] | None) -> tuple[int, ...]:
        if self.reader is None:
            return ()
        one = inputs[:1] if question is None else inputs[:1, 0]
        return tuple(self.encoder(one).shape[2:])

    def _readings_of(self, inputs: Tensor, question: Tensor | None, num_ticks: int | None = None) -> list[RowReading]:
        """What is read at each tick; ``num_ticks``: K, or ``None`` for the configured K."""
        if (question is None) != (self.question is None):
            raise ValueError("question must be given with the digits encoder, and only with it.")
        if num_ticks is not None:
            check_at_least("num_ticks", num_ticks, 1)
            if question is not None:
                raise ValueError("num_ticks of questions follows from their parts; leave it out.")
        if question is not None:
            return self._question_readings(inputs, question)
        return [self._reading(inputs)] * (self.config.num_ticks if num_ticks is None else num_ticks)

    def _reading(self, inputs: Tensor) -> RowReading:
        """The same input at all ticks."""
        if self.reader is None:
            return ConstantReading(inputs)
        if isinstance(self.encoder, ParityEncoder):
            return self._symbol_reading(self.reader, inputs)
        return self.reader.reading(_tokens(self.positions(self.encoder(inputs))))

    def _symbol_reading(self, reader: AttentionReader, sequences: Shaped[Tensor, "B S"]) -> AttentionReading:
        """Sequences of two symbols: keys and values of both at every place, of which each row selects."""
        one = torch.ones_like(sequences[0])
        symbols = torch.stack((-one, one))  # [2, S]
        both = reader.memorise(_tokens(self.positions(self.encoder(symbols))))
        is_one = (sequences == 1)[:, None, :, None]
        return AttentionReading(reader, Memory(*(torch.where(is_one, part[1], part[0]) for part in both)))

    def _question_readings(self, digits: Tensor, question: Tensor) -> list[RowReading]:
        """Digit after digit through attention, then the parts of the question directly, then zeros while answering."""
        assert self.reader is not None
        assert self.question is not None
        feature_maps = self.positions(self.encoder(digits.flatten(0, 1))).unflatten(0, digits.shape[:2])
        parts_read: list[RowReading] = [
            self.reader.reading(_tokens(feature_map)) for feature_map in feature_maps.unbind(1)
        ]
        parts = self.question(question)  # [B, N, F]
        if self.config.kind != "ctm":  # as published for the LSTM
            parts = self.reader.kv(parts)
        parts_read += [ConstantReading(part) for part in parts.unbind(1)]
        nothing = ConstantReading(parts.new_zeros(len(digits), self.config.feature_dim))
        return [
            *(reading for reading in parts_read for _ in range(self.config.ticks_per_input)),
            *[nothing] * self.config.num_answer_ticks,
        ]


class _Answering:
    """Ticking rows with the answer and the certainty of each, see ``machine.halting.Deciding``.

    Args:
        ticking: the rows.
        model: the model whose head answers.
    """

    def __init__(self, ticking: Ticking, model: ContinuousThoughtMachine) -> None:
        self._ticking, self._model = ticking, model

    def tick(self) -> Float[Tensor, " b"]:
        """See ``machine.halting.Deciding``."""
        self._logits = self._model.head(self._ticking.tick())
        return certainty(group(self._logits, self._model.config.num_groups))

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """See ``machine.halting.Deciding``."""
        self._ticking.keep(rows)

    def outcome(self, rows: Int[Tensor, " n"]) -> list[Tensor]:
        """See ``machine.halting.Deciding``: the answers."""
        return [self._logits[rows]]


class FeedForwardModel(AnsweringModel):
    """The feed-forward baseline, which answers once: a ``Thought`` of a single tick.

    An answer that is emitted over the ticks also takes one pass, which returns the logits of all ticks. A ResNet's map
    is averaged over all its places, as published; that of a small encoder, whose receptive field is a few pixels, over
    4 x 4 parts of the image; sequences and vectors are taken whole.

    Args:
        config: with kind ``mlp``; ``self.config`` has its width settled.
    """

    def __init__(self, config: AnswerConfig) -> None:
        super().__init__()
        if config.kind != "mlp":
            raise ValueError(f"FeedForwardModel needs kind mlp, got {config.kind!r}.")
        self.config = settle_width(config, build_model)
        self.network = _build_network(self.config)

    def forward(self, inputs: Tensor, question: Int[Tensor, "B N"] | None = None) -> Thought:
        """Answers a batch of inputs.

        Args:
            inputs: as ``ContinuousThoughtMachine.forward`` takes them.
            question: with digits only, as ``ContinuousThoughtMachine.forward`` takes it.

        Returns:
            Predictions [B, G x C, 1] and certainties [B, 1]; of an emitted answer [B, G x C, K] and [B, K].
        """
        if (question is None) == isinstance(self.network, QuestionFeedForward):
            raise ValueError("question must be given with the digits encoder, and only with it.")
        logits = self.network(inputs) if question is None else self.network(inputs, question)
        config = self.config
        predictions = logits.unflatten(1, (config.num_groups * config.num_classes, -1))
        return _thought(config, predictions)

    def project_(self) -> None:
        """Does nothing: a feed-forward network has no parameters with limits."""

    def _answer_all(
        self, inputs: Tensor, question: Int[Tensor, "B N"] | None, num_ticks: int | None, record: bool
    ) -> Thought:
        if num_ticks is not None or record:
            raise ValueError(
                "num_ticks and record need a model with ticks, which kind mlp does not have; leave them out."
            )
        return self.forward(inputs, question)

    def _halt(
        self, inputs: Tensor, question: Int[Tensor, "B N"] | None, num_ticks: int | None, halt_certainty: float
    ) -> Answer:
        raise ValueError("halt_certainty needs a model with ticks, which kind mlp does not have; leave it out.")

    def _places_of(self, inputs: Tensor, question: Int[Tensor, "B N"] | None) -> tuple[int, ...]:
        return ()


def build_model(config: AnswerConfig) -> ContinuousThoughtMachine | FeedForwardModel:
    """The model that ``config.kind`` names."""
    return FeedForwardModel(config) if config.kind == "mlp" else ContinuousThoughtMachine(config)


def build_core(
    config: CoreConfig, num_features: int, kind: str, baseline_dim: int | None, num_baseline_layers: int = 1
) -> Core[Any]:
    """The recurrent core of ``kind`` ctm, lstm or gru, reading ``num_features`` features a tick."""
    if kind == "ctm":
        return CTMCore(config, num_features)
    assert baseline_dim is not None  # the caller has settled it
    baseline = {"lstm": LSTMCore, "gru": GRUCore}[kind]
    return baseline(num_features, baseline_dim, num_baseline_layers, config.dropout)


def _build_network(config: AnswerConfig) -> FeedForward | QuestionFeedForward:
    """The feed-forward network for the inputs of the configured encoder."""
    assert config.baseline_dim is not None
    output_dim = config.num_groups * config.num_classes * (config.num_ticks if config.is_emitted else 1)
    if config.encoder == "digits":
        return QuestionFeedForward(config.feature_dim, config.baseline_dim, output_dim, config.dropout)
    encoder = build_input_encoder(config)
    num_features, map_side = encoder.out_dim, 1
    if isinstance(encoder, OwnEncoder):
        shape = encoder.output_shape()
        is_map = len(shape) == 3
        num_features = shape[0] if is_map else math.prod(shape)
        map_side = MAP_SIDE if is_map else 1
    elif config.encoder == "parity":
        num_features *= config.input_dim  # one vector for each place
    elif config.encoder != "none" and config.encoder not in RESNETS:
        map_side = MAP_SIDE
    num_features *= map_side**2
    return FeedForward(encoder, num_features, config.baseline_dim, output_dim, config.dropout, map_side)


def _thought(config: AnswerConfig, predictions: Float[Tensor, "B O K"], recording: Recording | None = None) -> Thought:
    """Answers with their certainties."""
    return Thought(predictions, certainty(group(predictions, config.num_groups), dim=-2), recording)


def _tokens(feature_map: Float[Tensor, "B C *places"]) -> Float[Tensor, "B S C"]:
    """A map as tokens, one for each of its places; a vector is one token."""
    return feature_map[:, None] if feature_map.dim() == 2 else feature_map.flatten(2).transpose(1, 2)
