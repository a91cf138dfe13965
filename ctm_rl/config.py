"""Configurations of models: frozen, checked dataclasses; without torch, so that the command line starts quickly."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ctm_rl.named_code import declared_code, is_code_name

ModelKind = Literal["ctm", "lstm", "gru", "mlp"]
PairingKind = Literal["first-last", "last-first", "random", "random-pairing"]
PositionKind = Literal["none", "fourier", "multi-fourier", "rotational", "rotational-1d"]

RESNET_DEPTHS = (18, 34, 50, 101, 140, 152)
RESNET_STAGES = (1, 2, 3, 4)
RESNETS = tuple(f"resnet{depth}-{stage}" for depth in RESNET_DEPTHS for stage in RESNET_STAGES)
INPUT_ENCODERS = (*RESNETS, "shallow-wide", "conv", "parity", "digits", "none")
OBSERVATION_ENCODERS = ("control", "plain", "conv", "patches", "grid", "categories", "text")
OWN_ENCODERS = "ctm_rl.encoders"
"""The group of entry points by which installed packages declare encoders."""
SKIP = "skip"
"""In place of an encoder's name: this part of an observation is not read."""
ActionStd = Literal["free", "state"]
CriticKind = Literal["shared", "detached", "own"]
MIN_UNET_WIDTH = 16
MAX_NUMBERS = 2**24
"""Numbers of an input, or of a part of an observation, at most."""


