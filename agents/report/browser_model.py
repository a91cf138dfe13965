"""A trained machine as data for the page's own JavaScript, which runs it: sizes, indices and folded weights.

What does not change from input to input is multiplied out once, in double precision: BatchNorm into the convolution
before it, temperatures and norms' weights into the neuron-level models, the attention's projection into the query.
``assets/machine.js`` computes the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.report.document import Machine, Section
from ctm_rl.config import RESNETS, AnswerConfig, PolicyConfig
from ctm_rl.encoders.control import ControlEncoder, PlainEncoder
from ctm_rl.encoders.image import BasicBlock, Bottleneck, ImageEncoder
from ctm_rl.encoders.normaliser import LIMIT, TINY
from ctm_rl.encoders.parity import ParityEncoder
from ctm_rl.envs.tasks.maze_images import PALETTE
from ctm_rl.envs.wrappers.by_name import parse
from ctm_rl.envs.wrappers.hide_velocity import VELOCITIES
from ctm_rl.inference.policy import Policy
from ctm_rl.machine.attention import AttentionReader
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.heads import MLPHead
from ctm_rl.machine.neuron_models import NeuronLinear
from ctm_rl.machine.synapse import BlockSynapse, UNetSynapse
from ctm_rl.machine.synchronisation import Synchronisation, age_weights, decay_of
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import AnsweringModel, ContinuousThoughtMachine
from ctm_rl.models.preprocessing import pixels
from ctm_rl.spaces.actions import Choices

Task = Literal["mazes", "parity", "cartpole"]
Part = TypeVar("Part")
Trained = Policy | ActorCritic | AnsweringModel
Experiment = ActingExperiment | AnsweringExperiment
MAX_EXACT = 400_000
"""Up to this many weights are written in single precision, 2.1 MB; more in half precision."""
MAX_WEIGHTS = 1_200_000
"""More weights do not fit beside the figures of a page: 3.2 MB in half precision."""
MIN_HALVED = 1_000
"""Smaller arrays stay in single precision, whatever the number of all weights."""
_CARTPOLE = "CartPole-v1"
_TASKS: dict[str, Task] = {"Maze-v0": "mazes", "Parity-v0": "parity", _CARTPOLE: "cartpole"}
_MAZE_SIZE, _SEQUENCE_LENGTH, _EPISODE_STEPS = 19, 64, 500  # defaults of the environments
_TEXTS: dict[Task, tuple[str, str]] = {
    "mazes": (
        "A maze for the machine",
        "The trained machine runs in this page. Draw walls, set start and goal, and watch after each tick what its "
        "attention rests on and which route it would answer.",
    ),
    "parity": (
        "A sequence for the machine",
        "The trained machine runs in this page. Flip bits, and watch after each tick what its attention rests on and "
        "what it answers for every place: whether the number of -1 so far is odd.",
    ),
    "cartpole": (
        "A pole for the machine",
        "The trained policy runs in this page, in real time, and balances the pole. Push it.",
    ),
}

_TRY: dict[Task, str] = {
    "mazes": """\
The machine sees the maze as an image, once, and then thinks for some ticks: at each its attention rests on other \
places, and each ends with an answer, a whole route. The slider goes through the ticks; the pictures show the most \
certain one at first.

Close a passage, and see where it goes instead. In a larger maze than it was trained on, it answers a piece of the \
route; "Until the goal" lets it begin again where each piece ends.""",
    "parity": """\
The machine sees the whole sequence, and answers for every place whether the number of -1 up to it is odd. Flip an \
early bit, and every answer behind it has to change. The bars show which places each attention head reads at a tick.""",
    "cartpole": """\
