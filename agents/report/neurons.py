"""Figures of neurons, of a model that answers and of a policy alike: traces, synchronisation, who moves with whom."""

import importlib
import importlib.util
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ctm_rl.agents.report.document import Bars, Figure, Matrix, Points, Table, Traces
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.pairing import all_pairs, diagonal, num_neurons_of
from ctm_rl.machine.synchronisation import Synchronisation

NUM_TRACES = 8
"""Neurons of a group whose traces are shown, at most."""
MAX_SIDE = 32
"""Neurons on a side of a synchronisation matrix, and pairs over time, at most."""
MAX_POINTS = 512
"""Neurons that are points, or compared with each other, at most."""
STILL = 1e-3
"""A neuron never moves if its standard deviation is at most this share of the median neuron's."""
_NUM_BINS = 20
_UMAP = "umap"
_MIN_FOR_UMAP = 16


class Pairs(NamedTuple):
    """The pairs of one synchronisation."""

    left: np.ndarray
    """First neuron of each pair, then the neurons that are read alone, [P]."""
    right: np.ndarray
    """Second neuron of each pair, [p]."""
    decay_rate: np.ndarray
    """Per tick, of each term, [P]."""


class Wiring(NamedTuple):
    """What a machine reads of its neurons."""

    output: Pairs
    """What the heads read."""
    action: Pairs | None
    """What the input is queried with."""


class NeuronRecord(NamedTuple):
    """The neurons over the N ticks of one sample or episode; D neurons, P and Q pairs."""

    post_activations: np.ndarray
    """[N, D]."""
    pre_activations: np.ndarray | None
    """[N, D]; ``None``: a baseline has none."""
    output_sync: np.ndarray
    """[N, P]; of a baseline its hidden state."""
    action_sync: np.ndarray | None
    """[N, Q]; ``None``: nothing is attended to."""
    wiring: Wiring | None = None
    """Of the machine, see ``wiring_of``; ``None``: not known, or a baseline."""


class NeuronLayout(NamedTuple):
    """Where neurons are in the plane: those close to each other have similar traces."""

    neurons: np.ndarray
    """Which neurons, [n]."""
    points: np.ndarray
    """[n, 2]."""
    name: str
    """Of the method, such as PCA."""
    labels: tuple[str, str]
    """Of both axes."""


def wiring_of(model: nn.Module) -> Wiring | None:
    """What the first machine inside a model reads of its neurons; ``None``: there is none, as in a baseline."""
    core = next((part for part in model.modules() if isinstance(part, CTMCore)), None)
    if core is None:
        return None
    return Wiring(_pairs_of(core.output_sync), None if core.action_sync is None else _pairs_of(core.action_sync))


def _pairs_of(sync: Synchronisation) -> Pairs:
    """Pairs and decay rates of a synchronisation."""
    return Pairs(*(part.detach().cpu().numpy() for part in (sync.left, sync.right, sync.decay_rate)))


def neuron_figures(record: NeuronRecord, layout: NeuronLayout | None = None) -> list[Figure]:
    """The moving figures of one sample.

    Args:
        record: of the sample.
        layout: of all samples, see ``lay_out``; ``None``: of this one alone.

    Returns:
        Traces, both synchronisations, and the neurons in the plane, coloured by what they do.
    """
    figures: list[Figure] = [_traces(record)]
    if record.wiring is not None or record.pre_activations is not None:
        wiring = record.wiring
        figures.append(_sync("Output synchronisation", record.output_sync, wiring.output if wiring else None))
        if record.action_sync is not None and record.action_sync.shape[1]:
            action = None if wiring is None else wiring.action
            figures.append(_sync("Action synchronisation, the query", record.action_sync, action))
    layout = lay_out([record]) if layout is None else layout
    if layout is not None:
        figures.append(_activity(record, layout))
    return figures


