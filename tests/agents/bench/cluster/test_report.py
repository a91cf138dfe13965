"""The cost of clusters: measured parts added up, and a simulation by processes that only wait."""

import json
from pathlib import Path
from typing import Any

import pytest

from ctm_rl.agents.bench.cluster.cost_model import ClusterSize, Costs, NetworkLimits, predict, predict_on_one_machine
from ctm_rl.cli.main import main

COSTS = Costs(
    act=2.0,
    learn=4.0,
    put=0.5,
    trip=0.125,
    call=0.0625,
    log=0.25,
    gather=0.5,
    scatter=1.0,
    reduce_latency=0.03125,
    reduce_byte=0.001,
    share_bytes=100,
    weight_bytes=20,
    gradient_bytes=40,
)
NETWORK = NetworkLimits(bytes_per_second=1000.0, runners_per_node=4)
TINY = (
    *("--model.num-neurons", "9", "--model.history-length", "4", "--model.feature-dim", "6", "--model.nlm-hidden-dim"),
    *("2", "--model.num-output-sync-neurons", "5", "--model.head-dims", "8", "--ppo.num-rollout-steps", "8"),
    *("--num-envs-per-env-runner", "8", "--ppo.num-minibatches", "2", "--ppo.num-epochs", "3", "--rounds", "1"),
)


def test_one_of_each_costs_what_its_parts_do() -> None:
    iteration = predict(COSTS, ClusterSize(1, 1, 6, 10), NETWORK)
    assert iteration.parts._asdict() == {
        "act": 2.5,
        "driver": 0.125 + 0.25 + 0.5,
        "network": 120 / 1000,
        "learn": 4.0,
        "reduce": 0.0,
    }
    assert iteration.scattered_bytes == iteration.reduced_bytes == 0
    assert iteration.seconds == pytest.approx(2.5 + 0.875 + 0.12 + 4.0)
    assert iteration.seconds_ahead == pytest.approx(0.875 + 0.12 + 4.0)
    assert iteration.bottleneck == "learn"


def test_many_of_each_share_the_work_and_average_gradients() -> None:
    iteration = predict(COSTS, ClusterSize(10, 4, 6, 10), NETWORK)
    assert iteration.gathered_bytes == iteration.scattered_bytes == 1000
    assert iteration.weight_bytes == 3 * 20  # ten env runners live on three machines
    assert iteration.reduced_bytes == 2 * 3 * 6 * 10  # six messages of a quarter of the gradients, six times
    assert iteration.parts.driver == pytest.approx(0.125 + (9 + 4) * 0.0625 + 10 * (0.25 + 0.5 + 1.0))
    assert iteration.parts.network == pytest.approx(2.06)
    assert iteration.parts.learn == 10.0
    assert iteration.parts.reduce == pytest.approx(36 * 0.03125 + 360 / 1000)


@pytest.mark.parametrize(
    ("size", "bottleneck"),
    [
        (ClusterSize(1, 8, 1, 10), "act"),
        (ClusterSize(64, 1, 6, 10), "learn"),
        (ClusterSize(64, 64, 6, 10), "driver"),
        (ClusterSize(1, 64, 60, 10), "reduce"),
    ],
)
def test_the_bottleneck_moves(size: ClusterSize, bottleneck: str) -> None:
    assert predict(COSTS, size, NETWORK).bottleneck == bottleneck


def test_a_slow_network_is_a_bottleneck_too() -> None:
    assert predict(COSTS, ClusterSize(64, 8, 1, 10), NETWORK._replace(bytes_per_second=1.0)).bottleneck == "network"


def test_ahead_hides_the_shorter_of_playing_and_the_rest() -> None:
    slow_play = COSTS._replace(act=100.0)
    iteration = predict(slow_play, ClusterSize(2, 1, 6, 10), NETWORK)
    assert iteration.seconds_ahead == 100.5
    assert iteration.seconds > iteration.seconds_ahead


def test_processes_of_one_machine_wait_for_its_cores_and_for_no_network() -> None:
    size = ClusterSize(5, 1, 6, 10)
    parts = predict(COSTS, size, NETWORK).parts
    expected = parts.act + parts.driver + parts.learn + 4 * 0.5 / 2
    assert predict_on_one_machine(COSTS, size, 2) == pytest.approx(expected)


def test_costs_are_measured_added_up_and_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctm_rl.agents.bench.cluster import costs as measure_costs

    quietly = measure_costs.measure_costs

    def measure_loudly(*arguments: Any) -> Any:
        print("processes have been started")  # as Ray does where there are more of them than cores
        return quietly(*arguments)

    monkeypatch.setattr(measure_costs, "measure_costs", measure_loudly)
    out = tmp_path / "cluster.json"
    arguments = ("bench", "cluster", "cartpole", *TINY, "--cluster.dummy-env-runners", "3", "--out", str(out))
    more = ("--cluster.dummy-learners", "2", "--cluster.env-runners", "1", "7", "--cluster.learners", "1", "2")
    assert main([*arguments, *more]) == 0
    result = json.loads(out.read_text())
    costs = result["costs"]
    assert all(value > 0 for name, value in costs.items() if name not in ("call", "reduce_byte"))
    # 8 environments of 8 steps: four numbers seen, one int64 done, five float32 and three bool of each, and more
    assert costs["share_bytes"] > 64 * (16 + 8 + 16 + 3)
    assert [(row["env_runners"], row["learners"]) for row in result["clusters"]] == [(1, 1), (7, 1), (1, 2), (7, 2)]
    steps = [row["env_steps"] for row in result["clusters"]]
    assert 32 < steps[0] <= 64  # where an episode has ended, a step is an autoreset step
    assert steps == [steps[0], 7 * steps[0], steps[0], 7 * steps[0]]
    assert result["clusters"][2]["reduced_bytes"] == 2 * 6 * costs["gradient_bytes"] // 2
    assert [(row["env_runners"], row["learners"]) for row in result["simulated"]] == [(1, 1), (3, 1), (1, 2), (3, 2)]
    assert all(row["seconds"] > row["waited"] > 0 for row in result["simulated"])
    assert result["loaded_by_dummies"] == []
    text, errors = capsys.readouterr()
    assert "| 7 | 2 |" in text
    assert "processes have been started" in errors
    assert "processes have been started" not in text
    assert "neither torch nor RLlib" in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_64_dummies_take_as_long_as_predicted(tmp_path: Path) -> None:
    out = tmp_path / "cluster.json"
    assert main(["bench", "cluster", "cartpole", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert {row["env_runners"] for row in result["simulated"]} == {1, 4, 16, 64}
    assert [row["seconds"] for row in result["simulated"]] == pytest.approx(
        [row["predicted"] for row in result["simulated"]], rel=0.2
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cluster.learners", "0"), "cluster.learners must be whole numbers above 0"),
        (("--cluster.network-gbits", "0"), "cluster.network_gbits must be above 0"),
        (("--algorithm", "appo"), "bench cluster is for algorithm ppo, got appo"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "cluster", "cartpole", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
