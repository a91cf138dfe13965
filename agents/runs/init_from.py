"""Begins a run with the weights of another one (``--init-from``): what fits is taken, what does not is named.

Of the other run's checkpoint only numbers are read: weights, and statistics of observations and rewards. Its
configuration is not followed, and nothing that it names is imported.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from ctm_rl.agents.ppo.env_runner import ColumnarEnvRunner
from ctm_rl.agents.rllib import private
from ctm_rl.agents.runs.task import MODULE
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.best import find
from ctm_rl.checkpoints.schema import check_mapping, check_range, check_real
from ctm_rl.errors import UserError, expand
from ctm_rl.inference.load_model import MODEL_ENTRY
from ctm_rl.inference.policy import POLICY_ENTRY, official_of

OPTION = "--init-from"
MAX_NAMES = 4
"""Names in a line; of more, the number is given."""
_PREFIXES = ("agent.", "target_agent.", "model.")
"""What comes before the names of a model's weights in the modules of the algorithms."""
_LOG = logging.getLogger(__name__)


class Source(NamedTuple):
    """What another run has learned."""

    place: Path
    """The checkpoint."""
    weights: dict[str, Tensor]
    """Parameters and buffers of its policy or model, statistics of observations included, by name."""
    num_neurons: int | None
    """Neurons that its pairs are indices of."""
    rewards: dict[str, float] | None
    """Statistics of its rewards; ``None``: it has none."""


class Fit(NamedTuple):
    """What of a source fits a model, by layers: the weights of a layer are taken together or not at all."""

    taken: dict[str, Tensor]
    """Weights by name."""
    others: list[str]
    """Layers of other shapes."""
    missing: list[str]
    """Layers of the model that the source does not have."""
    unused: list[str]
    """Layers of the source that the model does not have."""

    @property
    def problems(self) -> list[str]:
        """What was not taken, one line for each reason."""
        lines = {
            "of another size": self.others,
            "new here, and random": self.missing,
            "without a place here": self.unused,
        }
        return [f"{reason}: {_listed(names)}" for reason, names in lines.items() if names]


def read_source(place: str) -> Source:
    """Reads what a run has learned.

    Args:
        place: a run's directory (its newest checkpoint is taken), one checkpoint in it, or ``zoo:NAME``.

    Raises:
        UserError: there is no checkpoint, it is damaged, or it holds no weights.
    """
    try:
        return checkpoint.read_newest(find(expand(place)), _read)
    except checkpoint.CheckpointError as error:
        raise UserError(f"{OPTION}: {error}") from error


def initialise(algorithm: Algorithm, own: Mapping[str, Tensor], num_neurons: int, source: Source) -> str:
    """Gives an algorithm the weights of another run, as far as they fit; what does not is logged.

    Args:
        algorithm: freshly built; its optimisers stay as they are.
        own: the weights of its policy or model, by name.
        num_neurons: neurons of that.
        source: what the other run has learned.

    Returns:
        What was taken, in one line.

    Raises:
        UserError: nothing fits.
    """
    fit = fit_weights(own, num_neurons, source)
    if not fit.taken:
        raise UserError(
            f"{OPTION} {source.place}: none of its weights fits this model ({'; '.join(fit.problems)}); give the model "
            "the sizes of that run, for example with --config and its config.json."
        )
    learners, runners = algorithm.learner_group, algorithm.env_runner_group
    assert learners is not None
    assert runners is not None
    private.call_learners(learners, _load, weights=fit.taken)
    runners.sync_weights(from_worker_or_learner_group=learners, inference_only=True)
    if source.rewards is not None:
        rewards = source.rewards
        runners.foreach_env_runner(
            lambda runner: runner.begin_rewards(rewards) if isinstance(runner, ColumnarEnvRunner) else None
        )
    for line in fit.problems:
        _LOG.warning("%s %s: not taken, since %s.", OPTION, source.place, line)
    return f"begins with {len(fit.taken)} of {len(own)} weights of {source.place}"