def neuron_summary(records: Sequence[NeuronRecord]) -> list[Figure]:
    """Figures over several samples: neurons that never move, and how alike neurons are.

    Args:
        records: of the same model, at least one.
    """
    if not records:
        return []
    activity = np.concatenate([record.post_activations for record in records]).astype(np.float64)  # [T, D]
    return [*_movement(activity), *_likeness(activity)]


def lay_out(records: Sequence[NeuronRecord]) -> NeuronLayout | None:
    """Places neurons in the plane by their traces: by UMAP where it is installed, otherwise by their first two PCs.

    Args:
        records: of the same model.

    Returns:
        The layout; ``None``: there are fewer than three neurons or ticks.
    """
    if not records:
        return None
    activity = np.concatenate([record.post_activations for record in records]).astype(np.float64)
    neurons = _spread(activity.shape[1], MAX_POINTS)
    traces = _standardised(activity[:, neurons]).T  # [n, T]
    if min(traces.shape) < 3:
        return None
    if importlib.util.find_spec(_UMAP) is not None and len(traces) >= _MIN_FOR_UMAP:
        return NeuronLayout(neurons, _umap(traces), "UMAP", ("UMAP 1", "UMAP 2"))
    points, explained = principal_components(traces)
    labels = tuple(f"PC {index + 1} ({100 * share:.0f} % of the variance)" for index, share in enumerate(explained))
    return NeuronLayout(neurons, points, "PCA", (labels[0], labels[1]))