Push the pole with the mouse, a finger or the arrow keys; a few pushes in the same direction are too much for the \
policy. Its neurons keep a state from step to step: what it is not shown, such as how fast anything moves, it finds \
out by remembering.""",
}
"""What a reader may try, under the title of the section."""


def export_machine(model: Trained, experiment: Experiment, *, is_halved: bool | None = None) -> Machine | None:
    """The figure in which a trained machine runs in the page.

    Args:
        model: what the run has trained.
        experiment: of the run.
        is_halved: whether its large arrays are written in half precision; ``None``: only if there are more than
            ``MAX_EXACT`` weights.

    Returns:
        The figure; ``None`` where ``find_obstacle`` finds one.
    """
    if find_obstacle(model, experiment):
        return None
    model = model.agent if isinstance(model, Policy) else model
    task = _task_of(experiment)
    assert task is not None
    with torch.no_grad():
        if isinstance(model, ActorCritic):
            assert isinstance(experiment, ActingExperiment)
            plain = _policy(model, experiment)
        else:
            assert isinstance(model, ContinuousThoughtMachine) and isinstance(experiment, AnsweringExperiment)
            plain = _answering(model, task, experiment)
    if _count(model) > MAX_EXACT if is_halved is None else is_halved:
        plain = _halved(plain)
    title, caption = _TEXTS[task]
    return Machine(title=title, caption=caption, task=task, model=plain)


def live_section(model: Trained, experiment: Experiment, *, is_halved: bool | None = None) -> Section | None:
    """The section of a page in which a trained machine runs, with what to try; as ``export_machine`` otherwise."""
    figure = export_machine(model, experiment, is_halved=is_halved)
    return figure and Section(name="live", title="Try it yourself", text=_TRY[figure.task], figures=[figure])


def find_obstacle(model: Trained, experiment: Experiment) -> str:
    """Why a model cannot run in the page, in one sentence; empty: it can."""
    model = model.agent if isinstance(model, Policy) else model
    if _task_of(experiment) is None:
        return f"the page can run mazes, parity and {_CARTPOLE}, not {experiment.env.id}."
    kind = cast(AnswerConfig | PolicyConfig, model.config).kind
    if kind != "ctm":
        return f"the page can run machines (kind ctm), not kind {kind}."
    if _count(model) > MAX_WEIGHTS:
        return f"the model has {_count(model):,} weights, and a page has room for {MAX_WEIGHTS:,}."
    if isinstance(model, ActorCritic):
        assert isinstance(experiment, ActingExperiment)
        return _acting_obstacle(model, experiment)
    encoder = cast(AnswerConfig, model.config).encoder
    if encoder not in (*RESNETS, "parity"):
        return f"the page can run the encoders resnet... and parity, not {encoder}."
    return ""


def _acting_obstacle(agent: ActorCritic, experiment: ActingExperiment) -> str:
    """Why a policy for CartPole cannot run in the page: observations or actions that its physics does not have."""
    env, is_choice = experiment.env, isinstance(agent.actions, Choices) and agent.actions.sizes == (2,)
    wrappers = [
        wrapper.name for wrapper in parse(env.wrappers) if wrapper.name not in ("hide-velocities", "time-limit")
    ]
    if env.previous_action or env.previous_reward or wrappers:
        return f"the page can run {_CARTPOLE} with the wrapper hide-velocities alone."
    if env.kwargs or not is_choice or agent.layout.shape != (4,) or not isinstance(agent.encoder, PlainEncoder):
        return f"the page can run {_CARTPOLE} as it is, with the encoders plain and control."
    return ""


def _task_of(experiment: Experiment) -> Task | None:
    """The task, if the page knows it."""
    task = _TASKS.get(experiment.env.id.rpartition(":")[2].rpartition("/")[2])
    return task if isinstance(experiment, ActingExperiment) == (task == "cartpole") else None


def _count(model: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def _policy(agent: ActorCritic, experiment: ActingExperiment) -> dict[str, Any]:
    """A policy for CartPole."""
    config, core, encoder = agent.config, agent.core, agent.encoder
    assert isinstance(core, CTMCore) and isinstance(encoder, PlainEncoder) and isinstance(agent.policy, MLPHead)
    limits = [experiment.env.max_episode_steps, *_values(experiment, "time-limit")]
    hidden = [index for given in _values(experiment, "hide-velocities") for index in given or VELOCITIES[_CARTPOLE]]
    return {
        "num_ticks": config.num_ticks,
        "is_state_carried": config.is_state_carried,
        "encoder": _vector_encoder(encoder),
        "core": _core(core),
        "policy": _mlp(agent.policy),
        "value": None if config.critic == "own" else _mlp(agent.value),
        "data": {"hidden": hidden, "max_steps": min([limit for limit in limits if limit] or [_EPISODE_STEPS])},
    }


def _values(experiment: ActingExperiment, name: str) -> list[Any]:
    """The values of all wrappers of a name."""
    return [wrapper.value for wrapper in parse(experiment.env.wrappers) if wrapper.name == name]


def _answering(model: ContinuousThoughtMachine, task: Task, experiment: AnsweringExperiment) -> dict[str, Any]:
    """A model that answers mazes or sequences."""
    config, core, reader, encoder = model.config, model.core, model.reader, model.encoder
    assert isinstance(core, CTMCore) and reader is not None
    arguments = {**experiment.env.kwargs, **experiment.env.held_out_kwargs}
    data: dict[str, Any]
    if task == "mazes":
        size = int(arguments.get("size", _MAZE_SIZE))
        data = {"size": size, "route_length": config.num_groups, "palette": _palette(config)}
        # one pixel of each colour is enough to find out how large the map is
        feature_map = encoder(torch.zeros(1, config.input_dim, size, size, dtype=torch.float32))
    else:
        data = {"length": int(arguments.get("length", _SEQUENCE_LENGTH))}
        feature_map = encoder(torch.ones(1, data["length"]))
    nothing = torch.zeros_like(feature_map)
    has_positions = config.positions != "none"
    return {
        "num_ticks": config.num_ticks,
        "num_groups": config.num_groups,
        "num_classes": config.num_classes,
        "encoder": _symbols(encoder) if isinstance(encoder, ParityEncoder) else _resnet(cast(ImageEncoder, encoder)),
        # of the map of the trained size, by channel and place; without them, the model reads maps of any size
        "positions": _plain(model.positions(nothing)[0].flatten(1)) if has_positions else None,
        "reader": _reader(reader),
        "core": _core(core),
        "head": _linear(model.head),
        "data": data,
    }


def _palette(config: AnswerConfig) -> np.ndarray:
    """The inputs for the four colours of a maze, [4, 3]."""
    return _plain(pixels(config, torch.from_numpy(PALETTE)[None, None])[0, :, 0].T)


def _core(core: CTMCore) -> dict[str, Any]:
    """Synapse, neuron-level models, start values and synchronisations."""
    config = core.config
    return {
        "num_neurons": config.num_neurons,
        "history_length": config.history_length,
        "synapse": _synapse(core.synapse),
        "nlm": [_neuron_linear(cast(NeuronLinear, layer)) for layer in core.nlm.layers],
        "start_pre_history": _plain(core.start_pre_history),
        "start_post_history": _plain(core.start_post_history) if config.sync_window else None,
        "start_post_activation": None if config.sync_window else _plain(core.start_post_activation),
        "output_sync": _sync(core.output_sync, config.history_length),
        "action_sync": None if core.action_sync is None else _sync(core.action_sync, config.history_length),
    }


def _synapse(synapse: BlockSynapse | UNetSynapse) -> dict[str, Any]:
    """A synapse: blocks in a row, or a U-Net."""
    if isinstance(synapse, BlockSynapse):
        return {"blocks": _blocks(synapse.layers), "unet": None}
    return {
        "blocks": None,
        "unet": {
            "first": _step(synapse.first),
            "down": [_step(step) for step in synapse.down],
            "up": [_step(step) for step in synapse.up],
            "skip_norms": [_norm(cast(nn.LayerNorm, norm)) for norm in synapse.skip_norms],
        },
    }


def _blocks(layers: nn.Sequential) -> list[dict[str, Any]]:
    """Blocks of Linear, GLU, LayerNorm in a row."""
    linears, norms = _of_type(layers, nn.Linear), _of_type(layers, nn.LayerNorm)
    return [{**_linear(linear), "norm": _norm(norm)} for linear, norm in zip(linears, norms, strict=True)]


def _step(step: nn.Module) -> dict[str, Any]:
    """Linear, LayerNorm, SiLU."""
    (linear,), (norm,) = _of_type(step, nn.Linear), _of_type(step, nn.LayerNorm)
    return {**_linear(linear), "norm": _norm(norm)}


def _neuron_linear(layer: NeuronLinear) -> dict[str, Any]:
    """One layer of the neuron-level models, [D, I, O] and [D, O], its temperature and its norm's weights folded in."""
    weight, bias, temperature = (part.double() for part in (layer.weight, layer.bias, layer.temperature))
    eps = None
    if isinstance(layer.norm, nn.LayerNorm):
        eps = layer.norm.eps
        bias = bias + torch.einsum("i,dio->do", layer.norm.bias.double(), weight)
        weight = layer.norm.weight.double()[:, None] * weight
    return {"weight": _plain(weight / temperature), "bias": _plain(bias / temperature), "norm_eps": eps}


