"""``--profile``: where an iteration's time goes, as a line and as a trace."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TINY, budget, comparable, train

from ctm_rl.agents.rllib.spans import COLLECT, ENVIRONMENT, LEARN, POLICY, SAVE, RunnerSpans, Span
from ctm_rl.agents.run_directory.progress import Progress
from ctm_rl.agents.runs import profile as profiling
from ctm_rl.agents.runs.profile import LAST_TRACED, Profile
from ctm_rl.cli.main import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
MS = 1_000_000


class Lines(Progress):
    """Keeps the lines that a run writes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, message: str) -> None:
        self.lines.append(message)


def events_of(run_dir: Path) -> list[dict[str, Any]]:
    """The events of a trace, checked as far as Perfetto needs them."""
    events = json.loads((run_dir / "trace.json").read_text())["traceEvents"]
    for event in events:
        assert {"ph", "name"} <= event.keys()
        assert event["ph"] != "X" or {"ts", "dur", "pid", "tid"} <= event.keys()
    return events


def named(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The spans of a name."""
    return [event for event in events if event["name"] == name and event["ph"] == "X"]


def assert_inside(inner: dict[str, Any], outer: dict[str, Any]) -> None:
    """Whether a span lies in another; of one clock, but for the rounding of floats."""
    assert outer["ts"] - 1 <= inner["ts"]
    assert inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 1


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A profile of a run whose iterations last as long as the clock says."""
    times = iter([0, *(value for number in range(5) for value in (number * 200 * MS, number * 200 * MS + 100 * MS))])
    monkeypatch.setattr(profiling.time, "time_ns", lambda: next(times, 0))
    monkeypatch.setattr(profiling, "_start_profiler", lambda: None)
    return Profile(tmp_path, Lines())


def play(run: Profile, number: int, parts: dict[str, int], of_runners: list[RunnerSpans] | None = None) -> None:
    """An iteration of 100 ms, with parts of so many milliseconds."""
    run.begin_iteration()
    run._recorder.spans += [Span(name, 0, length * MS, length * MS) for name, length in parts.items()]
    run.read({"env_runners": {"spans": of_runners or []}})
    run.end_iteration(number)


def test_shares_leave_out_the_first_iteration_and_the_one_that_the_profiler_slows_down(run: Profile) -> None:
    for number in (8, 9, 10, 11):
        slow = number in (8, 7 + LAST_TRACED)
        play(run, number, {LEARN: 90} if slow else {ENVIRONMENT: 20, POLICY: 30, COLLECT: 10, LEARN: 30, SAVE: 0})
    run.close()
    lines = getattr(run._progress, "lines")  # noqa: B009
    line = "environment 20 %, policy 30 %, collecting 10 %, learner 30 %, rest 10 %"
    assert lines[0] == f"profile of 2 iterations, 0.1 s each: {line}"
    assert lines[1] == f"trace of iterations 8 to 10: {run._path}; ui.perfetto.dev opens it"


def test_runners_in_other_processes_have_shares_of_their_own(run: Profile, tmp_path: Path) -> None:
    of_runners = [
        RunnerSpans(worker, "a 7", [Span(ENVIRONMENT, 5, length * MS, length * MS)])
        for worker, length in ((1, 10), (2, 30))
    ]
    play(run, 1, {COLLECT: 60, LEARN: 30}, of_runners)
    run.close()
    line = "profile of 1 iteration, 0.1 s each: waiting for env runners 60 %, learner 30 %, rest 10 %; "
    assert run.describe() == f"{line}2 env runners: environment 20 %, idle 80 %"
    events = events_of(tmp_path)
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"env runner 1 (a 7)", "env runner 2 (a 7)"}
    assert len({event["pid"] for event in named(events, ENVIRONMENT)}) == 2


def test_a_run_without_an_iteration_leaves_nothing(run: Profile, tmp_path: Path) -> None:
    run.close()
    assert list(tmp_path.iterdir()) == []
    assert getattr(run._progress, "lines") == []  # noqa: B009


def test_a_trace_that_cannot_be_written_ends_nothing(
    run: Profile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trace.json").mkdir()
    play(run, 1, {LEARN: 50})
    run.close()
    assert "trace.json cannot be written (Is a directory)." in caplog.text
    assert len(getattr(run._progress, "lines")) == 1  # noqa: B009


@pytest.mark.usefixtures("ray_session")
def test_a_profiled_run_learns_the_same_and_leaves_a_trace(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("cartpole", "--profile", iterations=4, run_dir="a") == 0
    assert train("cartpole", iterations=4, run_dir="b") == 0
    assert comparable("a") == comparable("b")
    output = capsys.readouterr().out
    assert len(re.findall(r"profile of 2 iterations, .* s each: environment \d+ %, .*learner \d+ %", output)) == 1
    assert output.count(f"trace of iterations 1 to 3: {place}/a/trace.json; ui.perfetto.dev opens it") == 1
    assert not (place / "b" / "trace.json").exists()
    events = events_of(place / "a")
    iterations = [named(events, f"iteration {number}")[0] for number in (1, 2, 3)]
    assert len(named(events, ENVIRONMENT)) == len(named(events, POLICY)) == 3 * 10
    for name in (COLLECT, LEARN, "weights", "logging"):
        for inner, outer in zip(named(events, name), iterations, strict=True):
            assert_inside(inner, outer)
    operations = [event for event in events if event.get("cat") == "cpu_op"]
    assert len(operations) > 100
    for event in operations:
        assert_inside(event, iterations[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("cartpole", *TINY, "--num-env-runners", "2"), ("waiting for env runners", "2 env runners: environment")),
        (("cartpole", *TINY, "--num-env-runners", "1", "--ppo.collect-ahead"), ("1 env runner: environment",)),
        (("cartpole", *TINY, "--num-learners", "1"), ("environment", "learner", "weights")),
        (("cartpole", *TINY, "--algorithm", "stock-ppo"), ("environment", "policy", "learner", "weights")),
        (("cartpole", *TINY, "--algorithm", "appo", "--num-env-runners", "1"), ("1 env runner: environment",)),
        (("parity", "--learning.batch-size", "8", "--model.num-neurons", "16"), ("collecting", "learner")),
    ],
    ids=["runners", "ahead", "learners", "stock", "appo", "parity"],
)
def test_every_kind_of_run_can_be_profiled(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    steps = "600" if arguments[0] == "parity" else budget(5)
    assert main(["train", *arguments, "--profile", "--budget.env-steps", steps, "--run-dir", "a"]) == 0
    (line,) = re.findall("profile of .*", capsys.readouterr().out)
    for part in parts:
        assert part in line
    assert named(events_of(place / "a"), "iteration 1")
