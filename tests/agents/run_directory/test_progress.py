"""What a run shows: bar, result and time to go at every width, in the words of the task."""

import io

import pytest
from rich.console import Console

from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.run_directory import progress as shown
from ctm_rl.agents.run_directory.progress import TerminalProgress, describe_accuracy, percent

COUNTS: dict[str, float | None] = {
    "iteration": 7,
    "env_steps": 123_456,
    "seconds": 4_000.0,
    "env_steps_per_second": 1_234.0,
}
ACTING = {**COUNTS, "episode_return_mean": -1234.5, "env_faults": 12}
ANSWERING = {**COUNTS, "total_loss": 0.5, "accuracy": 0.97, "accuracy_whole": 0.9}
WORDS = ("bits", "whole sequences")


def line_at(width: int, row: dict[str, float | None], *, part: bool = False) -> str:
    """The live line on a terminal of some width."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    progress = TerminalProgress(BudgetConfig(env_steps=1_000_000), console, words=WORDS)
    if part:
        progress.show_part(8, "minibatches", 12, 160)
    progress.show_metrics(row)
    with console.capture() as capture:
        console.print(progress)
    progress.close()
    return capture.get().splitlines()[0]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize(("row", "result"), [(ACTING, "return -1234.5"), (ANSWERING, "97.0 % of bits")])
def test_bar_result_and_time_to_go_stay_at_every_width(width: int, row: dict[str, float | None], result: str) -> None:
    line = line_at(width, row)
    assert line.startswith("━")
    assert result in line
    assert line.rstrip().endswith("11:50 to go")
    assert len(line) <= width


def test_a_wide_terminal_shows_everything() -> None:
    facts = "loss 0.500, 97.0 % of bits, 90.0 % of whole sequences, 1,234 samples/s, 123k of 1M samples, 1:06:40"
    assert facts in line_at(160, ANSWERING)
    assert "97.0 % of bits, 90.0 % of whole sequences, 11:50 to go" in line_at(80, ANSWERING)


def test_a_long_iteration_keeps_bar_and_time_to_go_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "SECONDS_BEFORE_PARTS", -1.0)
    line = line_at(80, ACTING, part=True)
    assert line.startswith("━")
    assert "iteration 8: 12 of 160 minibatches; return -1234.5" in line
    assert line.rstrip().endswith("to go")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ["97.0 % of elements", "90.1 % of whole samples"]),
        (("images",), ["90.1 % of images"]),
        (("steps", "whole routes"), ["97.0 % of steps", "90.1 % of whole routes"]),
    ],
)
def test_accuracy_is_in_the_words_of_the_task(words: tuple[str, ...], expected: list[str]) -> None:
    assert describe_accuracy(percent(0.97), percent(0.901), words) == expected