def fit_weights(own: Mapping[str, Tensor], num_neurons: int, source: Source) -> Fit:
    """Finds the weights of a source that fit a model.

    Args:
        own: the model's weights by name.
        num_neurons: neurons of the model.
        source: what the other run has learned.
    """
    there = source.weights
    fit = Fit({}, [], [], sorted({_layer(name) for name in there} - {_layer(name) for name in own}))
    for layer in dict.fromkeys(map(_layer, own)):
        names = [name for name in own if _layer(name) == layer]
        common = [name for name in names if name in there]
        if not common:
            fit.missing.append(layer)
        elif len(common) < len(names) or any(not _is_alike(own[name], there[name]) for name in names):
            fit.others.append(f"{layer} {_sizes(there[name] for name in common)}, here {_sizes(map(own.get, names))}")
        elif source.num_neurons != num_neurons and any(_is_index(own[name]) for name in names):
            fit.others.append(f"{layer}, pairs of {source.num_neurons} neurons, here of {num_neurons}")
        else:
            fit.taken.update({name: there[name] for name in names})
    return fit


def _read(place: Path, state: Mapping[str, Any]) -> Source:
    """Reads a checkpoint's numbers, and checks those that have a range."""
    with checkpoint.rebuilding("weights", place):
        official = official_of(place, state)
        if official is not None:
            weights, config = official.model.state_dict(), official.model.config
            return Source(place, dict(weights), config.num_neurons, None)
        entry = next((name for name in (POLICY_ENTRY, MODEL_ENTRY) if name in state), None)
        if entry is None:
            raise ValueError("it has neither a policy nor a model")
        parts = check_mapping(entry, state[entry])
        weights = check_mapping("weights", parts["weights"])
        num_neurons = check_mapping("config", parts["config"]).get("num_neurons")
        for name, values in weights.items():
            if not isinstance(name, str) or not isinstance(values, Tensor):
                raise ValueError(f"weights must be tensors by name, got {name!r:.80}")
            _check_range(name, values, num_neurons)
        return Source(place, dict(weights), num_neurons, _read_rewards(state))


def _check_range(name: str, values: Tensor, num_neurons: object) -> None:
    """Refuses indices of neurons that do not exist, and variances and counts below 0."""
    last = name.rpartition(".")[2]
    if _is_index(values) and last in ("left", "right"):
        check_range(name, values, 0, num_neurons if isinstance(num_neurons, int) else 0)
    elif last in ("variance", "running_var", "count", "num_batches_tracked"):
        check_range(name, values, 0)


def _read_rewards(state: Mapping[str, Any]) -> dict[str, float] | None:
    """The statistics of rewards of the first environment runner that has some."""
    playing = state.get("learner", {}).get("playing", {})
    for runner in playing.values():
        if runner and runner.get("rewards") is not None:
            rewards = check_mapping("rewards", runner["rewards"], keys=("count", "mean", "square"))
            return {name: check_real(name, rewards[name], -1e300 if name == "mean" else 0) for name in rewards}
    return None


def _load(learner: TorchLearner, weights: Mapping[str, Tensor]) -> None:
    """Loads weights into a learner's module; runs in the learner's process."""
    module = learner.module[MODULE].unwrapped()
    assert isinstance(module, torch.nn.Module)
    named = module.state_dict()
    prefixed = {f"{prefix}{name}": weights[name] for prefix in _PREFIXES for name in weights}
    module.load_state_dict({**named, **{name: prefixed[name] for name in named if name in prefixed}})


def _layer(name: str) -> str:
    """The layer that a weight belongs to."""
    return name.rpartition(".")[0]


def _is_alike(one: Tensor, other: Tensor) -> bool:
    """Whether a weight can take the place of another."""
    return one.shape == other.shape and one.dtype == other.dtype


def _is_index(values: Tensor) -> bool:
    """Whether a buffer holds indices of neurons."""
    return not values.is_floating_point() and values.dim() > 0


def _sizes(weights: Iterable[Tensor | None]) -> str:
    """The sizes of the largest of some weights."""
    largest = max((weight for weight in weights if weight is not None), key=Tensor.numel)
    return " x ".join(map(str, largest.shape)) or "1"


def _listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f", and {more} more" if more > 0 else "")
