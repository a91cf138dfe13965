"""The choice of the path: the one place that decides which implementation runs the ticks of a core.

All paths are equal in value and gradient; tests of each compare it with ticking one by one, which knows every core.

| what runs | paths, the first that applies is taken |
| --- | --- |
| T environment steps (``EpisodeDispatch``) | captured CUDA graph; one autograd node; tick by tick |
| the same of actor and critic (``EpisodeDispatch``) | small, on a CPU: side by side in one node; one after the other |
| one environment step without gradient (``runs_in_buffers``) | sliding buffers; tick by tick |
| all ticks about one input (``answer_ticks``) | one autograd node; tick by tick, which also records |
| the same, while rows halt (``answer_ticking``) | sliding buffers; tick by tick |
| a whole model that answers (``ModelDispatch``) | captured CUDA graph; the model itself |
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeGuard, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ctm_rl.config import PolicyConfig
from ctm_rl.engine.answering import Readings, can_think_fast, fast_ticking, think_fast
from ctm_rl.engine.cuda_graph import CapturedAnswers, CapturedUnrolls
from ctm_rl.engine.episode import can_unroll, fold, step_through, unroll, unroll_inputs
from ctm_rl.engine.episode_baselines import can_unroll_baseline, unroll_baseline
from ctm_rl.engine.side_by_side import can_run_side_by_side, unroll_side_by_side
from ctm_rl.machine.attention import RowReading
from ctm_rl.machine.core import Core, CTMCore, think
from ctm_rl.machine.halting import CoreTicking, Ticking
from ctm_rl.machine.recorder import Recorder
from ctm_rl.machine.state import AnyState, CoreState

_MOST_NEURONS, _MOST_ACTIVATIONS = 256, 4096
"""Neurons of one machine, and neurons times rows, up to which two machines side by side are faster than one after the
other on a CPU. Forward and back they take 0.75 to 0.95 times as long up to here (16 or 32 steps of 2 ticks, 64 to 256
neurons, one thread of an AMD EPYC with 1 MB of cache for each core). With twice as many rows it is equal, beyond that
up to 1.3 times, since both do not fit into the cache; with 512 neurons 1.2 times, since weights are copied."""


def runs_in_buffers(core: object, device_type: str) -> TypeGuard[CTMCore]:
    """Whether ``engine.episode_forward`` runs this core's ticks: ``can_unroll`` knows it, and autocast is off."""
    return can_unroll(core) and not torch.is_autocast_enabled(device_type)


class EpisodeDispatch:
    """Runs the core of a policy over T environment steps of K ticks, or those of actor and critic.

    Args:
        config: of the policy: its ticks, whether the state is carried, whether a CUDA graph is to be captured.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._captured = CapturedUnrolls(config.num_ticks) if config.use_graph else None

    def run(
        self,
        core: Core[Any],
        encode: Callable[[], Float[Tensor, "T B F"]],
        project: Callable[[Float[Tensor, "E F"], Float[Tensor, " E"]], Float[Tensor, "T B E"]] | None,
        is_first: Shaped[Tensor, "T B"],
        state: AnyState,
        ticks: Sequence[int] | None,
    ) -> tuple[Float[Tensor, "T B P"], AnyState]:
        """Runs the steps; arguments and results that are not described are those of ``engine.episode.step_through``.

        Args:
            core: the machine or a recurrent baseline, always the same.
            encode: returns the features of every step.
            project: returns ``weight @ features + bias`` of every step, if that takes less work without forming the
                features; ``None``: it does not.
            is_first: which rows start an episode with each step, [T, B].
            state: before the first step, B rows.
            ticks: how many ticks each step takes, [T]; ``None``: K.

        Returns:
            What the heads read after each step, [T, B, P], and the state after the last one.
        """
        config, is_recording, is_plain = self._config, torch.is_grad_enabled(), self._is_plain(state[0].device.type)
        is_captured = self._captured is not None and is_recording
        if project is not None and is_plain and not is_captured and can_unroll(core):
            ctm = cast(CTMCore, core)
            folded = fold(ctm)
            return unroll_inputs(ctm, folded, project(folded.features, folded.bias), is_first, cast(Any, state), ticks)
        features = encode()
        each = config.num_ticks if ticks is None else ticks
        # a single step without gradient takes less time than folding the parameters
        if not is_plain or not (is_recording or len(features) > 1):
            return step_through(core, features, is_first, state, each, config.is_state_carried)
        if self._captured is not None and is_captured and ticks is None and cast(nn.Module, core).training:
            captured = self._captured.run(core, features, is_first.bool(), state)
            if captured is not None:
                return captured
        if can_unroll(core):
            return unroll(cast(CTMCore, core), features, is_first, cast(Any, state), each)
        if ticks is None and can_unroll_baseline(core):
            return unroll_baseline(core, features, is_first, cast(Any, state), config.num_ticks)
        return step_through(core, features, is_first, state, each)

    def run_side_by_side(
        self,
        cores: Sequence[object],
        encode: Callable[[], Float[Tensor, "T B F"]],
        project: Callable[[Float[Tensor, "E F"], Float[Tensor, " E"]], Float[Tensor, "T B E"]] | None,
        is_first: Shaped[Tensor, "T B"],
        states: Sequence[AnyState],
        ticks: Sequence[int] | None,
    ) -> list[tuple[Float[Tensor, "T B P"], CoreState]] | None:
        """Runs several cores on the same features as one, if they are machines so small that it is faster, on a CPU.

        Args:
            cores: actor and critic, always the same.
            encode: see ``run``.
            project: see ``run``.
            is_first: see ``run``.
            states: of each core.
            ticks: see ``run``.

        Returns:
            For each core what ``run`` returns; ``None``: run one after the other.
        """
        num_neurons, device_type = self._config.num_neurons, states[0][0].device.type
        is_long = torch.is_grad_enabled() or len(is_first) > 1
        is_small = num_neurons <= _MOST_NEURONS and num_neurons * is_first.shape[1] <= _MOST_ACTIVATIONS
        if device_type != "cpu" or not (self._is_plain(device_type) and is_long and is_small):
            return None
        if not can_run_side_by_side(cores):
            return None
        read = partial(_dense, encode) if project is None else project
        return unroll_side_by_side(cores, read, is_first, cast(Any, states), ticks)

    def _is_plain(self, device_type: str) -> bool:
        """Whether the engine's paths apply: the state is carried from step to step, and autocast is off."""
        return self._config.is_state_carried and not torch.is_autocast_enabled(device_type)


