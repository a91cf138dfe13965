"""Spans of time: nested ones, those that are left out, and nothing at all unless a run is profiled."""

import time
from collections.abc import Iterator

import pytest

from ctm_rl.agents.rllib import spans
from ctm_rl.agents.rllib.spans import COLLECT, ENVIRONMENT, POLICY, TEST, Span, SpanRecorder, pop_spans, span, timed


@pytest.fixture
def recorder() -> Iterator[SpanRecorder]:
    yield spans.start_recording()
    spans.stop_recording()


def test_an_outer_span_owns_what_is_in_no_inner_one(recorder: SpanRecorder) -> None:
    before = time.time_ns()
    with span(COLLECT):
        for name in (ENVIRONMENT, POLICY):
            with span(name):
                time.sleep(0.002)
        time.sleep(0.004)
    environment, policy, collect = recorder.pop()
    assert [one.name for one in (environment, policy, collect)] == [ENVIRONMENT, POLICY, COLLECT]
    assert environment.own == environment.duration >= 2_000_000
    assert collect.own == collect.duration - environment.duration - policy.duration >= 4_000_000
    assert before - 10**9 < collect.begin <= environment.begin
    assert environment.begin + environment.duration <= policy.begin < time.time_ns() + 10**9
    assert recorder.pop() == []


def test_a_span_inside_one_of_its_name_and_what_is_in_an_evaluation_are_left_out(recorder: SpanRecorder) -> None:
    assert timed(COLLECT, timed(COLLECT, lambda value: value + 1))(2) == 3
    with span(TEST), span(ENVIRONMENT):
        pass
    assert [one.name for one in recorder.pop()] == [COLLECT, TEST]


def test_a_span_ends_with_an_exception(recorder: SpanRecorder) -> None:
    with pytest.raises(KeyError), span(COLLECT), span(POLICY):
        raise KeyError
    with span(POLICY):
        pass
    assert [one.name for one in recorder.pop()] == [POLICY, COLLECT, POLICY]


def test_runners_of_other_processes_hand_their_spans_over(recorder: SpanRecorder) -> None:
    with span(POLICY):
        pass
    assert pop_spans(0) == pop_spans(None) == []
    ((worker, host, found),) = pop_spans(2)
    assert (worker, [one.name for one in found]) == (2, [POLICY])
    assert host
    result = {"env_runners": {spans.SPANS: [(2, host, [tuple(found[0])])]}}
    assert spans.spans_of_runners(result) == [(2, host, [Span(*found[0])])]


def test_nothing_is_recorded_unless_a_run_is_profiled() -> None:
    assert span(POLICY) is span(COLLECT)
    with span(POLICY):
        pass
    assert pop_spans(2) == []