def tuples_for_lists(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with tuples instead of lists: JSON has no tuples, and our dataclasses have no lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def check_at_least(name: str, value: float, minimum: float) -> None:
    """Raises ValueError, naming value and limit, when ``value`` is below ``minimum``."""
    if not value >= minimum:  # unlike value < minimum, this refuses NaN too
        raise ValueError(f"{name} must be at least {minimum}, got {value}.")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises ValueError, listing the choices, when ``value`` is not one of them."""
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {listed}; got {value!r}.")


def check_encoder(name: str, encoder: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError when an encoder is neither one of ours nor the user's, see ``is_own_encoder``."""
    if encoder not in choices and not is_own_encoder(encoder):
        listed = ", ".join((*choices, *sorted(declared_code(OWN_ENCODERS))))
        raise ValueError(f"{name} must be one of {listed}, or module:Class of your own; got {encoder!r}.")


def is_own_encoder(encoder: str) -> bool:
    """Whether an encoder is not in this package: ``module:Class``, or a name that an installed package declares."""
    if encoder in (*INPUT_ENCODERS, *OBSERVATION_ENCODERS, "auto", SKIP):
        return False
    return is_code_name(encoder) or encoder in declared_code(OWN_ENCODERS)


def check_share(name: str, value: float) -> None:
    """Raises ValueError when ``value`` is outside [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreConfig:
    """The recurrent machine itself, for any task: neurons, their histories, ticks and synchronisation."""

    num_neurons: int = 128
    """D: how many neurons the machine has."""
    history_length: int = 20
    """M: how many of its last pre-activations a neuron's own model sees."""
    num_ticks: int = 2
    """K: internal ticks per environment step, or per input of a supervised task."""
    synapse_depth: int = 1
    """1: blocks of Linear, GLU, LayerNorm in a row; more: a U-Net with this many widths."""
    num_synapse_blocks: int = 1
    """Blocks in a row when synapse_depth is 1."""
    is_nlm_deep: bool = True
    """Neuron-level models with a hidden layer, instead of a single linear one."""
    nlm_hidden_dim: int = 4
    """H: hidden width of each deep neuron-level model."""
    nlm_gain: float = 1.0
    """Scale of the neuron-level models' weights before training. With 1, as published, a small machine's sync begins at
    a few thousandths, and inputs hardly change it; with 3 it begins about as large as an LSTM's state."""
    use_nlm_norm: bool = False
    """Normalise the input of each layer of the neuron-level models."""
    dropout: float = 0.0
    """Dropout of synapse and attention; of the neuron-level models too, unless nlm_dropout is set."""
    nlm_dropout: float | None = None
    """Dropout of the neuron-level models; None: the same as dropout."""
    pairing: PairingKind = "first-last"
    """All pairs of the first neurons (output) and of the last (action), the other way round, or random ones."""
    num_output_sync_neurons: int = 16
    """Neurons (random-pairing: pairs) whose synchronisation is read by the heads; 0: with use_first_order, neurons
    alone."""
    num_action_sync_neurons: int = 0
    """Neurons (random-pairing: pairs) whose synchronisation queries the data; 0 without attention."""
    num_self_pairs: int = 0
    """random-pairing only: how many of the pairs join a neuron with itself."""
    use_first_order: bool = False
    """The heads also read first-order terms: the decayed mean of every neuron's z, beside the synchronisation of
    pairs."""
    sync_window: bool = False
    """Synchronise over the last history_length ticks only, instead of over all ticks since the start."""
    max_decay_rate: float = 15.0
    """Upper limit of the learned decay rates; the lower limit is 0."""
    start_decay_rate: float = 0.0
    """Decay rates before training, per tick. With 0, as published, what the heads read is a sum over all ticks, which
    the last ones hardly change; with 1 the last two or three ticks make most of it."""
    use_long_memory: bool = False
    """Every second term begins with a decay rate of 0 instead of start_decay_rate: for tasks in which something is to
    be remembered for a whole episode of some hundred ticks. What these terms read grows with the length of the episode,
    which costs steps where nothing needs to be remembered, and in long episodes the policy."""

    def __post_init__(self) -> None:
        """Checks the sizes."""
        for name in ("num_neurons", "history_length", "num_ticks", "synapse_depth", "num_synapse_blocks"):
            check_at_least(name, getattr(self, name), 1)
        check_at_least("nlm_hidden_dim", self.nlm_hidden_dim, 1)
        if not 0 < self.nlm_gain < float("inf"):
            raise ValueError(f"nlm_gain must be above 0 and finite, got {self.nlm_gain}.")
        check_at_least("num_output_sync_neurons", self.num_output_sync_neurons, 0 if self.use_first_order else 1)
        check_at_least("num_action_sync_neurons", self.num_action_sync_neurons, 0)
        check_share("dropout", self.dropout)
        if self.nlm_dropout is not None:
            check_share("nlm_dropout", self.nlm_dropout)
        check_choice("pairing", self.pairing, get_args(PairingKind))
        if not self.max_decay_rate > 0:
            raise ValueError(f"max_decay_rate must be above 0, got {self.max_decay_rate}.")
        if not 0 <= self.start_decay_rate <= self.max_decay_rate:
            raise ValueError(
                f"start_decay_rate must be from 0 to max_decay_rate = {self.max_decay_rate}, "
                f"got {self.start_decay_rate}."
            )
        _check_synapse(self)
        _check_pairing(self)

    @property
    def start_decay_rates(self) -> tuple[float, ...]:
        """Decay rates before training, per tick, which the terms of a synchronisation take in turn."""
        has_two = self.use_long_memory and self.start_decay_rate > 0
        return (0.0, self.start_decay_rate) if has_two else (self.start_decay_rate,)


def _check_synapse(config: CoreConfig) -> None:
    """Checks the synapse: a U-Net narrows down to 16 units, and replaces the blocks in a row."""
    if config.synapse_depth > 1 and config.num_neurons < MIN_UNET_WIDTH:
        raise ValueError(
            f"num_neurons must be at least {MIN_UNET_WIDTH} for a U-Net synapse (synapse_depth above 1), "
            f"got {config.num_neurons}."
        )
    if config.synapse_depth > 1 and config.num_synapse_blocks > 1:
        raise ValueError("num_synapse_blocks only applies to synapse_depth 1; set it to 1 for a U-Net.")


def _check_pairing(config: CoreConfig) -> None:
    """Checks the pairing: there must be enough neurons to pair, and enough pairs."""
    if config.pairing in ("first-last", "last-first"):
        num_synced = config.num_output_sync_neurons + config.num_action_sync_neurons
        if num_synced > config.num_neurons:
            raise ValueError(
                f"num_neurons must be at least num_output_sync_neurons + num_action_sync_neurons = {num_synced} "
                f"for {config.pairing} pairing, got {config.num_neurons}."
            )
    check_at_least("num_self_pairs", config.num_self_pairs, 0)
    if config.num_self_pairs > 0:
        if config.pairing != "random-pairing":
            raise ValueError(f"num_self_pairs only applies to random-pairing, and pairing is {config.pairing}.")
        counts = config.num_output_sync_neurons, config.num_action_sync_neurons
        fewest = min((count for count in counts if count > 0), default=0)
        if config.num_self_pairs > fewest:
            raise ValueError(
                f"num_self_pairs must be at most the number of pairs, {fewest}, got {config.num_self_pairs}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerConfig(CoreConfig):
    """A model that attends to one input for K ticks and answers at every tick: the supervised tasks."""

    kind: ModelKind = "ctm"
    """The machine, or instead an LSTM, a GRU, or a feed-forward network (mlp), which answers in one pass."""
    encoder: str = "none"
    """resnet18-1 to resnet152-4 (depth, then stages kept), shallow-wide, conv (two small layers), parity, digits, none,
    or module:Class, a torch.nn.Module of your own."""
    positions: PositionKind = "none"
    """Position encoding added to the encoder's output."""
    input_dim: int = 3
    """Channels of an input image, or size of the input if it is the features themselves."""
    input_shape: tuple[int, ...] = ()
    """With an encoder of your own: the shape of one input, channels first; set from the environment."""
    feature_dim: int = 64
    """F: width of keys, values and of what attention reads."""
    num_heads: int = 4
    """Attention heads; 0: the input itself is concatenated, without attention."""
    num_action_sync_neurons: int = 0
    """Neurons (random-pairing: pairs) whose synchronisation queries the data; 0: with attention as many as
    num_output_sync_neurons, as far as pairing leaves enough neurons."""
    num_groups: int = 1
    """Separate distributions in one answer: positions of a sequence, steps of a route."""
    num_classes: int = 10
    """C: classes of each of these distributions."""
    baseline_dim: int | None = None
    """Hidden width of a baseline; None: the one that gives the model as many parameters as with the machine."""
    num_baseline_layers: int = 1
    """Layers of the LSTM or GRU baseline."""
    ticks_per_input: int = 1
    """Questions about digits: for how many ticks each digit and each part of the question is the input."""
    num_answer_ticks: int = 0
    """Questions about digits: ticks for answering, without any input; 0: as many as ticks_per_input."""
    is_emitted: bool = False
    """The answer is emitted over the ticks (sorting); kind mlp then returns the logits of all ticks in one pass."""
    pixel_mean: tuple[float, ...] = (0.5,)
    """Images of bytes are divided by 255; then this is subtracted, for each channel or for all."""
    pixel_std: tuple[float, ...] = (0.5,)
    """Images are divided by this after pixel_mean is subtracted, for each channel or for all."""
    vector_mean: tuple[float, ...] = ()
    """Subtracted from vectors of input_dim numbers; empty: nothing."""
    vector_std: tuple[float, ...] = ()
    """Vectors are divided by this after vector_mean is subtracted; empty: by nothing."""
    use_graph: bool = True
    """Learning on a GPU: capture the model as a CUDA graph; if that fails, the log reports it."""

    def __post_init__(self) -> None:
        """Settles the fields whose default follows from others, and checks that the parts fit together."""
        if _has_query(self) and self.num_action_sync_neurons == 0:
            object.__setattr__(self, "num_action_sync_neurons", _default_action_sync(self))
        if self.encoder == "digits" and self.num_answer_ticks == 0 and not _is_plain_network(self):
            object.__setattr__(self, "num_answer_ticks", self.ticks_per_input)
        CoreConfig.__post_init__(self)
        check_choice("kind", self.kind, get_args(ModelKind))
        _check_pixels(self)
        _check_vectors(self)
        check_encoder("encoder", self.encoder, INPUT_ENCODERS)
        if any(size < 1 for size in self.input_shape) or math.prod(self.input_shape) > MAX_NUMBERS:
            raise ValueError(f"input_shape must be sizes of at least 1, at most {MAX_NUMBERS:,} numbers in all.")
        check_choice("positions", self.positions, get_args(PositionKind))
        for name in (
            "input_dim",
            "feature_dim",
            "num_groups",
            "num_baseline_layers",
            "ticks_per_input",
        ):
            check_at_least(name, getattr(self, name), 1)
        check_at_least("num_classes", self.num_classes, 2)
        check_at_least("num_heads", self.num_heads, 0)
        check_at_least("num_answer_ticks", self.num_answer_ticks, 0)
        _check_width(self.baseline_dim)
        if _is_plain_network(self):
            return
        if self.encoder == "digits":
            check_at_least("num_answer_ticks with the digits encoder", self.num_answer_ticks, 1)
        elif self.num_answer_ticks or self.ticks_per_input > 1:
            raise ValueError("ticks_per_input and num_answer_ticks only apply to the digits encoder.")
        _check_reader(self)


def _is_plain_network(config: AnswerConfig) -> bool:
    """Whether a model has no ticks, does not attend, and need not be as large as the machine."""
    return config.kind == "mlp" and config.baseline_dim is not None


def _has_query(config: AnswerConfig) -> bool:
    """Whether the machine's synchronisation makes a query: in the machine, or in a baseline made as large as it."""
    return config.num_heads > 0 and (config.kind == "ctm" or config.baseline_dim is None)


def _default_action_sync(config: AnswerConfig) -> int:
    """As many neurons for the query as for the output, or those that are left."""
    if config.pairing in ("random", "random-pairing"):
        return max(1, config.num_output_sync_neurons)
    return max(1, min(config.num_output_sync_neurons, config.num_neurons - config.num_output_sync_neurons))


def _check_width(baseline_dim: int | None) -> None:
    """Checks a baseline's width; None: it is computed when the model is built."""
    if baseline_dim is not None:
        check_at_least("baseline_dim", baseline_dim, 1)


def _check_pixels(config: AnswerConfig) -> None:
    """Checks pixel mean and standard deviation: one number for all channels, or one for each."""
    for name in ("pixel_mean", "pixel_std"):
        count = len(getattr(config, name))
        if count not in (1, config.input_dim):
            raise ValueError(f"{name} must have 1 number, or 1 for each of {config.input_dim} channels, got {count}.")
    if min(config.pixel_std) <= 0:
        raise ValueError(f"pixel_std must be above 0, got {config.pixel_std}.")


def _check_vectors(config: AnswerConfig) -> None:
    """Checks mean and standard deviation of vectors: one number for each of their places, or none."""
    for name in ("vector_mean", "vector_std"):
        count = len(getattr(config, name))
        if count not in (0, config.input_dim):
            raise ValueError(f"{name} must have {config.input_dim} numbers (input_dim), or none, got {count}.")
    if len(config.vector_mean) != len(config.vector_std):
        raise ValueError("vector_mean and vector_std belong together; give both, or none.")
    if min(config.vector_std, default=1.0) <= 0:
        raise ValueError(f"vector_std must be above 0, got {min(config.vector_std)}.")


def _check_reader(config: AnswerConfig) -> None:
    """Checks attention: heads must divide the features, and there must be a query; without it, no encoder or query."""
    if config.num_heads == 0:
        if config.encoder != "none":
            raise ValueError("num_heads 0 concatenates the input itself: set encoder to none, or num_heads above 0.")
        if config.kind == "ctm" and config.num_action_sync_neurons:
            raise ValueError("num_action_sync_neurons must be 0 without attention (num_heads 0).")
        return
    if config.feature_dim % config.num_heads:
        raise ValueError(f"feature_dim must be a multiple of num_heads = {config.num_heads}, got {config.feature_dim}.")
    check_choice(f"positions for the {config.encoder} encoder", config.positions, _positions_of(config.encoder))


def _positions_of(encoder: str) -> tuple[str, ...]:
    """The position encodings that fit the places of an encoder's map: none, along a sequence, or in the plane."""
    if is_own_encoder(encoder):
        return get_args(PositionKind)
    if encoder == "none":
        return ("none",)
    return ("none", "rotational-1d") if encoder == "parity" else ("none", "fourier", "multi-fourier", "rotational")


def encoders_by_part(encoder: str) -> dict[str, str]:
    """The encoders that ``PolicyConfig.encoder`` names, by part; one for all of an observation is under the empty name.

    Raises:
        ValueError: there is no such encoder.
    """
    named = {}
    for part, name in _items_of(encoder):
        check_encoder(f"encoder of {part}" if part else "encoder", name, ("auto", *OBSERVATION_ENCODERS, SKIP))
        named[part] = name
    if ("" in named and len(named) > 1) or named.get("") == SKIP:
        raise ValueError(f"encoder must be one name, or part=name for several parts; got {encoder!r}.")
    return named


def _items_of(encoder: str) -> Iterator[tuple[str, str]]:
    """The parts with their encoders: items between commas, ``part=name``, or ``name`` for all of an observation."""
    position = 0
    while position <= len(encoder):
        quoted = _QUOTED_ITEM.match(encoder, position)
        if quoted:
            yield quoted[1].replace('""', '"'), quoted[2]
            position = quoted.end() + 1
        else:
            item = encoder[position:].partition(",")[0]
            part, _, name = item.rpartition("=")
            yield part.strip(), name
            position += len(item) + 1


_QUOTED_ITEM = re.compile(r'\s*"((?:[^"]|"")*)"=([^,]*)')


def quote_part(name: str) -> str:
    """The name of a part as ``PolicyConfig.encoder`` has it: in double quotes if it contains what separates parts."""
    is_plain = name and name == name.strip() and not set(name) & set(',="')
    return name if is_plain else '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig(CoreConfig):
    """A policy with a value head, on features of an observation: reinforcement learning."""

    kind: ModelKind = "ctm"
    """The machine, or with equal encoder and heads an LSTM, a GRU, or a feed-forward network (mlp), without memory."""
    num_synapse_blocks: int = 2
    """Blocks in a row when synapse_depth is 1."""
    pairing: PairingKind = "last-first"
    """Which neurons are paired; last-first reads the last neurons, as the published reinforcement learning does."""
    max_decay_rate: float = 4.0
    """Upper limit of the learned decay rates; the lower limit is 0."""
    encoder: str = "auto"
    """auto (chosen from the observation space; vectors: plain if they are normalised, otherwise control), control,
    plain (the numbers of a vector themselves), conv, patches, grid, categories, text, or module:Class, a
    torch.nn.Module of your own; for the parts of a Dict or Tuple as image=grid,mission=skip: parts that are not named
    use auto, and skip leaves a part out; a name with a comma stands in double quotes."""
    normalize_observations: bool = False
    """Vectors: subtract the running mean of all observations, and divide by their standard deviation."""
    feature_dim: int = 128
    """F: features of each part of an observation (grid: of each cell)."""
    action_std: ActionStd = "free"
    """Box actions: their standard deviations are parameters (free), or depend on the observations (state)."""
    head_dims: tuple[int, ...] = (64, 64)
    """Hidden widths of the policy head and of the value head."""
    policy_gain: float = 1.0
    """Scale of the policy head's last layer before training, for kind ctm only (a baseline's is 1); far above 1, a
    policy starts with a preference for some actions and repeats them for a while, which reaches states that independent
    random actions never reach."""
    baseline_dim: int | None = None
    """Hidden width of a baseline; None: the one that gives the policy as many parameters as with the machine."""
    critic: CriticKind = "shared"
    """What the value head reads: the same as the policy head (shared), the same without gradient, so that errors of
    values do not change what the policy reads (detached), or a second core of the same kind and sizes, with a state of
    its own, on the features of the same encoder (own), which costs about as much again, and half of that with small
    machines on a CPU."""
    is_state_carried: bool = True
    """Keep the state between the steps of an episode; False starts every step with the start state."""
    train_random_ticks: bool = False
    """Learn with a random number of ticks at every environment step, from min_num_ticks to num_ticks: such a policy
    also acts well with fewer ticks, and may halt once it is certain."""
    min_num_ticks: int = 1
    """The smallest number of ticks that train_random_ticks draws."""
    use_graph: bool = False
    """Learning on a GPU: capture the unroll as a CUDA graph; if that fails, the log reports it."""
    max_seq_len: int = 20
    """RLlib's own PPO: the longest sequence its learner backpropagates through, in environment steps."""

    @classmethod
    def recommended(cls) -> "PolicyConfig":
        """A small policy with the parts that need the fewest environment steps, see docs/results/what-it-took.md.

        The defaults of the fields are the published machine. Instead, vectors are normalised and not encoded, the heads
        read first-order terms beside the synchronisation, both mostly of the last ticks to begin with, and the critic
        has a core of its own.
        """
        return cls(
            num_neurons=64,
            history_length=10,
            feature_dim=64,
            normalize_observations=True,
            use_first_order=True,
            start_decay_rate=1.0,
            critic="own",
            max_seq_len=32,
        )

    def __post_init__(self) -> None:
        """Checks that the parts fit together."""
        CoreConfig.__post_init__(self)
        check_choice("kind", self.kind, get_args(ModelKind))
        encoders_by_part(self.encoder)
        check_choice("action_std", self.action_std, get_args(ActionStd))
        check_choice("critic", self.critic, get_args(CriticKind))
        for name in ("feature_dim", "max_seq_len"):
            check_at_least(name, getattr(self, name), 1)
        _check_width(self.baseline_dim)
        if self.kind == "mlp" and self.use_graph:
            raise ValueError("use_graph has no effect with kind mlp, which has no ticks to capture; set it to False.")
        for width in self.head_dims:
            check_at_least("head_dims", width, 1)
        if self.train_random_ticks and self.kind == "mlp":
            raise ValueError("train_random_ticks has no effect with kind mlp, which has no ticks; set it to False.")
        if self.train_random_ticks and self.use_graph:
            raise ValueError("use_graph must be off with train_random_ticks: a graph has one number of ticks.")
        if not 1 <= self.min_num_ticks <= self.num_ticks:
            raise ValueError(f"min_num_ticks must be from 1 to num_ticks = {self.num_ticks}, got {self.min_num_ticks}.")
        if self.min_num_ticks > 1 and not self.train_random_ticks:
            raise ValueError("min_num_ticks only applies with train_random_ticks; set that to True.")
        if not 0 < self.policy_gain < float("inf"):
            raise ValueError(f"policy_gain must be above 0 and finite, got {self.policy_gain}.")
        if self.num_action_sync_neurons:
            raise ValueError(
                "num_action_sync_neurons must be 0 for a policy: features are concatenated, not attended to."
            )


def encoder_names(config: PolicyConfig | AnswerConfig) -> list[str]:
    """All encoders that a model's configuration names."""
    return [config.encoder] if isinstance(config, AnswerConfig) else list(encoders_by_part(config.encoder).values())


def check_own_encoders(config: PolicyConfig | AnswerConfig, wanted: PolicyConfig | AnswerConfig) -> None:
    """Raises ValueError when a configuration names code, as an encoder, that another one does not name."""
    others = [name for name in encoder_names(config) if is_own_encoder(name) and name not in encoder_names(wanted)]
    if others:
        raise ValueError(f"config.encoder names {others[0]}, and the run's is {wanted.encoder!r}")
