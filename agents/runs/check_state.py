"""Checks all that a run continues from, before Ray starts: what ``training_loop`` and ``algorithm_state`` have saved.

The names, shapes, types and ranges follow from the experiment and from the model that the checkpoint describes. Nothing
here imports Ray. Every check raises ``ValueError``, see ``ctm_rl.checkpoints.schema``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment, from_json
from ctm_rl.agents.ppo.step_size import HIGHEST_FACTOR, LOWEST_FACTOR
from ctm_rl.agents.runs.acting_task import WINDOW
from ctm_rl.agents.runs.answering_task import TESTED
from ctm_rl.agents.runs.evaluations import EVAL_METRICS
from ctm_rl.agents.runs.task import MODULE
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.schema import (
    check_list,
    check_mapping,
    check_range,
    check_real,
    check_tensor,
    check_weights,
    check_whole,
)
from ctm_rl.config import CoreConfig
from ctm_rl.inference.load_model import MODEL_ENTRY, outline_model
from ctm_rl.inference.policy import POLICY_ENTRY, outline_policy

_OPTIMIZER = f"{MODULE}_default_optimizer"
_FITTED = {
    "encoder",
    "baseline_dim",
    "max_seq_len",
    "input_dim",
    "input_shape",
    "num_groups",
    "num_classes",
    "is_emitted",
}
"""Fields of a model that are set from the environment or the algorithm when a run begins."""
_STATE_BYTES = 5056
"""Size of the state of torch's generator on the CPU; on a GPU it is 16."""
_NUM_WORDS = 624
"""Words of a Mersenne Twister."""
_FLAGS = ("amsgrad", "maximize", "capturable", "differentiable")
"""Settings of Adam that are never used here."""


