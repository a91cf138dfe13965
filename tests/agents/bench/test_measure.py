"""The benchmark: contenders, the arithmetic floor, results and error messages."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from own_modules import own_modules
from torch.utils.flop_counter import FlopCounterMode

from ctm_rl import PolicyConfig
from ctm_rl.agents.bench import contender_sb3 as sb3
from ctm_rl.agents.bench import floor, memory, scaling, table
from ctm_rl.agents.bench.client import Worker, WorkerFailed
from ctm_rl.agents.bench.measure import median_of
from ctm_rl.agents.bench.settings import CONTENDERS, BenchOptions, RivalSettings
from ctm_rl.agents.bench.timing import Timing, Unavailable
from ctm_rl.agents.bench.worker import make_contender
from ctm_rl.agents.experiments.acting import PPOSettings
from ctm_rl.cli.check_arguments import divide
from ctm_rl.cli.main import main
from ctm_rl.config import ModelKind
from ctm_rl.configs.cartpole import cartpole, cartpole_paper
from ctm_rl.engine.episode import step_through
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.synapse import BlockSynapse
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import grid_layout, vector_layout

SMALL = PolicyConfig(
    encoder="control",
    num_neurons=18,
    history_length=5,
    num_ticks=3,
    nlm_hidden_dim=2,
    num_output_sync_neurons=6,
    feature_dim=7,
    head_dims=(8, 9),
    baseline_dim=11,
)
VARIANTS = {
    "window": dataclasses.replace(SMALL, sync_window=True),
    "accumulators": SMALL,
    "one block, shallow": dataclasses.replace(SMALL, num_synapse_blocks=1, is_nlm_deep=False, num_ticks=2),
    "u-net": dataclasses.replace(SMALL, synapse_depth=3, num_synapse_blocks=1),
    "random pairing": dataclasses.replace(SMALL, pairing="random-pairing"),
    "no hidden layers": dataclasses.replace(SMALL, head_dims=()),
}
TINY = (
    *("--model.num-neurons", "9", "--model.history-length", "4", "--model.feature-dim", "6", "--model.nlm-hidden-dim"),
    *("2", "--model.num-output-sync-neurons", "5", "--model.head-dims", "8", "--ppo.num-rollout-steps", "8"),
    *("--num-envs-per-env-runner", "8", "--ppo.num-minibatches", "2", "--ppo.num-epochs", "1"),
    *("--rival.num-envs", "4", "--rival.num-steps", "8", "--rival.lstm-dim", "5", "--rival.num-epochs", "1"),
    *("--rival.num-minibatches", "2"),
    *("--rounds", "1", "--num-threads", "1"),
)


def flops_forward(config: PolicyConfig, num_steps: int, num_rows: int) -> int:
    """What PyTorch counts in the plain loop."""
    agent = ActorCritic(config, vector_layout(4), Choices(sizes=(3,)))
    assert isinstance(agent.core, CTMCore)
    observations = torch.randn(num_steps, num_rows, 4)
    is_first = torch.zeros(num_steps, num_rows)
    state = agent.initial_state(num_rows)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        features = agent.encoder(observations.flatten(0, 1)).unflatten(0, (num_steps, num_rows))
        sync, _ = step_through(agent.core, features, is_first, state, config.num_ticks)
        agent.policy(sync)
        agent.value(sync)
    return counter.get_total_flops()


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_the_floor_counts_what_the_plain_loop_multiplies(config: PolicyConfig) -> None:
    counted = floor.count(config, vector_layout(4), Choices(sizes=(3,)))
    # The plain loop multiplies the features again in each tick, and synchronises without matrix products.
    expected = counted.total - counted.sync + (config.num_ticks - 1) * counted.features
    assert flops_forward(config, num_steps=2, num_rows=3) == 2 * 2 * 3 * expected


@pytest.mark.parametrize(("kind", "num_gates"), [("lstm", 4), ("gru", 3)])
def test_the_floor_of_a_recurrent_baseline_has_its_gates(kind: ModelKind, num_gates: int) -> None:
    config = dataclasses.replace(SMALL, kind=kind)
    counted = floor.count(config, vector_layout(4), Choices(sizes=(3,)))
    assert (counted.features, counted.recurrent) == (7 * num_gates * 11, 3 * 11 * num_gates * 11)
    assert counted.neurons == counted.sync == 0


def test_the_floor_of_a_feed_forward_policy_has_one_layer_more() -> None:
    counted = floor.count(dataclasses.replace(SMALL, kind="mlp"), vector_layout(4), Choices(sizes=(3,)))
    assert (counted.features, counted.recurrent, counted.neurons, counted.sync) == (7 * 11, 0, 0, 0)


def test_the_floor_counts_an_encoder_of_the_users(place: Path) -> None:
    with own_modules(place):
        config = dataclasses.replace(SMALL, encoder="own_nets:Wide")
        counted = floor.count(config, vector_layout(4), Choices(sizes=(3,)))
    assert counted.encoder == 4 * 2 * SMALL.feature_dim
    ours = floor.count(dataclasses.replace(SMALL, encoder="control"), vector_layout(4), Choices(sizes=(3,)))
    assert (counted.features, counted.recurrent) == (2 * ours.features, ours.recurrent)


def test_the_floor_counts_every_cell_of_a_grid() -> None:
    config = dataclasses.replace(SMALL, encoder="grid")
    agent = ActorCritic(config, grid_layout(7, 7), Choices(sizes=(3,)))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        agent.encoder(torch.zeros(2, 7, 7, 3))
    counted = floor.count(config, grid_layout(7, 7), Choices(sizes=(3,)))
    assert counter.get_total_flops() == 2 * 2 * counted.encoder
    assert isinstance(agent.core, CTMCore)
    assert isinstance(agent.core.synapse, BlockSynapse)
    assert counted.features == 49 * 7 * 2 * 18


def test_the_published_minibatch_is_about_nine_gflop() -> None:
    model = dataclasses.replace(cartpole_paper().model, encoder="control")
    counted = floor.count(model, vector_layout(4), Choices(sizes=(2,)))
    assert 8.5 < floor.gflop(counted, 64 * 100) < 10.5
    assert floor.gflop(counted, 64 * 100) == pytest.approx(3 * 12_800e-9 * counted.total)


def test_the_matrix_rate_is_a_rate() -> None:
    assert 0.1 < floor.matrix_rate(torch.device("cpu"), seconds=0.05) < 100_000


@pytest.mark.skipif(not memory.reset_peak(), reason="this system does not let a process reset its peak")
def test_the_peak_is_measured_and_can_be_reset() -> None:
    memory.release_free()
    meter = memory.PeakMeter()
    meter.start()
    block = bytearray(64 * 2**20)
    assert len(block) > 0
    del block
    peak = meter.above_floor_mb()
    assert peak is not None
    assert 60 < peak < 100
    memory.release_free()  # a learner may have configured the allocator to keep freed memory
    meter.start()
    later = meter.above_floor_mb()
    assert later is not None
    assert later < 20


def test_without_the_systems_status_files_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    monkeypatch.setattr(memory, "_CLEAR", Path("/nowhere/else"))
    meter = memory.PeakMeter()
    meter.start()
    assert (meter.floor_mb, meter.above_floor_mb()) == (None, None)


def test_the_median_is_taken_of_every_value() -> None:
    timings = [
        Timing(seconds, 1.0, None if seconds == 2 else 1.0, 0.0, 8, seconds, 0.5)._asdict() for seconds in (3, 1, 2)
    ]
    medians = median_of(timings)
    assert (medians["seconds"], medians["peak_mb"], medians["update"], medians["env_steps"]) == (2, 2, None, 8)


def test_a_line_is_fitted_and_its_worst_point_found() -> None:
    assert scaling.fit([1, 2, 4], [3, 5, 9]) == pytest.approx((1, 2, 0))
    assert scaling.fit([0, 1, 2], [1, 1.3, 1]).worst_deviation == pytest.approx(0.3 - 0.1, abs=0.02)


def test_options_are_separated_from_fields_of_the_experiment() -> None:
    arguments = ["cartpole", "--only", "ctm-rl", "sb3-lstm", "--model.num-ticks", "5", "--json", "--rival.lstm_dim=3"]
    own, others = divide(BenchOptions, arguments)
    assert own == ["--only", "ctm-rl", "sb3-lstm", "--json", "--rival.lstm_dim=3"]
    assert others == ["cartpole", "--model.num-ticks", "5"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs the command; returns its output."""
    capsys.readouterr()
    code = main(["bench", *arguments])
    output, error = capsys.readouterr()
    assert (code, error) == (0, "")
    return output


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")
def test_contenders_are_measured_and_the_table_is_made_from_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    output = run(capsys, "--only", "sb3-lstm", "ctm-rl", *TINY, "--json", "--out", "result.json")
    assert output.count("\n") == 1
    assert (tmp_path / "result.json").read_text() == output
    result = json.loads(output)
    assert set(result) == {"machine", "versions", "command", "settings", "rows", "minibatch"}
    assert result["command"].startswith("ctm-rl bench --only sb3-lstm")
    assert result["settings"]["experiment"]["model"]["num_neurons"] == 9
    assert [row["name"] for row in result["rows"]] == ["ctm-rl", "sb3-lstm"]
    for row in result["rows"]:
        if row["name"] == "sb3-lstm" and importlib.util.find_spec("sb3_contrib") is None:
            assert "ctm-rl[bench]" in row["unavailable"]
            continue
        check_row(row)
    part = result["minibatch"]
    assert (part["rows"], part["steps"]) == (4, 8)
    assert 0 < part["forward"] < part["forward_backward"]
    assert part["times_floor"] == pytest.approx(part["forward_backward"] / part["floor"], rel=0.01)
    markdown = run(capsys, "--markdown", "result.json")
    assert f"| `ctm-rl` | {result['rows'][0]['seconds']:.2f}" in markdown or "| `ctm-rl` | 0.0" in markdown
    assert all(len(line.split("|")) == 11 for line in markdown.splitlines() if line.startswith("|"))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("name", "note", "env_steps"),
    [
        ("ctm-rl-lstm", "LSTM 20, 8 x 8 steps, 1 epochs, 2 minibatches", 64),
        ("ctm-rl-small", "4 x 8 steps, 1 epochs, 2 minibatches", 32),
        ("rllib-ctm-20", "8 x 8 steps, 1 epochs, 2 minibatches", 64),
        ("rllib-lstm", "LSTM 5, 4 x 8 steps, 1 epochs, 2 minibatches", 32),
    ],
)
def test_every_contender_reports_its_parts(name: str, note: str, env_steps: int) -> None:
    experiment = dataclasses.replace(
        cartpole_paper(),
        model=dataclasses.replace(SMALL, encoder="auto"),
        ppo=PPOSettings(num_rollout_steps=8, num_epochs=1, num_minibatches=2),
        num_envs_per_env_runner=8,
    )
    rival = RivalSettings(num_envs=4, num_steps=8, lstm_dim=5, num_epochs=1, num_minibatches=2)
    contender = make_contender(name, experiment, rival)
    description = contender.prepare()
    first, second = contender.run_iteration(), contender.run_iteration()
    contender.close()
    assert description.note == note
    for timing in (first, second):
        assert timing.rollout is not None
        assert timing.update is not None
        assert timing.weight_sync is not None
        # Sums over this iteration alone: smoothed timers would exceed it, or fall far short of it.
        assert 0.3 * timing.seconds < timing.rollout + timing.update + timing.weight_sync <= timing.seconds
        # Ours does not count the step in which an environment resets; RLlib plays on until there are enough.
        least, most = (0.8, 1.0) if name.startswith("ctm-rl") else (1.0, 1.2)
        assert least * env_steps <= timing.env_steps <= most * env_steps
        assert (timing.update_peak_mb is not None) == memory.reset_peak()


