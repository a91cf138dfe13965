"""Learning curves have the values of the metrics."""

import numpy as np

from ctm_rl.agents.report.curves import MAX_POINTS, learning_curves
from ctm_rl.agents.report.document import Lines


def curves(rows: list[dict]) -> dict[str, Lines]:
    """The charts by title."""
    figures = learning_curves(rows)
    assert all(isinstance(figure, Lines) for figure in figures)
    return {figure.title: figure for figure in figures if isinstance(figure, Lines)}


def test_curves_have_the_values_of_the_metrics() -> None:
    rows = [
        {
            "iteration": index + 1,
            "env_steps": 10 * (index + 1),
            "episode_return_mean": value,
            "entropy": 0.5,
            "kl": None,
        }
        for index, value in enumerate([None, 2.0, 5.0])
    ]
    found = curves(rows)
    assert list(found) == ["Return in training", "Entropy of the policy"]
    chart = found["Return in training"]
    assert np.asarray(chart.x).tolist() == [10, 20, 30]
    np.testing.assert_array_equal(chart.lines[0].y, [np.nan, 2.0, 5.0])


def test_an_evaluation_is_one_point_at_the_steps_of_its_weights() -> None:
    rows = [
        {"iteration": 1, "env_steps": 10, "eval_return_mean": None, "eval_return_std": None, "eval_iteration": None},
        {"iteration": 2, "env_steps": 20, "eval_return_mean": 7.0, "eval_return_std": 2.0, "eval_iteration": 1},
        {"iteration": 3, "env_steps": 30, "eval_return_mean": 7.0, "eval_return_std": 2.0, "eval_iteration": 1},
        {"iteration": 4, "env_steps": 40, "eval_return_mean": 9.0, "eval_return_std": 1.0, "eval_iteration": 4},
    ]
    chart = curves(rows)["Return in evaluations"]
    assert np.asarray(chart.x).tolist() == [10, 40]
    (line,) = chart.lines
    assert np.asarray(line.y).tolist() == [7.0, 9.0]
    assert np.asarray(line.low).tolist() == [5.0, 8.0]
    assert np.asarray(line.high).tolist() == [9.0, 10.0]


def test_a_test_on_held_out_samples_is_one_point() -> None:
    tested = {"accuracy": 0.5, "accuracy_whole": 0.1, "held_out_loss": 1.0}
    rows = [
        {"iteration": 1, "env_steps": 10, "accuracy": None, "accuracy_whole": None, "total_loss": 3.0},
        {"iteration": 2, "env_steps": 20, **tested, "total_loss": 2.0},
        {"iteration": 3, "env_steps": 30, **tested, "total_loss": 1.0},
        {"iteration": 4, "env_steps": 40, **tested, "accuracy": 0.6, "total_loss": 0.5},
    ]
    found = curves(rows)
    accuracy = found["Accuracy on held-out samples"]
    assert [line.name for line in accuracy.lines] == ["accuracy", "accuracy_whole"]
    assert np.asarray(accuracy.x).tolist() == [20, 40]
    assert np.asarray(accuracy.lines[0].y).tolist() == [0.5, 0.6]
    assert np.asarray(found["Loss"].x).tolist() == [10, 20, 30, 40]


def test_long_curves_are_thinned_and_keep_their_end_and_own_metrics_have_charts() -> None:
    rows = [{"iteration": index, "env_steps": index, "own": float(index), "env_faults": 0} for index in range(1, 2501)]
    found = curves(rows)
    assert list(found) == ["own"]
    x = np.asarray(found["own"].x)
    assert len(x) <= MAX_POINTS
    assert x[-1] == 2500
    assert np.asarray(found["own"].lines[0].y).tolist() == x.tolist()


def test_no_metrics_have_no_curves() -> None:
    assert learning_curves([]) == []
