"""Signals: recorded, seen while the main thread waits for what does not answer, and in the end obeyed in any case."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ctm_rl.agents.cluster import signals
from ctm_rl.agents.cluster.signals import SIGNALS, RayLost, RunInterrupted, StopRequest


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes tenths."""
    monkeypatch.setattr(signals, "INTERRUPT_SECONDS", 0.2)
    monkeypatch.setattr(signals, "STUCK_SECONDS", 0.6)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Waits until another thread has done something."""

    def wait(is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not is_done():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


@pytest.fixture
def unchanged() -> Iterator[None]:
    """Whether handlers are as they were before."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("signum", SIGNALS, ids=lambda signum: signum.name)
def test_every_signal_that_would_end_the_process_asks_to_stop(
    signum: signal.Signals, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    shown: list[str] = []
    with StopRequest(lambda: shown.append("stopping")) as request:
        request.check()
        os.kill(os.getpid(), signum)
        wait_until(lambda: bool(shown))
        assert request.signum == signum
        with pytest.raises(KeyboardInterrupt):
            request.check()
    assert RunInterrupted(None, request.signum, is_saved=False).signum == signum


@pytest.mark.usefixtures("unchanged")
def test_the_second_signal_stops_at_once() -> None:
    with StopRequest(lambda: None) as request:
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert request.signum == signal.SIGHUP


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopRequest(lambda: None) as request:
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert request.signum is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("quick", "unchanged")
def test_training_that_does_not_answer_is_saved_by_another_thread_then_interrupted() -> None:
    saved: list[str] = []

    def rescue() -> bool:
        saved.append(threading.current_thread().name)
        return True

    with StopRequest(lambda: None) as request:
        with pytest.raises(KeyboardInterrupt), request.training(rescue):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        assert request.is_saved
    assert saved != [threading.main_thread().name]
    assert len(saved) == 1


@pytest.mark.usefixtures("quick", "unchanged")
def test_a_process_that_swallows_the_interrupt_is_ended(wait_until: Callable[[Callable[[], bool]], None]) -> None:
    ended: list[BaseException] = []
    left: list[str] = []
    with StopRequest(lambda: None, ended.append) as request:
        request.run_dir = "a"
        request.on_exit.append(lambda: left.append("Ray"))
        with request.training(lambda: True):
            os.kill(os.getpid(), signal.SIGUSR1)
            for _ in range(2):
                try:
                    wait_until(lambda: bool(ended))
                except KeyboardInterrupt:
                    continue
    (reason,) = ended
    assert isinstance(reason, RunInterrupted)
    assert (reason.run_dir, reason.signum, reason.is_saved, left) == ("a", signal.SIGUSR1, True, ["Ray"])


@pytest.mark.usefixtures("quick", "unchanged")
def test_an_upload_may_take_longer_than_the_rest() -> None:
    ended: list[BaseException] = []
    with StopRequest(lambda: None, ended.append) as request:
        with request.training(lambda: True, rest_seconds=60.0):
            signal.raise_signal(signal.SIGINT)
        time.sleep(1.2)
    assert ended == []


@pytest.mark.parametrize("is_saved", [True, False])
def test_the_loss_of_ray_saves_and_ends_the_process_with_one_line(is_saved: bool) -> None:
    ended: list[BaseException] = []
    with StopRequest(lambda: None, ended.append) as request:
        request.run_dir = "a"
        with request.training(lambda: is_saved):
            request.lose("Ray has ended: its process raylet was killed.")
        with pytest.raises(RayLost, match="raylet was killed"):
            request.check()
    (reason,) = ended
    assert isinstance(reason, RayLost)
    assert reason.exit_code == 1
    assert ("A checkpoint is saved;" in str(reason)) == is_saved
    assert str(reason).endswith("continue with: ctm-rl resume a")


def test_in_another_thread_nothing_is_caught() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[object] = []

    def enter() -> None:
        with StopRequest(lambda: None):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [before]