def check_row(row: dict[str, Any]) -> None:
    """One contender's row is whole, and its parts make up an iteration."""
    assert set(Timing._fields) < set(row)
    parts = row["rollout"] + row["update"] + row["weight_sync"]
    assert 0.3 * row["seconds"] < parts <= row["seconds"] * 1.01
    assert row["env_steps_per_second"] == pytest.approx(row["env_steps"] / row["seconds"], rel=0.01)
    assert row["num_threads"] == 1
    assert row["parameters"] > 100


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")
def test_scaling_returns_points_lines_and_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    calls = []

    class Instant:
        """A worker that costs a second, and another for each tick and each ten steps."""

        def __init__(self, name: str, experiment: Any, *_: Any, label: str) -> None:
            assert name == "ctm-rl"
            self.label = label
            self._steps = experiment.ppo.num_rollout_steps
            self._seconds = 1 + experiment.model.num_ticks + self._steps / 10

        def __enter__(self) -> "Instant":
            return self

        def __exit__(self, *_: object) -> None:
            calls.append("closed")

        def wait(self) -> None:
            calls.append("built")

        def request(self, kind: str) -> dict[str, Any]:
            return Timing(self._seconds, None, None, None, self._steps * 8, None, None)._asdict()

    monkeypatch.setattr(scaling, "Worker", Instant)
    text = run(
        capsys, "scaling", *TINY, "--scale.ticks", "1", "3", "--scale.steps", "5", "10", "20", "--out", "curves.json"
    )
    curves = json.loads((tmp_path / "curves.json").read_text())["curves"]
    assert [point["value"] for point in curves["steps"]["points"]] == [5, 10, 20]
    assert curves["ticks"]["line"] == pytest.approx({"intercept": 1.8, "slope": 1.0, "worst_deviation": 0.0})
    assert curves["steps"]["line"]["slope"] == pytest.approx(0.1)
    assert len(curves["iteration"]["points"]) == 20
    assert curves["iteration"]["line"]["slope"] == pytest.approx(0)
    assert "ticks of a step, K: 1.8000 s + 1.0000 s each, worst deviation 0.0 %" in text
    assert (calls.count("built"), calls.count("closed")) == (6, 6)
    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    assert (tmp_path / "curves.png").exists() == has_matplotlib
    assert has_matplotlib or "no figure, since matplotlib is not installed" in text


