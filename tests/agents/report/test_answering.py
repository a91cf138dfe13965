"""Pages of models that answer: their numbers are those of ``evaluate``, their figures those of the model."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from answering_runs import small_experiment, task_of, untrained, write_run

from ctm_rl.agents.evaluation.evaluate import evaluate
from ctm_rl.agents.evaluation.halting_curve import HALT_THRESHOLDS
from ctm_rl.agents.report import scored
from ctm_rl.agents.report.answering import AnsweringOptions, answering_sections, describe_peaks
from ctm_rl.agents.report.document import (
    Bars,
    Figure,
    Lines,
    Matrix,
    Picture,
    Sample,
    Section,
    Sequence1D,
    Table,
    Timeline,
)
from ctm_rl.agents.report.mazes import walk
from ctm_rl.agents.report.samples import Candidate, choose

F = TypeVar("F", bound=Figure)
EPISODES = 100


def sections_of(name: str, episodes: int = EPISODES, **model: Any) -> dict[str, Section]:
    """The sections of an untrained model, by name."""
    experiment = small_experiment(name, **model)
    options = AnsweringOptions(num_samples=4, episodes=episodes, seed=0)
    sections, _ = answering_sections(untrained(experiment), task_of(experiment), options)
    return {section.name: section for section in sections}


def figure(parts: Section | Sample, title: str, kind: type[F]) -> F:
    """The only figure of that title."""
    (found,) = [one for one in parts.figures if one.title == title]
    assert isinstance(found, kind)
    return found


def check_times(sample: Sample) -> None:
    """Everything that moves has as many places as the sample has ticks, and attention adds up to 1."""
    for one in sample.figures:
        for name in ("attention", "routes", "shown", "answers", "confidence"):
            moving = getattr(one, name, None)
            if moving is not None and len(moving):
                assert len(moving) == sample.num_places, f"{one.title} {name}"
        attention = getattr(one, "attention", None)
        if attention is not None:
            sums = attention.astype(np.float64).reshape(*attention.shape[:2], -1).sum(2)
            np.testing.assert_allclose(sums[~np.isnan(sums)], 1, atol=5e-3)
            assert not np.isnan(sums[0]).any()


def test_numbers_are_those_of_evaluate(tmp_path: Path) -> None:
    experiment = small_experiment("parity")
    run = write_run(tmp_path / "run", experiment)
    result = evaluate(run, episodes=EPISODES, halt_curve=True)
    options = AnsweringOptions(num_samples=4, episodes=EPISODES, seed=0)
    found, _ = answering_sections(untrained(experiment, 4), task_of(experiment), options)
    sections = {section.name: section for section in found}
    by_tick = figure(sections["answers"], "Accuracy by tick", Lines)
    assert by_tick.lines[0].y == result["accuracy_by_tick"]
    assert by_tick.lines[1].y == result["accuracy_whole_by_tick"]
    certainty = figure(sections["answers"], "Certainty by tick", Lines)
    assert certainty.lines[0].y == result["certainty_by_tick"]
    assert figure(sections["answers"], "Results", Table).rows[0][1].startswith(f"{100 * result['accuracy']:.1f} % (")
    halting = figure(sections["ticks"], "Halting", Table)
    points = {f"{point['ticks_mean']:.2f}" for point in result["halting"]}
    assert {row[1] for row in halting.rows} == points
    compute = figure(sections["ticks"], "Compute against accuracy", Lines)
    assert set(compute.lines[0].y) <= {point["accuracy"] for point in result["halting"]}
    assert (np.diff(compute.x) > 0).all()
    last = figure(sections["calibration"], "Calibration error by tick", Lines).lines[0]
    assert last.y[-1] == pytest.approx(result["calibration"]["last"]["ece"])
    positions = figure(sections["task"], "Accuracy by position", Lines)
    assert positions.lines[0].y == result["accuracy_by_position"]
    by_position = figure(sections["task"], "Accuracy by position and tick", Matrix).values
    np.testing.assert_allclose(by_position.mean(0), result["accuracy_by_tick"])
    first = figure(sections["ticks"], "Tick of the first right answer", Bars)
    assert f"{EPISODES * (1 - np.sum(first.values)):.0f} of {EPISODES} never are" in first.caption
    assert first.values[0] == pytest.approx(result["accuracy_whole_by_tick"][0])


def test_parity_samples_have_the_answers_of_the_model() -> None:
    sections = sections_of("parity")
    model = untrained(small_experiment("parity"))
    for sample in sections["samples"].samples:
        check_times(sample)
        assert sample.first_place == sample.num_places - 1
        shown = figure(sample, "The sequence", Sequence1D)
        sequence = np.array([1 if symbol == "+" else -1 for symbol in shown.symbols], np.float32)
        answer = model.answer(sequence, record=True)
        assert answer.record is not None
        letters = [["eo"[value] for value in row] for row in answer.record.probabilities[0].argmax(2)]
        assert list(shown.answers) == letters
        parities = (np.cumsum(sequence == -1) % 2).tolist()
        assert list(shown.truth) == ["eo"[value] for value in parities]
        assert sample.verdict == ("right" if answer.classes[0].tolist() == parities else "wrong")


def test_maze_samples_have_the_route_of_the_model() -> None:
    sections = sections_of("mazes", episodes=8, encoder="conv")
    samples = sections["samples"].samples
    model = untrained(small_experiment("mazes", encoder="conv"))
    by_hand, larger = samples[-2:]
    assert "set by hand" in by_hand.name
    assert "piece by piece" in larger.name
    for sample in samples:
        check_times(sample)
    for sample in samples[:-1]:
        picture = figure(sample, "Maze", Picture)
        assert isinstance(picture.images, np.ndarray)
        answer = model.answer(picture.images, record=True)
        assert answer.record is not None
        expected = walk(picture.images[0], answer.record.probabilities[0].argmax(2))
        np.testing.assert_array_equal(picture.routes, expected)
        assert picture.route is not None
    table = figure(sections["task"], "Larger mazes, piece by piece", Table)
    assert [row[0] for row in table.rows] == ["7 x 7", "11 x 11", "15 x 15"]


def test_questions_show_each_part_when_the_model_sees_it() -> None:
    sections = sections_of("qa-mnist", episodes=110)
    assert {
        name
        for name, _ in [row[:2] for row in figure(sections["task"], "Accuracy by digits and operations", Table).rows]
    }
    for sample in sections["samples"].samples:
        check_times(sample)
        assert sample.first_place == 0  # at the last tick no digit is shown any more
        timeline = figure(sample, "What is shown when", Timeline)
        digits = [span for span in timeline.spans if span.row == "shown"]
        asked = [span for span in timeline.spans if span.row == "asked"]
        answer = timeline.spans[-1]
        assert [span.start for span in (*digits, *asked)] == [2 * place for place in range(len(digits) + len(asked))]
        assert (answer.start, answer.end) == (2 * (len(digits) + len(asked)), sample.num_places)
        assert answer.verdict == sample.verdict
        picture = figure(sample, "What it attends to", Picture)
        assert picture.attention is not None
        assert np.isnan(picture.attention[2 * len(digits) :].astype(np.float64)).all()


def test_sorting_emits_what_the_model_emits() -> None:
    sections = sections_of("sorting")
    model = untrained(small_experiment("sorting"))
    for sample in sections["samples"].samples:
        numbers = np.asarray(figure(sample, "The numbers", Bars).values, np.float32)
        timeline = figure(sample, "What is emitted when", Timeline)
        classes = [index for index in model.answer(numbers).classes[0].tolist() if index >= 0]
        assert [span.label for span in timeline.spans][: len(classes)] == [f"{numbers[index]:.2f}" for index in classes]
        matrix = figure(sample, "Probabilities over the ticks", Matrix)
        assert list(matrix.y_names) == [*(f"{number:.2f}" for number in np.sort(numbers)), "nothing"]
        record = model.answer(numbers, record=True).record
        assert record is not None
        order = [*np.argsort(numbers).tolist(), 3]
        np.testing.assert_allclose(matrix.values, record.probabilities[0][:, order].T, atol=1e-3)


@pytest.mark.parametrize("kind", ["ctm", "lstm", "mlp"])
def test_baselines_have_the_page_with_what_there_is(kind: str) -> None:
    sections = sections_of("parity", kind=kind)
    (first, *_) = sections["samples"].samples
    titles = [one.title for one in first.figures]
    assert ("Output synchronisation" in titles) == (kind == "ctm")
    assert ("Certainty" in titles) == (kind != "mlp")
    assert ("ticks" in sections) == (kind != "mlp")
    assert ("neurons" in sections) == (kind != "mlp")


def test_images_of_people_are_compared_with_the_model() -> None:
    experiment = small_experiment("mnist", encoder="conv")
    people = np.full((30, 10), 0.05)
    people[:, 3] = 0.55
    options = AnsweringOptions(num_samples=2, episodes=30, seed=0, human=people)
    found, _ = answering_sections(untrained(experiment), task_of(experiment), options)
    sections = {section.name: section for section in found}
    table = figure(sections["people"], "Calibration of people and of the model", Table)
    assert [row[0] for row in table.rows] == ["people", "model"]
    sample = sections["samples"].samples[0]
    check_times(sample)
    bars = figure(sample, "Probability of each class", Bars)
    np.testing.assert_allclose(np.sum(bars.values, axis=1), 1, rtol=1e-5)
    assert figure(sample, "What it attends to", Picture).attention is not None


def test_right_and_wrong_samples_take_turns() -> None:
    def make(number: int, is_right: bool) -> Candidate:
        return Candidate(number, number // 10, None, np.zeros(1), is_right)

    candidates = [make(number, number % 3 == 0) for number in range(40)]
    chosen = choose(candidates, 6)
    assert [one.is_right for one in chosen] == [True, False] * 3
    assert [one.number for one in chosen] == [0, 1, 12, 10, 21, 20]
    assert [one.is_right for one in choose(candidates[1:3], 6)] == [False, False]
    few = [make(0, True), *(make(number, False) for number in range(1, 9))]
    assert [one.is_right for one in choose(few, 6)].count(False) == 5


def test_two_peaks_are_said() -> None:
    assert describe_peaks([9, 20, 9, 0, 0, 5, 16, 5]) == "There are two peaks, at ticks 2 and 7."
    assert describe_peaks([1, 5, 1]) == "There is one peak, at tick 2."


def test_recording_changes_no_answer() -> None:
    model = untrained(small_experiment("parity"))
    sequences = torch.randint(0, 2, (6, 4), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    with_record, without = model.answer(sequences, record=True), model.answer(sequences)
    np.testing.assert_allclose(with_record.probabilities, without.probabilities, atol=1e-6)


def test_slow_models_answer_fewer_samples() -> None:
    experiment = small_experiment("parity")
    found = scored.score(untrained(experiment), task_of(experiment), episodes=None, seed=0, seconds=1e-4)
    assert found.result["episodes"] == 10
    assert found.num_halting == 10
    assert len(found.halting) == len(HALT_THRESHOLDS)
