"""Decay rates of the synchronisations: what they are, and how they moved in training as far as checkpoints tell."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ctm_rl.agents.report.document import Bars, Figure, Line, Lines
from ctm_rl.agents.report.neurons import Wiring
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import read_best

Rates = Mapping[str, np.ndarray]
"""Decay rates by synchronisation, output or action."""

_NAME = re.compile(r"(?:policy|model|thinker)/weights/core\.(output|action)_sync\.decay_rate")
_NUM_BINS = 20
_MIN_WIDTH = 1e-3
"""Width of a histogram, at least."""
_TITLES = {"output": "output synchronisation", "action": "action synchronisation"}


def decay_figures(wiring: Wiring, start_rates: Sequence[float], history: Mapping[int, Rates]) -> list[Figure]:
    """Figures of a machine's decay rates.

    Args:
        wiring: of the machine as it is now.
        start_rates: before training, which the terms took in turn; empty: not known.
        history: rates by iteration, see ``decay_history``.

    Returns:
        A histogram of each synchronisation's rates, and where there are several checkpoints their way through training.
    """
    now: Rates = {"output": wiring.output.decay_rate}
    if wiring.action is not None:
        now = {**now, "action": wiring.action.decay_rate}
    figures: list[Figure] = []
    for role, rates in now.items():
        figures.append(_histogram(role, rates, start_rates))
        figures += _way(role, history)
    return figures


def decay_history(run: Path) -> dict[int, dict[str, np.ndarray]]:
    """Reads the decay rates of a run's machine from each of its checkpoints; those that cannot be read are left out.

    Args:
        run: the run's directory.

    Returns:
        Rates by iteration, ascending.
    """
    places = {iteration: store.path_of(run, iteration) for iteration in store.iterations_of(run)}
    try:
        best = read_best(run)
    except store.CheckpointError:
        best = None
    if best is not None:
        places.setdefault(best.iteration, best.path)
    found = {iteration: _read(place / store.TENSORS_FILE) for iteration, place in sorted(places.items())}
    return {iteration: rates for iteration, rates in found.items() if rates}


def _read(file: Path) -> dict[str, np.ndarray]:
    """The decay rates in a file of tensors."""
    rates: dict[str, np.ndarray] = {}
    try:
        with safe_open(file, "np") as tensors:
            for name in tensors.keys():
                match = _NAME.fullmatch(name)
                if match is not None:
                    rates[match[1]] = np.asarray(tensors.get_tensor(name), np.float64)
    except (OSError, SafetensorError, ValueError, RuntimeError):
        return {}
    return rates


def _histogram(role: str, rates: np.ndarray, start_rates: Sequence[float]) -> Figure:
    """The rates of one synchronisation."""
    known = np.append(rates, start_rates)
    low, high = float(known.min(initial=np.inf)), float(known.max(initial=0.0))
    edges = np.linspace(min(low, high), max(high, low + _MIN_WIDTH), _NUM_BINS + 1)
    counts = np.histogram(rates, edges)[0]
    median = float(np.median(rates)) if len(rates) else math.nan
    start = f" Before training they were {' and '.join(f'{rate:g}' for rate in start_rates)}." if start_rates else ""
    half_life = "is never forgotten" if median <= 0 else f"counts half as much after {math.log(2) / median:.3g} ticks"
    return Bars(
        title=f"Decay rates of the {_TITLES[role]}",
        caption=f"{len(rates)} rates per tick, median {median:.3g}: what happened then {half_life}.{start}",
        labels=[f"{edge:.3g}" for edge in edges[:-1]],
        values=counts.astype(np.float64),
        x_label="decay rate (from)",
        y_label="pairs",
    )


def _way(role: str, history: Mapping[int, Rates]) -> list[Figure]:
    """Quantiles of the rates by iteration."""
    iterations = [iteration for iteration in history if len(history[iteration].get(role, ()))]
    if len(iterations) < 2:
        return []
    quantiles = np.array([np.quantile(history[iteration][role], (0.1, 0.5, 0.9)) for iteration in iterations])
    return [
        Lines(
            title=f"Decay rates of the {_TITLES[role]} in training",
            caption=f"Median and the middle 80 % of the rates at the {len(iterations)} checkpoints that the run has "
            "kept (--keep-checkpoints keeps more).",
            x=np.array(iterations, np.float64),
            lines=[Line(name="median", y=quantiles[:, 1], low=quantiles[:, 0], high=quantiles[:, 2])],
            x_label="iteration",
            y_label="decay rate",
        )
    ]