def principal_components(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components of points in many dimensions.

    Args:
        rows: one point each, [n, T].

    Returns:
        Coordinates [n, 2], and the share of the variance of each, [2]; the sign of each is such that its largest
        coordinate is positive.
    """
    centred = rows - rows.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :2] * values[:2]
    largest = points[np.abs(points).argmax(0), np.arange(2)]
    points = points * np.where(largest < 0, -1, 1)
    total = float((values**2).sum())
    return points, values[:2] ** 2 / total if total else np.zeros(2)


def _umap(traces: np.ndarray) -> np.ndarray:
    """Points by UMAP, the same for the same traces."""
    umap = importlib.import_module(_UMAP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(umap.UMAP(n_neighbors=min(15, len(traces) - 1), random_state=0).fit_transform(traces))


def count_still(activity: np.ndarray) -> int:
    """How many neurons never move: their standard deviation is at most ``STILL`` times the median one.

    Args:
        activity: post-activations of all ticks, [T, D].
    """
    std = activity.astype(np.float64).std(0)
    return int((std <= STILL * np.median(std)).sum())


def sync_matrix(values: np.ndarray, pairs: Pairs | None) -> tuple[np.ndarray, list[str], list[str]] | None:
    """Synchronisation as a matrix of neurons by neurons, where all pairs of some neurons are synchronised.

    Args:
        values: [N, P].
        pairs: which; ``None``: not known, so that any triangular number of pairs counts as all of them.

    Returns:
        The matrix [N, n, n] with the names of rows and columns: symmetric where both sides are the same neurons,
        otherwise NaN below the diagonal, where no pair is; ``None``: it is no such set of pairs.
    """
    num_pairs = values.shape[1] if pairs is None else len(pairs.right)
    try:
        count = num_neurons_of(num_pairs)
    except ValueError:
        return None
    is_same, names = True, ([str(index) for index in range(count)],) * 2
    if pairs is not None:
        places = diagonal(num_pairs).numpy()
        left, right = pairs.left[places], pairs.right[places]
        expected = all_pairs(torch.from_numpy(left), torch.from_numpy(right))
        if not (np.array_equal(expected.left, pairs.left[:num_pairs]) and np.array_equal(expected.right, pairs.right)):
            return None
        is_same = np.array_equal(left, right)
        names = ([str(neuron) for neuron in left.tolist()], [str(neuron) for neuron in right.tolist()])
    row, column = np.triu_indices(count)
    matrix = np.full((len(values), count, count), np.nan, np.float32)
    matrix[:, row, column] = values[:, :num_pairs]
    if is_same:
        matrix[:, column, row] = values[:, :num_pairs]
    kept = _spread(count, MAX_SIDE)
    return matrix[:, kept][:, :, kept], [names[0][index] for index in kept], [names[1][index] for index in kept]


def _sync(title: str, values: np.ndarray, pairs: Pairs | None) -> Figure:
    """A synchronisation over the ticks."""
    found = sync_matrix(values, pairs)
    if found is not None:
        matrix, rows, columns = found
        return Matrix(
            title=title,
            caption="How strongly each pair of neurons has moved together up to this tick, recent ticks counting more "
            "where the decay rate is above 0.",
            values=matrix.astype(np.float16),
            x_label="neuron",
            y_label="neuron",
            palette="diverging",
            x_names=columns,
            y_names=rows,
        )
    kept = _spread(values.shape[1], MAX_SIDE)
    names = [str(index) for index in kept.tolist()]
    if pairs is not None:
        names = [_name_of_pair(pairs, index) for index in kept.tolist()]
    return Matrix(
        title=title,
        caption=f"{_some(len(kept), values.shape[1])} pairs over the ticks: how strongly both neurons have moved "
        "together so far.",
        values=values[:, kept].T.astype(np.float16),
        x_label="tick",
        y_label="pair of neurons",
        palette="diverging",
        x_names=[str(tick + 1) for tick in range(len(values))],
        y_names=names,
        cursor="time",
    )


def _name_of_pair(pairs: Pairs, index: int) -> str:
    """The neurons of a term."""
    left = int(pairs.left[index])
    return f"{left}, {int(pairs.right[index])}" if index < len(pairs.right) else str(left)


def _traces(record: NeuronRecord) -> Figure:
    """Post-activations of synchronised neurons and of random ones, in front of their pre-activations."""
    num_neurons = record.post_activations.shape[1]
    groups = _groups_of(record.wiring, num_neurons)
    chosen = [(neuron, name) for name, neurons in groups.items() for neuron in neurons]
    neurons = [neuron for neuron, _ in chosen]
    pre = record.pre_activations
    is_baseline = pre is None and record.wiring is None
    return Traces(
        title="Hidden units" if is_baseline else "Neurons",
        caption="The hidden state of some units at every tick."
        if is_baseline
        else "Post-activations of some neurons at every tick, and behind them, paler and on a scale of their own, the "
        "pre-activations that they answer.",
        values=record.post_activations[:, neurons].astype(np.float16),
        names=[f"neuron {neuron}" for neuron in neurons],
        others=None if pre is None else _within_half(pre[:, neurons]),
        groups=[name for _, name in chosen] if len(groups) > 1 else (),
        legend=("hidden state", "") if is_baseline else ("post-activation", "" if pre is None else "pre-activation"),
    )


def _groups_of(wiring: Wiring | None, num_neurons: int) -> dict[str, list[int]]:
    """Which neurons are shown, by what reads them; every neuron is shown once."""
    generator = np.random.default_rng(0)
    groups: dict[str, list[int]] = {}
    taken: set[int] = set()
    if wiring is not None:
        read = {"output synchronisation": wiring.output, "action synchronisation": wiring.action}
        for name, pairs in read.items():
            if pairs is None:
                continue
            neurons = np.unique(np.concatenate([pairs.left[: len(pairs.right)], pairs.right]))
            neurons = np.array([neuron for neuron in neurons.tolist() if neuron not in taken], int)
            groups[name] = neurons[_spread(len(neurons), NUM_TRACES)].tolist()
            taken |= set(groups[name])
    others = np.array([neuron for neuron in range(num_neurons) if neuron not in taken], int)
    generator.shuffle(others)
    groups["random"] = sorted(others[:NUM_TRACES].tolist())
    return {name: neurons for name, neurons in groups.items() if neurons}


def _activity(record: NeuronRecord, layout: NeuronLayout) -> Figure:
    """Neurons in the plane, coloured by their post-activations."""
    return Points(
        title=f"Neurons by similarity ({layout.name})",
        caption="Each point is a neuron; those with similar traces are close together. The colour is what it does at "
        "this tick, relative to its largest value.",
        points=layout.points.astype(np.float32),
        values=_scaled(record.post_activations[:, layout.neurons]),
        x_label=layout.labels[0],
        y_label=layout.labels[1],
        names=[f"neuron {neuron}" for neuron in layout.neurons.tolist()],
    )


def _movement(activity: np.ndarray) -> list[Figure]:
    """How much neurons move, and how many never do."""
    std = activity.std(0)
    median = float(np.median(std))
    num_still = count_still(activity)
    figures: list[Figure] = [
        Table(
            title="Neurons that never move",
            caption=f"A neuron never moves if its post-activation's standard deviation over the {len(activity)} ticks "
            f"that were recorded is at most a thousandth of the median neuron's, {median:.3g}.",
            columns=("neurons", "never move", "share"),
            rows=[(str(len(std)), str(num_still), f"{100 * num_still / len(std):.1f} %")],
        )
    ]
    if median > 0:
        logs = np.log10(np.maximum(std / median, STILL))
        edges = np.linspace(math.log10(STILL), max(1.0, float(logs.max()) + 1e-9), _NUM_BINS + 1)
        counts = np.histogram(logs, edges)[0]
        figures.append(
            Bars(
                title="How much neurons move",
                caption="Number of neurons by the standard deviation of their post-activation, relative to the median "
                "one; the first bar holds those that never move.",
                labels=[f"{10**low:.2g}" for low in edges[:-1]],
                values=counts.astype(np.float64),
                x_label="standard deviation, median = 1 (from)",
                y_label="neurons",
            )
        )
    return figures


def _likeness(activity: np.ndarray) -> list[Figure]:
    """The distribution of the correlations between neurons."""
    moving = np.flatnonzero(activity.std(0) > STILL * np.median(activity.std(0)))
    kept = moving[_spread(len(moving), MAX_POINTS)]
    if len(kept) < 2 or len(activity) < 3:
        return []
    traces = _standardised(activity[:, kept])
    correlations = (traces.T @ traces / len(traces))[np.triu_indices(len(kept), 1)]
    edges = np.linspace(-1, 1, _NUM_BINS + 1)
    counts = np.histogram(correlations.clip(-1, 1), edges)[0]
    return [
        Bars(
            title="How alike neurons are",
            caption=f"Correlations between the traces of {len(kept)} neurons that move, all pairs: "
            f"{100 * float((np.abs(correlations) > 0.9).mean()):.1f} % are above 0.9 or below -0.9. Near 0, two "
            "neurons do different things.",
            labels=[f"{low:.1f}" for low in edges[:-1]],
            values=counts / counts.sum(),
            x_label="correlation (from)",
            y_label="share of pairs",
        )
    ]


def _standardised(columns: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1; constant ones are 0."""
    std = columns.std(0)
    return (columns - columns.mean(0)) / np.where(std > 0, std, 1)


def _scaled(columns: np.ndarray) -> np.ndarray:
    """Columns divided by their largest absolute value, in half precision."""
    largest = np.abs(columns).max(0, keepdims=True, initial=0)
    return (columns / np.where(largest > 0, largest, 1)).astype(np.float16)


def _within_half(values: np.ndarray) -> np.ndarray:
    """Values in half precision, larger ones cut."""
    limit = float(np.finfo(np.float16).max)
    return values.clip(-limit, limit).astype(np.float16)


def _spread(count: int, limit: int) -> np.ndarray:
    """Indices of at most ``limit`` of ``count`` things, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int)) if count else np.zeros(0, int)


def _some(number: int, total: int) -> str:
    """How many of all are shown."""
    return f"All {total}" if number == total else f"{number} of {total}"
