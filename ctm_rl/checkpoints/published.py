"""Published checkpoints of the Continuous Thought Machine: read, used, and exported under their published names."""

import argparse
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctm_rl.checkpoints.archive import Refused, check_archive
from ctm_rl.checkpoints.finite import find_not_finite
from ctm_rl.checkpoints.published_settings import PublishedSettings, task_of
from ctm_rl.checkpoints.schema import check_buffer, outline
from ctm_rl.config import AnswerConfig, PolicyConfig
from ctm_rl.machine.pairing import diagonal
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, Thought
from ctm_rl.models.losses import LOOKAHEAD, answer_loss, sorting_loss

# From our names to theirs, first match wins. An RL checkpoint puts "recurrent_model." before all but its heads.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"^core\.start_pre_history$", "start_trace"),
    (r"^core\.start_post_history$", "start_activated_trace"),
    (r"^core\.start_post_activation$", "start_activated_state"),
    (r"^core\.output_sync\.decay_rate$", "decay_params_out"),
    (r"^core\.action_sync\.decay_rate$", "decay_params_action"),
    (r"^core\.output_sync\.(left|right)$", r"out_neuron_indices_\1"),
    (r"^core\.action_sync\.(left|right)$", r"action_neuron_indices_\1"),
    (r"^core\.nlm\.layers\.0\.", "trace_processor.0.0."),
    (r"^core\.nlm\.layers\.1\.", "trace_processor.0.2."),
    (r"^core\.synapse\.layers\.", "synapses."),
    (r"^core\.synapse\.first\.", "synapses.first_projection."),
    (r"^core\.synapse\.(down|up)\.", r"synapses.\1_projections."),
    (r"^core\.synapse\.skip_norms\.", "synapses.skip_lns."),
    (r"^core\.start_(hidden|cell)$", r"start_\1_state"),
    (r"^core\.lstm\.", "lstm."),
    (r"^(?:network\.)?encoder\.to_rgb\.", "initial_rgb."),
    (r"^(?:network\.)?encoder\.resnet\.", "backbone."),
    (r"^encoder\.embedding\.", "backbone.embedding."),
    (r"^question\.index$", "index_backbone.embedding"),
    (r"^question\.operator\.", "operator_backbone.embedding."),
    (r"^positions\.encoders\.(\d+)\.frequencies\.", r"positional_embedding.embedders.\1.Wr."),
    (r"^positions\.encoders\.", "positional_embedding.embedders."),
    (r"^positions\.mix$", "positional_embedding.combination"),
    (r"^positions\.frequencies\.", "positional_embedding.Wr."),
    (r"^positions\.start$", "positional_embedding.start_vector"),
    (r"^positions\.", "positional_embedding."),
    (r"^reader\.kv\.", "kv_proj."),
    (r"^reader\.query\.", "q_proj."),
    (r"^reader\.out\.", "attention.out_proj."),
    (r"^reader\.", "attention."),
    (r"^head\.", "output_projector.0."),
    (r"^network\.hidden\.", "output_projector.3."),
    (r"^network\.head\.", "output_projector.6."),
    (r"^policy\.layers\.", "actor."),
    (r"^value\.layers\.", "critic."),
)


_BROKEN = (RuntimeError, KeyError, IndexError, AttributeError, TypeError, ValueError, ArithmeticError)
"""Errors that malformed files raise, here and inside torch."""


_MAX_LIST, _MAX_TEXT = 1_000, 10_000
"""Longest list and text among the settings."""