def check_training_state(place: Path, state: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that a run cannot continue from.

    Args:
        place: path of the checkpoint.
        state: its content.

    Raises:
        CheckpointError: an entry is missing, unknown, or of a wrong type, shape or range.
    """
    with checkpoint.rebuilding("training state", place):
        experiment = from_json(state["experiment"])
        is_answering = isinstance(experiment, AnsweringExperiment)
        entry = MODEL_ENTRY if is_answering else POLICY_ENTRY
        check_mapping("state", state, keys=("experiment", "position", entry, "learner"))
        check_position(state["position"], checkpoint.iteration_of(place), is_answering=is_answering)
        model = (
            outline_model(state[entry], experiment.model)
            if isinstance(experiment, AnsweringExperiment)
            else outline_policy(state[entry], experiment.model)
        )
        check_weights(model, model.config, state[entry]["weights"], "")
        _check_same_model(model.config, experiment.model)
        _check_learner(state["learner"], experiment, model, state["position"]["iteration"])


def check_position(value: object, iteration: int, *, is_answering: bool) -> None:
    """Checks how far a run is, and what its metrics need from earlier iterations.

    Args:
        value: a ``training_loop.Position`` as a mapping.
        iteration: in the checkpoint's name.
        is_answering: whether the run learns to answer.
    """
    position = check_mapping("position", value, keys=("iteration", "env_steps", "seconds", "memory"))
    check_whole("position.iteration", position["iteration"], iteration, iteration)
    check_whole("position.env_steps", position["env_steps"])
    check_real("position.seconds", position["seconds"], at_least=0)
    if is_answering:
        memory = {"tested_iteration": None, **check_mapping("position.memory", position["memory"])}
        check_mapping("position.memory", memory, keys=("tested", "num_iterations", "tested_iteration"))
        if memory["tested_iteration"] is not None:
            check_whole("position.memory.tested_iteration", memory["tested_iteration"], 0, iteration)
        check_whole("position.memory.num_iterations", memory["num_iterations"])
        for name, score in check_mapping("position.memory.tested", memory["tested"], keys=TESTED).items():
            if score is not None:
                check_real(f"position.memory.tested.{name}", score)
        return
    absent = {"num_faults": 0, "successes": [], "evaluated": dict.fromkeys(EVAL_METRICS)}
    memory = {**absent, **check_mapping("position.memory", position["memory"])}
    check_mapping("position.memory", memory, keys=("returns", "lengths", *absent))
    successes = check_list("position.memory.successes", memory["successes"])
    check_whole("the number of successes in position.memory", len(successes), 0, WINDOW)
    for success in successes:
        check_real("position.memory.successes", success, at_least=0, at_most=1)
    for name, value in check_mapping("position.memory.evaluated", memory["evaluated"], keys=EVAL_METRICS).items():
        if value is not None:
            check_real(f"position.memory.evaluated.{name}", value)
    check_whole("position.memory.num_faults", memory["num_faults"])
    returns, lengths = (check_list(f"position.memory.{name}", memory[name]) for name in ("returns", "lengths"))
    check_whole("the number of returns in position.memory", len(returns), len(lengths), min(len(lengths), WINDOW))
    for episode_return in returns:
        check_real("position.memory.returns", episode_return)
    for length in lengths:
        check_whole("position.memory.lengths", length)


def _check_same_model(config: CoreConfig, wanted: CoreConfig) -> None:
    """Refuses a model other than the experiment's."""
    for name in config.__dataclass_fields__:
        if name not in _FITTED and getattr(config, name) != getattr(wanted, name):
            raise ValueError(f"config.{name} is {getattr(config, name)!r}, and the run's is {getattr(wanted, name)!r}")


def _check_learner(value: object, experiment: AnyExperiment, model: nn.Module, iteration: int) -> None:
    """Checks the state of the algorithm."""
    required = ("iteration", "modules", "optimizers", "num_updates", "connectors", "counters")
    required += ("env_connectors", "generators", "own")
    # a stock algorithm's state has no playing, nor has a checkpoint older than our own environment runner
    learner = check_mapping("learner", {"playing": {}, **check_mapping("learner", value)}, keys=(*required, "playing"))
    check_whole("learner.iteration", learner["iteration"], iteration, iteration)
    check_whole("learner.num_updates", learner["num_updates"])
    parameters = _check_module(learner["modules"], experiment, model)
    _check_optimizer(learner["optimizers"], parameters)
    for name in ("connectors", "env_connectors"):
        _check_connectors(f"learner.{name}", learner[name])
    _check_counters(learner["counters"])
    generators = check_mapping("generators", learner["generators"], keys=("driver", "learners", "env_runners"))
    _check_generators("generators.driver", generators["driver"])
    for state in check_list("generators.learners", generators["learners"]):
        _check_generators("generators.learners", state)
    for index, state in check_mapping("generators.env_runners", generators["env_runners"]).items():
        check_whole("an index of generators.env_runners", index)
        _check_generators("generators.env_runners", state)
    _check_own(learner["own"], experiment, len(parameters))
    _check_playing(learner["playing"])


def _check_module(value: object, experiment: AnyExperiment, model: nn.Module) -> list[torch.Size]:
    """Checks the learner's weights; returns the shapes of its parameters, in the order of its optimiser."""
    arrays = check_mapping("weights", check_mapping("learner.modules", value, keys=(MODULE,))[MODULE])
    weights = {name: _to_tensor(array) for name, array in arrays.items()}
    names = [name for name in weights if isinstance(name, str)]
    is_answering = isinstance(experiment, AnsweringExperiment)
    prefixes = ["model." if is_answering else "agent."]
    if not is_answering and experiment.algorithm == "appo":
        prefixes.append("target_agent.")
    config: Any = model.config
    for prefix in prefixes:
        check_weights(model, config, weights, prefix)
    named = {f"{prefixes[0]}{name}": parameter for name, parameter in model.named_parameters()}
    if is_answering and experiment.signal == "reward":
        prefixes.append("value.")
        with torch.device("meta"):
            named |= {f"value.{name}": part for name, part in nn.Linear(config.num_groups, 1).named_parameters()}
        for name in ("value.weight", "value.bias"):
            check_tensor(f"weight {name}", weights.get(name), named[name].shape, named[name].dtype)
    unknown = [name for name in names if not name.startswith(tuple(prefixes))]
    if unknown or len(names) != len(weights):
        raise ValueError(f"learner.modules holds unknown weights{f', such as {unknown[0]!r:.80}' if unknown else ''}")
    if not is_answering:
        return [parameter.shape for parameter in named.values()]
    from ctm_rl.agents.supervised.optimisation import parameter_groups

    groups = parameter_groups(named.items(), experiment.learning)  # pyright: ignore[reportArgumentType]
    return [parameter.shape for group in groups for parameter in group["params"]]


def _to_tensor(array: object) -> object:
    """RLlib's array as the tensor that it was made of: whole numbers are smaller in it, a scalar is a number."""
    if isinstance(array, np.ndarray):
        tensor = torch.from_numpy(array)
        return tensor.long() if tensor.dtype == torch.int32 else tensor
    return torch.tensor(array) if type(array) in (int, float) else array


def _check_optimizer(value: object, shapes: list[torch.Size]) -> None:
    """Checks Adam's settings and its moments, whose shapes torch does not check."""
    state = check_mapping("learner.optimizers", value, keys=(_OPTIMIZER,))[_OPTIMIZER]
    check_mapping("optimizer", state, keys=("state", "param_groups"))
    indices: list[object] = []
    for group in check_list("optimizer.param_groups", state["param_groups"]):
        _check_adam(check_mapping("optimizer.param_groups", group))
        indices += check_list("optimizer.param_groups.params", group["params"])
    if indices != list(range(len(shapes))):
        raise ValueError(f"optimizer.param_groups must name the {len(shapes)} parameters of the model in their order")
    for index, moments in check_mapping("optimizer.state", state["state"]).items():
        check_whole("an index of optimizer.state", index, 0, len(shapes) - 1)
        where = f"optimizer.state.{index}"
        check_mapping(where, moments, keys=("step", "exp_avg", "exp_avg_sq"))
        check_range(f"{where}.step", check_tensor(f"{where}.step", moments["step"], (), torch.float32), 0)
        for name in ("exp_avg", "exp_avg_sq"):
            check_tensor(f"{where}.{name}", moments[name], shapes[index], torch.float32)
        check_range(f"{where}.exp_avg_sq", moments["exp_avg_sq"], 0)


def _check_adam(settings: Mapping[str, Any]) -> None:
    """Checks the settings of Adam, which take the place of those that it was built with."""
    for name in ("lr", "eps", "weight_decay"):
        value = settings[name]
        # RLlib sets a constant learning rate as a tensor.
        is_number = isinstance(value, torch.Tensor) and value.ndim == 0
        check_real(f"optimizer.{name}", value.item() if is_number else value, at_least=0)
    betas = check_list("optimizer.betas", settings["betas"])
    check_whole("the number of optimizer.betas", len(betas), 2, 2)
    for beta in betas:
        check_real("optimizer.betas", beta, at_least=0, at_most=1 - 1e-12)
    for name in ("foreach", "fused", "decoupled_weight_decay"):
        if not isinstance(settings.get(name), bool | None):
            raise ValueError(f"optimizer.{name} must be true or false, got {settings[name]!r:.80}")
    for name in _FLAGS:
        if settings.get(name, False) is not False:
            raise ValueError(f"optimizer.{name} must be false, got {settings[name]!r:.80}")


def _check_connectors(name: str, value: object) -> None:
    """Checks the state of RLlib's connectors, of which those in use have none: mappings of mappings."""
    for key, inner in check_mapping(name, value).items():
        if not isinstance(key, str):
            raise ValueError(f"{name} must have names, got {key!r:.80}")
        _check_connectors(f"{name}.{key:.80}", inner)


def _check_counters(value: object) -> None:
    """Checks RLlib's counts over the whole run."""
    leaves: set[tuple[str, ...]] = set()
    for path, stats in check_mapping("counters", value).items():
        if not isinstance(path, str):
            raise ValueError(f"counters must have names, got {path!r:.80}")
        where = f"counters.{path:.120}"
        check_mapping(where, stats)
        if stats["stats_cls_identifier"] != "lifetime_sum":
            raise ValueError(f"{where} must be a lifetime_sum, got {stats['stats_cls_identifier']!r:.80}")
        for name in ("is_root", "is_leaf", "track_throughputs"):
            if not isinstance(stats[name], bool):
                raise ValueError(f"{where}.{name} must be true or false, got {stats[name]!r:.80}")
        check_real(f"{where}.lifetime_sum", stats["lifetime_sum"], at_least=0, at_most=2**53)
        if not stats["is_leaf"] and stats["latest_merged"] is not None:
            check_real(f"{where}.latest_merged", stats["latest_merged"])
        leaves.add(tuple(path.split("--")))
    for leaf in leaves:
        if any(leaf[:length] in leaves for length in range(1, len(leaf))):
            raise ValueError(f"counters must not count inside of one another, as {'--'.join(leaf)!r:.120} does")


def _check_generators(name: str, value: object) -> None:
    """Checks the states of a process's random generators."""
    states = check_mapping(name, value, keys=("python", "numpy", "torch", "cuda"))
    python = check_mapping(f"{name}.python", states["python"], keys=("version", "words", "gauss"))
    check_whole(f"{name}.python.version", python["version"], 3, 3)
    words = _check_words(f"{name}.python.words", python["words"], _NUM_WORDS + 1)
    check_whole(f"{name}.python: the place in its words", int(words[-1]), 0, _NUM_WORDS)
    if python["gauss"] is not None:
        check_real(f"{name}.python.gauss", python["gauss"])
    legacy = check_mapping(
        f"{name}.numpy", states["numpy"], keys=("kind", "keys", "position", "has_gauss", "cached_gauss")
    )
    if legacy["kind"] != "MT19937":
        raise ValueError(f"{name}.numpy.kind must be MT19937, got {legacy['kind']!r:.80}")
    _check_words(f"{name}.numpy.keys", legacy["keys"], _NUM_WORDS)
    check_whole(f"{name}.numpy.position", legacy["position"], 0, _NUM_WORDS)
    check_whole(f"{name}.numpy.has_gauss", legacy["has_gauss"], 0, 1)
    check_real(f"{name}.numpy.cached_gauss", legacy["cached_gauss"])
    check_generator(f"{name}.torch", states["torch"])
    if states["cuda"] is not None:
        check_tensor(f"{name}.cuda", states["cuda"], (16,), torch.uint8)


def check_generator(name: str, value: object) -> None:
    """Checks the state of a generator of torch on the CPU, which torch itself examines when it takes it."""
    generator = torch.Generator()
    generator.set_state(check_tensor(name, value, (_STATE_BYTES,), torch.uint8))
    # a state may hold the second one of two normal numbers
    for dtype in (torch.float32, torch.float64):
        if not torch.randn((), generator=generator, dtype=dtype).isfinite():
            raise ValueError(f"{name} must hold a finite number")


def _check_words(name: str, value: object, size: int) -> Tensor:
    """Checks words of 32 bits."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} must be an array, got {type(value).__name__}")
    words = check_tensor(name, torch.from_numpy(value), (size,), torch.int64)
    check_range(name, words, 0, 2**32)
    return words


def _check_own(value: object, experiment: AnyExperiment, num_parameters: int) -> None:
    """Checks what a learner of ours keeps beside weights and optimiser."""
    if not isinstance(experiment, AnsweringExperiment):
        if experiment.algorithm == "ppo":
            # only of runs whose learning rate follows the KL divergence
            own = {"lr_factor": 1.0, **check_mapping("own", value)}
            check_mapping("own", own, keys=("minibatches", "lr_factor"))
            check_generator("own.minibatches", own["minibatches"])
            check_real("own.lr_factor", own["lr_factor"], at_least=LOWEST_FACTOR, at_most=HIGHEST_FACTOR)
        elif experiment.algorithm == "appo":
            updates = check_mapping("own", value, keys=("last_update",))["last_update"]
            for name, count in check_mapping("own.last_update", updates).items():
                check_whole(f"own.last_update.{name!s:.80}", count)
        elif value is not None:
            raise ValueError(f"own must be empty for {experiment.algorithm}")
        return
    names = ("num_steps_taken", "clipper", "scaler", *(("batches",) if experiment.signal == "reward" else ()))
    own = check_mapping("own", value, keys=names)
    check_whole("own.num_steps_taken", own["num_steps_taken"])
    if own["clipper"] is not None:
        from ctm_rl.agents.supervised.optimisation import NUM_STORED

        clipper = check_mapping("own.clipper", own["clipper"], keys=("norms", "count"))
        check_whole("own.clipper.count", clipper["count"])
        norms = check_tensor("own.clipper.norms", clipper["norms"], (num_parameters, NUM_STORED), torch.float32)
        check_range("own.clipper.norms", norms[~norms.isnan()], 0)
    scaler = check_mapping("own.scaler", own["scaler"])
    if scaler:  # only of float16
        names = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
        for name, number in check_mapping("own.scaler", scaler, keys=names).items():
            check_real(f"own.scaler.{name}", number, at_least=0)
    if "batches" in own:
        check_generator("own.batches", own["batches"])


def _check_playing(value: object) -> None:
    """Checks the generators of actions and the statistics of rewards."""
    for index, playing in check_mapping("playing", value).items():
        check_whole("an index of playing", index)
        if not check_mapping("playing", playing):
            continue
        check_mapping("playing", playing, keys=("generator", "rewards"))
        check_generator("playing.generator", playing["generator"])
        if playing["rewards"] is not None:
            rewards = check_mapping("playing.rewards", playing["rewards"], keys=("count", "mean", "square"))
            check_real("playing.rewards.mean", rewards["mean"])
            for name in ("count", "square"):
                check_real(f"playing.rewards.{name}", rewards[name], at_least=0)
