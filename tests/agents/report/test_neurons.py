"""Figures of neurons on known inputs."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ctm_rl.agents.report.document import Bars, Matrix, Points, Table, Traces
from ctm_rl.agents.report.neurons import (
    NeuronRecord,
    Pairs,
    Wiring,
    count_still,
    lay_out,
    neuron_figures,
    neuron_summary,
    principal_components,
    sync_matrix,
    wiring_of,
)
from ctm_rl.config import CoreConfig
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.pairing import all_pairs

N, D = 7, 12


def pairs_of(left: list[int], right: list[int]) -> Pairs:
    """All pairs of some neurons."""
    found = all_pairs(torch.tensor(left), torch.tensor(right))
    return Pairs(found.left.numpy(), found.right.numpy(), np.zeros(len(found.left)))


def record(wiring: Wiring | None = None) -> NeuronRecord:
    generator = np.random.default_rng(0)
    post, pre = generator.normal(size=(2, N, D))
    return NeuronRecord(post, pre, generator.normal(size=(N, 6)), None, wiring)


def test_a_matrix_has_each_pair_at_its_neurons() -> None:
    values = np.arange(2 * 6.0).reshape(2, 6)
    found = sync_matrix(values, pairs_of([4, 5, 9], [4, 5, 9]))
    assert found is not None
    matrix, rows, columns = found
    assert rows == columns == ["4", "5", "9"]
    assert matrix[0].tolist() == [[0, 1, 2], [1, 3, 4], [2, 4, 5]]
    assert matrix[1, 2, 0] == 8


def test_a_matrix_of_two_sides_is_empty_below_its_diagonal() -> None:
    found = sync_matrix(np.arange(3.0)[None], pairs_of([1, 2], [7, 8]))
    assert found is not None
    matrix, rows, columns = found
    assert (rows, columns) == (["1", "2"], ["7", "8"])
    np.testing.assert_array_equal(matrix[0], [[0, 1], [np.nan, 2]])


def test_random_pairs_are_no_matrix_even_if_there_are_as_many() -> None:
    pairs = Pairs(np.array([3, 3, 8]), np.array([1, 2, 5]), np.zeros(3))
    assert sync_matrix(np.zeros((2, 3)), pairs) is None
    assert sync_matrix(np.zeros((2, 4)), None) is None
    figure = neuron_figures(record(Wiring(Pairs(np.arange(6), np.arange(6, 12), np.zeros(6)), None)))[1]
    assert isinstance(figure, Matrix)
    assert figure.values.shape == (6, N)
    assert figure.y_names[0] == "0, 6"
    assert figure.cursor == "time"


def test_traces_are_of_the_neurons_that_are_named() -> None:
    made = record(Wiring(pairs_of([2, 5, 7], [2, 5, 7]), None))
    traces = neuron_figures(made)[0]
    assert isinstance(traces, Traces)
    neurons = [int(name.removeprefix("neuron ")) for name in traces.names]
    assert neurons[:3] == [2, 5, 7]
    assert set(traces.groups[:3]) == {"output synchronisation"}
    assert len(set(neurons)) == len(neurons) == 3 + 8
    assert set(traces.groups[3:]) == {"random"}
    np.testing.assert_allclose(traces.values, made.post_activations[:, neurons], atol=1e-2)
    assert traces.others is not None
    assert made.pre_activations is not None
    np.testing.assert_allclose(traces.others, made.pre_activations[:, neurons], atol=1e-2)


def test_the_wiring_is_that_of_the_machine() -> None:
    torch.manual_seed(0)
    core = CTMCore(CoreConfig(num_neurons=9, history_length=2, num_output_sync_neurons=4, num_ticks=2), 3)
    wiring = wiring_of(torch.nn.ModuleDict({"core": core}))
    assert wiring is not None
    assert wiring.output.left.tolist() == core.output_sync.left.tolist()
    assert wiring_of(torch.nn.Linear(2, 2)) is None


def test_neurons_that_never_move_are_counted() -> None:
    activity = np.random.default_rng(1).normal(size=(50, 10))
    activity[:, 3] = 0.7
    activity[:, 8] *= 1e-5
    assert count_still(activity) == 2
    assert count_still(np.zeros((5, 4))) == 4
    made = NeuronRecord(activity, None, activity, None)
    table, movement, likeness = neuron_summary([made, made])
    assert isinstance(table, Table)
    assert table.rows == [("10", "2", "20.0 %")]
    assert isinstance(movement, Bars)
    assert movement.values[0] == 2
    assert isinstance(likeness, Bars)
    assert np.isclose(np.sum(likeness.values), 1)


def test_neurons_that_do_the_same_are_alike() -> None:
    one = np.random.default_rng(2).normal(size=(30, 1))
    _, _, likeness = neuron_summary([NeuronRecord(one * np.array([1.0, 2.0, -1.0]), None, one, None)])
    assert isinstance(likeness, Bars)
    values = np.asarray(likeness.values)
    assert np.isclose(values[-1], 1 / 3)
    assert np.isclose(values[0], 2 / 3)


def test_principal_components_are_those_of_the_points() -> None:
    generator = np.random.default_rng(3)
    plane = generator.normal(size=(20, 2)) * (5, 1)
    basis, _ = np.linalg.qr(generator.normal(size=(6, 2)))
    points, explained = principal_components(plane @ basis.T + 3)
    centred = plane - plane.mean(0)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    np.testing.assert_allclose(distances, np.linalg.norm(centred[:, None] - centred, axis=-1), atol=1e-9)
    assert np.isclose(explained.sum(), 1)
    assert explained[0] > explained[1]


def test_points_are_coloured_by_activity() -> None:
    made = record()
    layout = lay_out([made, made])
    assert layout is not None
    figure = neuron_figures(made, layout)[-1]
    assert isinstance(figure, Points)
    assert figure.values.shape == (N, D)
    np.testing.assert_allclose(np.abs(figure.values).max(0), 1)


def test_umap_places_neurons_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "umap.py").write_text(
        "class UMAP:\n"
        "    def __init__(self, n_neighbors, random_state):\n"
        "        assert (n_neighbors, random_state) == (15, 0)\n"
        "    def fit_transform(self, traces):\n"
        "        return traces[:, :2] * 0 + 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    hidden = np.random.default_rng(5).normal(size=(N, 20))
    layout = lay_out([NeuronRecord(hidden, None, hidden, None)])
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    assert layout is not None
    assert layout.name == "UMAP"
    assert (layout.points == 7).all()


def test_a_baseline_has_traces_alone() -> None:
    hidden = np.random.default_rng(4).normal(size=(N, D))
    kinds = [figure.kind for figure in neuron_figures(NeuronRecord(hidden, None, hidden, None))]
    assert kinds == ["traces", "points"]
    assert neuron_summary([]) == []
    assert lay_out([]) is None