class _Discarded:
    """Replaces the NumPy objects of a checkpoint (curves, generators), whose contents are discarded unread."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_NUMPY_GLOBALS = [
    (_Discarded, f"{module}.{name}")
    for core in ("numpy.core", "numpy._core")
    for module, name in ((f"{core}.multiarray", "_reconstruct"), (f"{core}.multiarray", "scalar"))
] + [
    (_Discarded, "numpy.ndarray"),
    (_Discarded, "numpy.dtype"),
    *((_Discarded, f"numpy.dtypes.{kind}DType") for kind in ("Float32", "Float64", "Int64", "Int32", "UInt32", "Bool")),
]


class _Translation(NamedTuple):
    """How one tensor of our state dict is exported and loaded: renaming and reshaping only."""

    name: str
    export: Callable[[Tensor], Tensor]
    load: Callable[[Tensor], Tensor]


class OfficialModel:
    """A published checkpoint, rebuilt as one of our models.

    Attributes:
        task: the task it was trained for: rl, parity, sort, mazes, image or qamnist.
        kind: ctm, lstm or ff.
        model: our model with its weights, in evaluation mode.
        args: its published settings.
    """

    def __init__(self, weights: Mapping[str, Tensor], args: Mapping[str, Any]) -> None:
        self.args = dict(args)
        self.task = task_of(self.args)
        self.kind = str(self.args.get("model_type", self.args.get("model", "ctm")))
        # names of compiled parts have a prefix, which is added again on export
        self._published = {name.replace("_orig_mod.", ""): name for name in weights}
        given = {name: weights[original] for name, original in self._published.items()}
        settings = PublishedSettings(self.args, given, self.task, self.kind)
        config, build = settings.described()
        self.model: ActorCritic | ContinuousThoughtMachine | FeedForwardModel = outline(build, config, given)
        self._translations = {name: self._translate(name) for name in self.model.state_dict() if self._is_shared(name)}
        self._check(given)
        self.model = build()
        self._unused = self._load(given)
        self.model.project_()
        self.model.eval()

    def loss(self, output: Thought, targets: Tensor) -> Tensor:
        """The published loss of the task.

        Args:
            output: the answers of the model.
            targets: classes: [B] (image, qamnist), [B, G] (parity, mazes), or the order of the numbers [B, N] (sort).

        Returns:
            A scalar with gradient.
        """
        if self.task == "rl":
            raise ValueError("a reinforcement learning checkpoint has no loss on targets; use .model.unroll.")
        if self.task == "sort":
            return sorting_loss(output.predictions, targets)
        # the published baselines learned from their certainty on images only
        published = self.args.get("use_most_certain_with_lstm", False)
        return answer_loss(
            self.config,
            output,
            targets,
            use_curriculum=self.task == "mazes",
            lookahead=int(self.args.get("cirriculum_lookahead", LOOKAHEAD)),
            use_most_certain=self.kind == "ctm" or self.task == "image" or bool(published),
        )

    @property
    def config(self) -> AnswerConfig:
        """The config of a supervised model."""
        assert isinstance(self.model.config, AnswerConfig)
        return self.model.config

    def to_official_state_dict(self) -> dict[str, Tensor]:
        """The current parameters and buffers of the model, under their published names and shapes.

        Renaming and reshaping only; entries of the checkpoint that the model does not use are returned unchanged.
        """
        ours = self.model.state_dict()
        state = {t.name: t.export(ours[name].detach()) for name, t in self._translations.items()}
        state |= self._unused
        return {original: state[name] for name, original in self._published.items()}

    def _is_shared(self, name: str) -> bool:
        """Whether the published tensor is used: not the neuron indices of rl, which pairs the last neurons."""
        return self.task != "rl" or not name.endswith(("_sync.left", "_sync.right"))

    def _check(self, given: Mapping[str, Tensor]) -> None:
        """Refuses weights that are missing, or of other shapes, types or ranges than the args require.

        ``self.model`` needs no memory for its weights.
        """
        for name, ours in self.model.state_dict().items():
            if name not in self._translations:
                continue
            translation = self._translations[name]
            if translation.name not in given:
                raise ValueError(f"the checkpoint lacks {translation.name!r}, which its args require.")
            found, expected = given[translation.name], translation.export(ours)
            if found.shape != expected.shape or found.is_floating_point() != expected.is_floating_point():
                raise ValueError(
                    f"{translation.name!r} is {found.dtype} of shape {tuple(found.shape)} in the checkpoint, "
                    f"which its args do not allow: expected {expected.dtype} of shape {tuple(expected.shape)}."
                )
            check_buffer(name, found, self.model.config)

    def _load(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loads the weights into the model; returns the entries that the model does not use."""
        ours = self.model.state_dict()
        state = {name: translation.load(given[translation.name]) for name, translation in self._translations.items()}
        self.model.load_state_dict({**ours, **state})
        used = {translation.name for translation in self._translations.values()}
        return {name: value for name, value in given.items() if name not in used}

    def _translate(self, name: str) -> _Translation:
        """Name and layout of one of our tensors in the published checkpoint."""
        theirs = self._rename(name)
        if name.startswith("core.nlm."):
            return _translate_nlm(theirs)
        if theirs.endswith(("indices_left", "indices_right")) and self.model.config.pairing != "random-pairing":
            return _translate_all_pairs(theirs)
        if name.startswith("core.start_") and self._uses_lstm_cell and name.endswith(("hidden", "cell")):
            return _Translation(theirs, lambda ours: ours.squeeze(0), lambda given: given.unsqueeze(0))
        return _Translation(theirs, _same, _same)

    def _rename(self, name: str) -> str:
        for pattern, replacement in self._rules():
            renamed, count = re.subn(pattern, replacement, name)
            if count:
                is_head = self.task != "rl" or name.startswith(("policy.", "value."))
                return renamed if is_head else f"recurrent_model.{renamed}"
        raise ValueError(f"no published name for {name!r}.")

    def _rules(self) -> tuple[tuple[str, str], ...]:
        special: list[tuple[str, str]] = []
        if self._uses_lstm_cell:
            special.append((r"^core\.lstm\.(\w+)_l0$", r"lstm_cell.\1"))
        if self.task == "rl":
            special += [
                (r"^encoder\.(object|color|state|position)\.", r"backbone.\1_embedding."),
                (r"^encoder\.layers\.", self._observation_layers),
            ]
        elif self.task == "qamnist":
            special.append((r"^encoder\.layers\.", "backbone_digit.layers."))
        else:
            special.append((r"^encoder\.layers\.", "backbone.layers."))
            if self.model.config.positions == "rotational":  # pyright: ignore[reportAttributeAccessIssue]
                special.append((r"^positions\.projection\.", "positional_embedding.projection.0."))
        return (*special, *_NAMES)

    @property
    def _observation_layers(self) -> str:
        assert isinstance(self.model.config, PolicyConfig)
        is_grid = self.model.config.encoder == "grid"
        return "backbone.project_to_d_projection." if is_grid else "backbone.input_projector."

    @property
    def _uses_lstm_cell(self) -> bool:
        """Whether it is a single-layer cell, whose names and shapes lack the layer."""
        return self.kind == "lstm" and self.task in ("rl", "qamnist")


