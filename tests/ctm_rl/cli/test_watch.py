"""``ctm-rl watch``: one line for each mistake, and what it is given."""

from pathlib import Path
from typing import Any

import pytest
from answering_runs import small_experiment, write_run

from ctm_rl.agents.report.watch import server
from ctm_rl.cli import watch as command
from ctm_rl.cli.main import main


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run in the working directory; this process keeps its priority."""
    write_run(place / "run", small_experiment("parity", kind="mlp"), iterations=())
    monkeypatch.setattr(command.os, "nice", lambda by: 0)
    return "run"


def test_the_address_is_one_line_and_ctrl_c_ends_it(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(watched: Any, port: int, every: float, announce: Any) -> None:
        assert (watched.run, port, every) == (Path(run), 8123, 2.5)
        announce("http://127.0.0.1:8123/")
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "watch", watch)
    assert main(["watch", run, "--port", "8123", "--every", "2.5"]) == 130
    assert capsys.readouterr().out == "watching run: http://127.0.0.1:8123/ (Ctrl-C ends it)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "nothing is not a run directory: there is no such directory."),
        (("run", "--port", "70000"), "--port must be from 0 to 65535, got 70000."),
        (("run", "--every", "0"), "--every must be from 0.5 to 3600 seconds, got 0."),
        (("run", "--every", "nan"), "--every must be from 0.5 to 3600 seconds, got nan."),
        (("run", "--samples", "0"), "--samples must be from 1 to 100, got 0."),
        ((), "watch needs DIR"),
    ],
)
def test_mistakes_are_one_line(
    run: str, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", *arguments]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1
