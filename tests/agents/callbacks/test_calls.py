"""What happens when callbacks are called: stops, and exceptions with their place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctm_rl.agents.callbacks.callback import Callback, RunView
from ctm_rl.agents.callbacks.calls import CallbackFailed, Calls
from ctm_rl.configs import load


def view() -> RunView:
    def nothing() -> None:
        return None

    return RunView(Path("a"), load("cartpole"), position=nothing, algorithm=nothing, policy=nothing)


class Answering(Callback):
    """Returns what it was made with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def on_iteration(self, run: RunView, metrics: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(("answer", "is_stop"), [(False, True), (np.False_, True), (None, False), (True, False)])
def test_false_stops_a_run_and_nothing_else_does(answer: Any, is_stop: bool) -> None:
    run = view()
    Calls([("first", Answering(answer)), ("second", Answering(False if is_stop else None))]).call(
        "on_iteration", run, {}
    )
    assert run.stop_reason == ("first.on_iteration returned False" if is_stop else None)


def test_the_first_reason_counts() -> None:
    run = view()
    run.stop("one")
    run.stop("two")
    assert run.stop_reason == "one"


def test_only_what_is_overridden_is_there() -> None:
    calls = Calls([("one", Answering(None)), ("two", Callback())])
    assert calls.has("on_iteration")
    assert not calls.has("on_episode")


class Raising(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_end(self, run: RunView) -> None:
        np.linalg.norm(np.zeros(1), ord="nuc") if self.error is None else self.throw()

    def throw(self) -> None:
        raise self.error  # the line of the message


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ZeroDivisionError("by\nzero."), r"ZeroDivisionError: by zero\.$"),
        (KeyError(), r"KeyError\.$"),
        (SystemExit(3), r"it called exit\(\), which ends no run; call run.stop\(reason\)\.$"),
    ],
)
def test_an_exception_is_one_line_with_its_place_and_is_the_cause(error: BaseException, text: str) -> None:
    lines = Path(__file__).read_text().splitlines()
    number = next(index for index, line in enumerate(lines, 1) if line.endswith("# the line of the message"))
    with pytest.raises(CallbackFailed, match=text) as caught:
        Calls([("mine:Raising", Raising(error))]).call("on_end", view())
    message = str(caught.value)
    assert message.startswith("callback mine:Raising failed in on_end (")
    assert f"test_calls.py:{number}): " in message
    assert "\n" not in message
    assert caught.value.__cause__ is error
    assert caught.value.exit_code == 1


def test_inside_a_library_the_callbacks_own_line_is_named() -> None:
    class InsideNumpy(Callback):
        def on_start(self, run: RunView) -> None:
            np.linalg.inv(np.zeros((2, 2)))

    with pytest.raises(CallbackFailed, match=r"on_start \(.*test_calls.py:\d+\): LinAlgError: Singular matrix\.$"):
        Calls([("one", InsideNumpy())]).call("on_start", view())