def load_official(path: str | Path) -> OfficialModel:
    """Reads a published checkpoint and rebuilds its model. No code in the file is executed.

    Args:
        path: a file with ``model_state_dict`` and ``args``.

    Returns:
        The model with its task.

    Raises:
        ValueError: the file is missing, is not such a checkpoint, holds anything but tensors, plain values and the
            argument namespace, or its weights do not fit its args.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no checkpoint file at {path}.")
    try:
        check_archive(path, (" ".join(name.rsplit(".", 1)) for _, name in _NUMPY_GLOBALS))
        with torch.serialization.safe_globals([argparse.Namespace, *_NUMPY_GLOBALS]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, Refused) as error:
        reason = _first_sentence(str(error))
        raise ValueError(f"{path} is refused: it holds more than weights and plain settings ({reason}).") from error
    except (*_BROKEN, OSError, EOFError, MemoryError, struct.error) as error:
        reason = _first_sentence(str(error))
        raise ValueError(f"{path} is not a PyTorch checkpoint, is damaged, or cannot be read: {reason}.") from error
    if not isinstance(checkpoint, dict) or not {"model_state_dict", "args"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a published checkpoint: it needs the entries model_state_dict and args.")
    args = checkpoint["args"]
    settings = vars(args) if isinstance(args, argparse.Namespace) else args
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not a published checkpoint: its args are not a namespace.")
    try:
        return rebuild(checkpoint["model_state_dict"], settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def rebuild(weights: object, args: Mapping[str, Any]) -> OfficialModel:
    """Rebuilds a model from its published weights and settings, which may hold anything.

    Raises:
        ValueError: the weights are not tensors by name, or the settings do not describe them.
    """
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise ValueError("model_state_dict must hold tensors by name.")
    if not isinstance(args, Mapping):
        raise ValueError("args must hold settings by name.")
    plain = {name: value for name, value in args.items() if isinstance(name, str) and _is_plain(value)}
    try:
        for name, value in weights.items():
            _check_dense(name, value)
        if (not_finite := find_not_finite(weights)) is not None:
            raise ValueError(f"{not_finite!r} holds a number that is not finite.")
        return OfficialModel(weights, plain)
    except ValueError:
        raise
    except (*_BROKEN, MemoryError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"the args do not describe the weights: {type(error).__name__} {reason}.") from error


def _is_plain(value: object, depth: int = 2) -> bool:
    """Whether a published setting is a plain value; others, such as curves, do not describe a model."""
    if isinstance(value, (list, tuple)):
        return depth > 0 and len(value) <= _MAX_LIST and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT
    return value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 2**63)


def _check_dense(name: str, value: Tensor) -> None:
    """Refuses a tensor that is not plain numbers in memory of its own, such as one number declared a million times."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ValueError(f"{name!r} must hold plain numbers.")
    if value.numel() * value.itemsize > value.untyped_storage().nbytes():
        raise ValueError(f"{name!r} declares {value.numel():,} numbers, more than it holds.")


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _translate_nlm(theirs: str) -> _Translation:
    """Ours have neurons first: [D, I, O] instead of their [I, O, D], and [D, O] instead of [1, D, O]."""
    if theirs.endswith(".weight") and ".norm." not in theirs:
        name = f"{theirs.removesuffix('weight')}w1"
        return _Translation(name, lambda ours: ours.permute(1, 2, 0), lambda given: given.permute(2, 0, 1))
    if theirs.endswith(".bias") and ".norm." not in theirs:
        name = f"{theirs.removesuffix('bias')}b1"
        return _Translation(name, lambda ours: ours.unsqueeze(0), lambda given: given.squeeze(0))
    if theirs.endswith(".temperature"):
        return _Translation(f"{theirs.removesuffix('temperature')}T", _same, _same)
    return _Translation(theirs.replace(".norm.", ".layernorm."), _same, _same)


def _translate_all_pairs(theirs: str) -> _Translation:
    """Theirs lists the n neurons of one side; ours, the neuron of each of the n (n + 1) / 2 pairs."""
    side = 0 if theirs.endswith("left") else 1

    def load(neurons: Tensor) -> Tensor:
        return neurons[torch.triu_indices(len(neurons), len(neurons))[side]]

    return _Translation(theirs, lambda pairs: pairs[diagonal(len(pairs))], load)


def _first_sentence(text: str) -> str:
    match = re.search(r"Unsupported (?:global|operand|class)[^.\n]*", text) or re.search(r"GLOBAL \S+", text)
    return match.group(0) if match else text.strip().split("\n")[0][:120]
