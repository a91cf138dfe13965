"""Conversion of the settings of a published checkpoint to our configurations."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

from torch import Tensor

from ctm_rl.checkpoints.schema import check_settings
from ctm_rl.config import AnswerConfig, CoreConfig, PairingKind, PolicyConfig, PositionKind, is_own_encoder
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, build_model
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import grid_layout, vector_layout

Task = Literal["rl", "parity", "sort", "mazes", "image", "qamnist"]
"""The task a published checkpoint was trained for."""

_POSITIONS: dict[str, PositionKind] = {
    "none": "none",
    "learnable-fourier": "fourier",
    "multi-learnable-fourier": "multi-fourier",
    "custom-rotational": "rotational",
    "custom-rotational-1d": "rotational-1d",
}
_PAIRINGS: tuple[PairingKind, ...] = ("first-last", "random", "random-pairing")


def task_of(args: Mapping[str, Any]) -> Task:
    """The task of a published checkpoint, from its args."""
    dataset = str(args.get("dataset", ""))
    if "env_id" in args:
        return "rl"
    if "N_to_sort" in args:
        return "sort"
    if "q_num_images" in args:
        return "qamnist"
    if "parity_sequence_length" in args:
        return "parity"
    if "maze_route_length" in args or dataset.startswith("mazes"):
        return "mazes"
    if dataset in ("cifar10", "cifar100", "imagenet"):
        return "image"
    raise ValueError(f"the args name no known task (rl, parity, sort, mazes, image or qamnist): {sorted(args)}.")


class PublishedSettings:
    """Published settings as our configurations; what the args do not contain follows from the shapes of the weights."""

    def __init__(self, args: Mapping[str, Any], weights: Mapping[str, Tensor], task: Task, kind: str) -> None:
        self._args = args
        self._weights = weights
        self._task: Task = task
        self._kind = kind
        if kind not in ("ctm", "lstm", "ff") or (kind == "ff" and task == "rl"):
            raise ValueError(f"unknown kind of model {kind!r} for task {task}; known are ctm, lstm and ff.")

    def described(
        self,
    ) -> tuple[CoreConfig, Callable[[], ActorCritic | ContinuousThoughtMachine | FeedForwardModel]]:
        """The configuration of the published sizes, and what builds the model."""
        if self._task == "rl":
            return self._policy()
        config = check_settings(AnswerConfig, asdict(self._answer_config()), "args")
        return config, lambda: build_model(config)

    def _policy(self) -> tuple[PolicyConfig, Callable[[], ActorCritic]]:
        """The configuration of a policy, and what builds it."""
        is_grid = "MiniGrid" in str(self._get("env_id"))
        prefix = "recurrent_model.backbone."
        if is_grid:
            side = round(self._shape(f"{prefix}position_embedding.weight")[0] ** 0.5)
            layout = grid_layout(side, side)
        else:
            layout = vector_layout(self._shape(f"{prefix}input_projector.1.weight")[1])
        head_dims = (len(self._weight("actor.0.bias")), len(self._weight("actor.2.bias")))
        config = PolicyConfig(
            **self._core(),
            kind="lstm" if self._kind == "lstm" else "ctm",
            num_synapse_blocks=1 if self._get("synapse_depth") > 1 else 2,
            pairing="last-first",
            sync_window=True,
            max_decay_rate=4.0,
            encoder="grid" if is_grid else "control",
            feature_dim=self._get("d_input"),
            head_dims=head_dims,
            baseline_dim=self._get("d_model"),
            # the published LSTM carries its state whatever this argument says
            is_state_carried=self._kind == "lstm" or bool(self._args.get("continuous_state_trace", True)),
        )
        config = check_settings(PolicyConfig, asdict(config), "args")
        actions = Choices(sizes=(len(self._weight("actor.4.weight")),))
        return config, lambda: ActorCritic(config, layout, actions)

    def _answer_config(self) -> AnswerConfig:
        """The configuration of a supervised model of the published sizes."""
        num_groups = {"parity": "parity_sequence_length", "mazes": "maze_route_length"}.get(self._task)
        groups = 1 if num_groups is None else self._get(num_groups)
        head = "output_projector.6.bias" if self._kind == "ff" else "output_projector.0.bias"
        has_attention = self._task != "sort" and self._kind != "ff"
        is_question = self._task == "qamnist"
        return AnswerConfig(
            **self._core(),
            kind="mlp" if self._kind == "ff" else self._kind,  # pyright: ignore[reportArgumentType]
            pairing=self._pairing(),
            encoder=self._encoder(),
            positions=self._positions(),
            input_dim=self._input_dim(),
            feature_dim=self._get("d_input") if has_attention else 1,
            num_heads=self._get("heads") if has_attention else 0,
            num_groups=groups,
            num_classes=len(self._weight(head)) // groups,
            num_action_sync_neurons=self._get("n_synch_action") if has_attention and self._kind == "ctm" else 0,
            num_self_pairs=self._num_self_pairs(),
            num_baseline_layers=self._num_lstm_layers(),
            baseline_dim=self._get("d_model"),
            ticks_per_input=1,  # published questions repeat each part themselves
            num_answer_ticks=self._get("q_num_answer_steps") if is_question else 0,
        )

    def _core(self) -> dict[str, Any]:
        """The settings that all tasks share."""
        if self._kind != "ctm":
            return {"dropout": self._args.get("dropout", 0.0), "num_ticks": self._args.get("iterations", 1)}
        return {
            "num_neurons": self._get("d_model"),
            "history_length": self._get("memory_length"),
            "num_ticks": self._args.get("iterations", 1),
            "synapse_depth": self._get("synapse_depth"),
            "is_nlm_deep": self._get("deep_memory"),
            "nlm_hidden_dim": self._get("memory_hidden_dims"),
            "use_nlm_norm": self._get("do_normalisation"),
            "dropout": self._args.get("dropout", 0.0),
            "nlm_dropout": self._args.get("dropout_nlm"),
            "num_output_sync_neurons": self._get("n_synch_out"),
        }

    def _get(self, name: str) -> Any:
        if name not in self._args:
            raise ValueError(f"the args of this {self._task} checkpoint lack {name!r}.")
        return self._args[name]

    def _weight(self, name: str) -> Tensor:
        if name not in self._weights:
            raise ValueError(f"this {self._task} checkpoint lacks the weight {name!r}.")
        return self._weights[name]

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._weight(name).shape)

    def _pairing(self) -> PairingKind:
        pairing = self._args.get("neuron_select_type", "first-last")
        if pairing not in _PAIRINGS:
            raise ValueError(f"unknown neuron_select_type {pairing!r}; known are {', '.join(_PAIRINGS)}.")
        return pairing

    def _num_self_pairs(self) -> int:
        is_used = self._kind == "ctm" and self._pairing() == "random-pairing"
        return int(self._args.get("n_random_pairing_self", 0)) if is_used else 0

    def _encoder(self) -> str:
        if self._task in ("sort", "qamnist"):
            return "none" if self._task == "sort" else "digits"
        encoder = str(self._get("backbone_type"))
        if is_own_encoder(encoder):  # a file of somebody else's names no code
            raise ValueError(f"unknown backbone_type {encoder!r}.")
        if encoder.startswith("resnet152") and "backbone.layer2.7.conv1.weight" not in self._weights:
            # what is published under this name has 4 blocks, not 8, in its second stage: 140 layers
            return encoder.replace("152", "140")
        return "parity" if encoder == "parity_backbone" else encoder

    def _positions(self) -> PositionKind:
        if self._task in ("sort", "qamnist") or self._kind == "ff":
            return "none"
        positions = str(self._get("positional_embedding_type"))
        if positions not in _POSITIONS:
            raise ValueError(f"unknown positional_embedding_type {positions!r}; known are {', '.join(_POSITIONS)}.")
        return _POSITIONS[positions]

    def _input_dim(self) -> int:
        if self._task == "sort":
            return int(self._get("N_to_sort"))
        for name in ("initial_rgb.weight", "backbone.layers.0.weight", "kv_proj.0.weight"):
            if name in self._weights:
                return self._shape(name)[1]
        return 1

    def _num_lstm_layers(self) -> int:
        """Counted, as not all checkpoints have it among their args."""
        return max(1, sum(name.startswith("lstm.weight_ih_l") for name in self._weights))