def _dense(encode: Callable[[], Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """A dense layer on the features of every step."""
    return nn.functional.linear(encode(), weight, bias)


def answer_ticks(
    core: Core[Any],
    readings: Readings,
    num_rows: int,
    read: Callable[[Float[Tensor, "B k P"]], Float[Tensor, "B k O"]],
    recorder: Recorder | None = None,
) -> Float[Tensor, "B K O"]:
    """Runs all ticks about one input, from the learned start state.

    Args:
        core: the machine or a recurrent baseline.
        readings: what to read at each tick.
        num_rows: B.
        read: the answer head, applied to what it reads after some ticks.
        recorder: is given every tick; ``None``: none is recorded.

    Returns:
        The answers after each tick.
    """
    if recorder is None and can_think_fast(core, readings):
        return think_fast(cast(CTMCore, core), readings, num_rows, read)
    answers = []
    for tick in think(core, core.initial_state(num_rows), readings):
        answers.append(core.answer(tick.state))
        if recorder is not None:
            recorder.add(tick, answers[-1])
    return read(torch.stack(answers, 1))


@contextlib.contextmanager
def answer_ticking(
    core: Core[Any], readings: Sequence[RowReading], num_rows: int, device_type: str
) -> Iterator[Ticking]:
    """Ticks one by one from the learned start state while rows halt; as a context, in which autocast is as needed.

    Args:
        core: the machine or a recurrent baseline, evaluating and without gradient.
        readings: what to read at each tick.
        num_rows: B.
        device_type: where it computes.

    Yields:
        The rows.
    """
    is_known = can_think_fast(core, readings)
    # the buffers hold the parameters' own precision, and so must what the head reads from them
    with torch.autocast(device_type, enabled=torch.is_autocast_enabled(device_type) and not is_known):
        if is_known:
            yield fast_ticking(cast(CTMCore, core), readings, num_rows)
        else:
            yield CoreTicking(core, core.initial_state(num_rows), readings)


class ModelDispatch:
    """Runs a whole model that answers: while it learns on a GPU, as a captured CUDA graph if that is wanted.

    Args:
        use_graph: whether to capture it.
    """

    def __init__(self, use_graph: bool) -> None:
        self._captured = CapturedAnswers() if use_graph else None

    def run(self, model: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The tensors in the model's answer, without what is ``None``; those of a graph are valid until the next call.

        Args:
            model: always the same; returns a tuple.
            inputs: what it takes.
        """
        captured = None if self._captured is None else self._captured.run(model, *inputs)
        return tuple(part for part in model(*inputs) if part is not None) if captured is None else captured