def _sync(sync: Synchronisation, history_length: int) -> dict[str, Any]:
    """The pairs, and the decay of each term: per tick, or as weights of a window, [P, M], newest last."""
    decay = decay_of(sync.decay_rate, sync.max_decay_rate)
    return {
        "left": _indices(sync.left),
        "right": _indices(sync.right),
        "decay": None if sync.is_windowed else _plain(decay),
        "window": _plain(age_weights(decay, history_length)) if sync.is_windowed else None,
    }


def _reader(reader: AttentionReader) -> dict[str, Any]:
    """Attention; the projection of the query includes that of the attention itself."""
    kv, norm = _of_type(reader.kv, nn.Linear)[0], _of_type(reader.kv, nn.LayerNorm)[0]
    weights, biases = reader.in_proj_weight.double().chunk(3), reader.in_proj_bias.double().chunk(3)
    query = reader.query.weight.double(), reader.query.bias.double()
    return {
        "num_heads": reader.num_heads,
        "kv": {**_linear(kv), "norm": _norm(norm)},
        "query": {"weight": _plain(weights[0] @ query[0]), "bias": _plain(weights[0] @ query[1] + biases[0])},
        "key": {"weight": _plain(weights[1]), "bias": _plain(biases[1])},
        "value": {"weight": _plain(weights[2]), "bias": _plain(biases[2])},
        "out": _linear(reader.out),
    }


