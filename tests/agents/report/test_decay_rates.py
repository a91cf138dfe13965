"""Decay rates: how they are now, and how they moved from checkpoint to checkpoint."""

from pathlib import Path

import numpy as np
from answering_runs import small_experiment, untrained, write_run

from ctm_rl.agents.report.decay_rates import decay_figures, decay_history
from ctm_rl.agents.report.document import Bars, Lines
from ctm_rl.agents.report.neurons import wiring_of
from ctm_rl.checkpoints import store

EXPERIMENT = small_experiment("parity")


def rates_of(seed: int) -> list[float]:
    """The rates of the output synchronisation."""
    wiring = wiring_of(untrained(EXPERIMENT, seed))
    assert wiring is not None
    return wiring.output.decay_rate.tolist()


def test_rates_are_followed_through_the_checkpoints(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", EXPERIMENT, iterations=(2, 4, 9))
    (store.path_of(run, 4) / store.TENSORS_FILE).write_bytes(b"damaged")
    history = decay_history(run)
    assert {iteration: rates["output"].tolist() for iteration, rates in history.items()} == {
        iteration: rates_of(iteration) for iteration in (2, 9)
    }
    wiring = wiring_of(untrained(EXPERIMENT, 9))
    assert wiring is not None
    output, way, action, _ = decay_figures(wiring, (0.5,), history)
    assert isinstance(output, Bars)
    assert isinstance(way, Lines)
    assert np.sum(output.values) == len(rates_of(9))
    assert output.caption.endswith("Before training they were 0.5.")
    assert np.asarray(way.x).tolist() == [2, 9]
    np.testing.assert_allclose(way.lines[0].y, [np.median(rates_of(iteration)) for iteration in (2, 9)])
    assert action.title == "Decay rates of the action synchronisation"


def test_without_checkpoints_there_is_no_way(tmp_path: Path) -> None:
    assert decay_history(tmp_path) == {}
    wiring = wiring_of(untrained(EXPERIMENT))
    assert wiring is not None
    assert [figure.kind for figure in decay_figures(wiring, (), {})] == ["bars", "bars"]
    both = decay_figures(wiring, (0.0, 1.0), {})[0]
    assert isinstance(both, Bars)
    assert both.caption.endswith("Before training they were 0 and 1.")