def test_without_sb3_its_row_has_the_reason_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(Unavailable, match=r'install it with pip install "ctm-rl\[bench\]"') as caught:
        sb3.SB3Contender(cartpole_paper(), RivalSettings()).prepare()
    row = {"name": "sb3-lstm", "what": CONTENDERS["sb3-lstm"], "unavailable": str(caught.value)}
    circumstances = {
        "machine": {"cpu": "a", "cores": 1, "memory_gb": 1},
        "versions": {"torch": "2", "sb3-contrib": None},
        "command": "ctm-rl bench",
        "settings": {"rounds": 1, "num_threads": 1},
    }
    lines = table.to_markdown({**circumstances, "rows": [row]}).splitlines()
    assert len([line for line in lines if "not measured: " in line]) == 1


def test_sb3_reads_dictionaries_too() -> None:
    pytest.importorskip("sb3_contrib")
    experiment = cartpole()
    experiment = dataclasses.replace(experiment, env=dataclasses.replace(experiment.env, previous_action=True))
    contender = sb3.SB3Contender(experiment, RivalSettings(num_envs=2, num_steps=4, num_minibatches=2))
    contender.prepare()
    assert type(contender._model.policy).__name__ == "RecurrentMultiInputActorCriticPolicy"
    contender.close()


def test_a_worker_that_dies_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Worker("ctm-rl", cartpole(), 1, RivalSettings()) as worker:
        with pytest.raises(WorkerFailed, match="ctm-rl failed: its process ended with exit code 1"):
            worker.wait()


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "contender": (("--only", "rllib"), "only must name contenders (ctm-rl, ctm-rl-lstm"),
    "rounds": (("--rounds", "0"), "rounds must be at least 1, got 0"),
    "threads": (("--num-threads", "0"), "num_threads must be at least 1, got 0"),
    "rival": (("--rival.num-minibatches", "3"), "rival.num_minibatches must divide the 64 environments, got 3"),
    "scale": (("scaling", "--scale.ticks", "2"), "scale.ticks must be two or more different whole numbers"),
    "in a row": (("scaling", "--scale.iterations", "1"), "scale.iterations must be at least 2, got 1"),
    "experiment": (("cartpol",), "unknown experiment 'cartpol': did you mean cartpole?"),
    "two experiments": (
        ("cartpole", "--env", "CartPole-v1"),
        "bench takes one experiment, got cartpole and --env CartPole-v1",
    ),
    "option": (("--round", "3"), "unknown option --round; did you mean --rounds?"),
    "field": (("cartpole", "--model.num-tick", "3"), "did you mean --model.num-ticks?"),
    "value": (("--model.num-ticks", "0"), "model.num_ticks must be at least 1, got 0"),
    "file": (("--markdown", "none.json"), "none.json cannot be read: No such file"),
    "no result": (("--markdown", "wrong.json"), "wrong.json is not a result of ctm-rl bench --json"),
    "markdown of what": (("cartpole", "--markdown", "wrong.json"), "--markdown measures nothing"),
    "out": (("--out", "none/result.json"), "cannot be written; name a file in a directory that exists"),
    "out a directory": (("--out", "."), "cannot be written"),
    "environment": (("--env.id", "CartPole-v9"), "ctm-rl: env.id 'CartPole-v9' cannot be made"),
    "action space": (
        ("--env", "Pendulum-v1", "--only", "ctm-rl"),
        "ctm-rl: the bench compares policies of one choice (Discrete), and Pendulum-v1",
    ),
    "too many runners": (("--num-env-runners", "4096"), "need 4096 CPU cores, and this machine has"),
}


@pytest.mark.parametrize("arguments, message", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("wrong.json").write_text('{"rows": 3}')
    assert main(["bench", *arguments]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("ctm-rl: ")
    assert error.count("\n") == 1
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.json"]