def _symbols(encoder: ParityEncoder) -> dict[str, Any]:
    """The embeddings of -1 and +1, [2, C]."""
    return {"kind": "symbols", "embedding": _plain(encoder.embedding.weight)}


def _vector_encoder(encoder: PlainEncoder) -> dict[str, Any]:
    """The mean and standard deviation that vectors are normalised by, if they are, and blocks of layers."""
    normaliser, normal = encoder.normaliser, None
    if normaliser is not None:
        std = (normaliser.variance + TINY).sqrt()
        normal = {"mean": _plain(normaliser.mean), "std": _plain(std), "limit": LIMIT}
    return {
        "kind": "vector",
        "normal": normal,
        "blocks": _blocks(encoder.layers) if isinstance(encoder, ControlEncoder) else [],
    }


def _resnet(encoder: ImageEncoder) -> dict[str, Any]:
    """Convolutions in order: those outside of blocks, and blocks with their shortcut."""
    resnet = encoder.resnet
    stages = [resnet.get_submodule(f"layer{stage + 1}").children() for stage in range(resnet.num_stages)]
    return {
        "kind": "resnet",
        "to_rgb": _convolution(encoder.to_rgb, None),
        "stem": _convolution(resnet.conv1, resnet.bn1),
        "blocks": [_block(cast(BasicBlock | Bottleneck, block)) for stage in stages for block in stage],
    }


def _block(block: BasicBlock | Bottleneck) -> dict[str, Any]:
    """The convolutions of a block, and the one of its shortcut."""
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if isinstance(block, Bottleneck):
        pairs.append((block.conv3, block.bn3))
    shortcut = None
    if isinstance(block.downsample, nn.Sequential):
        shortcut = _convolution(*cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(block.downsample)))
    return {"layers": [_convolution(*pair) for pair in pairs], "shortcut": shortcut}


def _convolution(layer: nn.Conv2d, norm: nn.BatchNorm2d | None) -> dict[str, Any]:
    """A convolution with the BatchNorm after it, by its running statistics, [O, I, k, k] and [O]."""
    weight = layer.weight.double()
    bias = torch.zeros(len(weight), dtype=torch.float64) if layer.bias is None else layer.bias.double()
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = weight * factor[:, None, None, None]
        bias = (bias - norm.running_mean.double()) * factor + norm.bias.double()
    return {
        "weight": _plain(weight),
        "bias": _plain(bias),
        "kernel": layer.kernel_size[0],
        "stride": layer.stride[0],
        "padding": cast(tuple[int, ...], layer.padding)[0],
    }


def _mlp(head: MLPHead) -> list[dict[str, Any]]:
    """Layers with ReLU between them."""
    return [_linear(layer) for layer in _of_type(head.layers, nn.Linear)]


def _linear(layer: nn.Linear) -> dict[str, Any]:
    """Weight [O, I] and bias [O]."""
    return {"weight": _plain(layer.weight), "bias": _plain(layer.bias)}


def _norm(norm: nn.LayerNorm) -> dict[str, Any]:
    """Weight, bias and epsilon."""
    return {"weight": _plain(norm.weight), "bias": _plain(norm.bias), "eps": norm.eps}


def _of_type(module: nn.Module, kind: type[Part]) -> list[Part]:
    """The parts of a module that are of a type, in order."""
    return [part for part in module.modules() if isinstance(part, kind)]


def _plain(tensor: Tensor) -> np.ndarray:
    """A tensor in single precision."""
    return tensor.detach().cpu().float().contiguous().numpy()


def _indices(tensor: Tensor) -> np.ndarray:
    """A tensor of whole numbers."""
    return tensor.detach().cpu().to(torch.int32).numpy()


def _halved(part: Any) -> Any:
    """The same with all large arrays in half precision."""
    return _map_arrays(part, lambda array: array.astype(np.float16) if _is_halved(array) else array)


def _is_halved(array: np.ndarray) -> bool:
    """Whether an array is large, and its numbers can be written in half precision."""
    is_large = array.dtype == np.float32 and array.size >= MIN_HALVED
    return is_large and bool(np.abs(array).max() < np.finfo(np.float16).max)


def _map_arrays(part: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """The same nested values with other arrays."""
    if isinstance(part, np.ndarray):
        return change(part)
    if isinstance(part, dict):
        return {name: _map_arrays(value, change) for name, value in part.items()}
    if isinstance(part, Sequence) and not isinstance(part, str):
        return [_map_arrays(value, change) for value in part]
    return part
