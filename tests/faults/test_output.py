"""Nothing that a run writes for people can end it: closed pipes, full disks, closed descriptors, any encoding."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
from tiny_runs import CTM_RL, TINY, budget, train

from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.cli.output import DroppingStream, dropping_output

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@contextlib.contextmanager
def closed_pipe() -> Iterator[TextIO]:
    """A stream whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        yield stream


@contextlib.contextmanager
def full_device() -> Iterator[TextIO]:
    """A stream to a disk that is full."""
    with open("/dev/full", "w") as stream:
        yield stream


FAILING = {"Broken pipe": closed_pipe, "No space left on device": full_device}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("name", "reason"), [("stdout", "Broken pipe"), ("stderr", "No space left on device")])
def test_a_run_continues_without_its_output_and_says_so_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    other = io.StringIO()
    with FAILING[reason]() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream if name == "stdout" else other)
        patch.setattr(sys, "stderr", stream if name == "stderr" else other)
        patch.setattr(Run, "save", warn_and_save)
        assert train("cartpole", iterations=2, run_dir="a") == 0
    assert [row["iteration"] for row in read_metrics(place / "a")] == [1, 2]
    assert checkpoint.load(checkpoint.latest(place / "a"))["position"]["iteration"] == 2
    long = {"stdout": "standard output", "stderr": "standard error"}[name]
    assert other.getvalue().count(f"ctm-rl: {long} cannot be written ({reason}); the run continues without it.") == 1


_save = Run.save


def warn_and_save(self: Run, state: dict[str, Any] | None = None) -> None:
    """Saves a checkpoint after a line on standard error, as of a library."""
    print("a library's warning", file=sys.stderr, flush=True)
    _save(self, state)


@pytest.mark.parametrize("reason", FAILING)
def test_a_result_that_cannot_be_written_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FAILING[reason]() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["list"]) == 1
        assert main(["trian"]) == 2
    expected = "" if reason == "Broken pipe" else f"ctm-rl: standard output cannot be written: {reason}.\n"
    assert capsys.readouterr().err.startswith(expected + "ctm-rl: unknown command")


def test_what_follows_a_first_error_is_dropped_even_where_it_could_be_written(tmp_path: Path) -> None:
    class Disk(io.StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    disk, errors = Disk(), []
    stream = DroppingStream(disk, errors.append)
    assert stream.write("lost") == 4
    disk.is_full = False
    stream.writelines(["dropped", "too"])
    stream.flush()
    stream.close()
    assert (disk.getvalue(), len(errors), disk.closed) == ("", 1, False)


def test_a_closed_stream_drops_what_is_written() -> None:
    closed = io.StringIO()
    closed.close()
    errors: list[Exception] = []
    assert DroppingStream(closed, errors.append).write("text") == 4
    assert len(errors) == 1


def test_any_text_can_be_written_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    name = os.fsdecode(b"caf\xc3\xa9/r\xff")
    for encoding, expected in {
        "ascii": rb"caf\xe9/r" + b"\xff",
        "utf-8": b"caf\xc3\xa9/r\xff",
        "latin-1": b"caf\xe9/r\xff",
    }.items():
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding=encoding, errors="strict")
        monkeypatch.setattr(sys, "stdout", stream)
        with dropping_output(is_run=True) as output:
            print(name, end="")
        assert output.error is None
        assert written.getvalue() == expected
        assert stream.errors == "strict"


CLOSED = {"2>&-": 0, ">&- 2>&- <&-": 0, ">/dev/full": 1}


@pytest.mark.parametrize("redirection", CLOSED)
def test_a_command_works_with_closed_or_full_standard_streams(tmp_path: Path, redirection: str) -> None:
    # What is opened next must not get the number of a standard descriptor.
    program = (
        "import os, sys; from ctm_rl.cli.main import main; code = main(['list']);"
        "assert os.open(os.devnull, os.O_RDONLY) > 2; sys.exit(code)"
    )
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == CLOSED[redirection], done.stderr
    assert done.stderr.count("\n") <= 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shell", ["{} 2>err | head -1 >out", "{} >out 2>&-", "{} >&- 2>err", "{} >/dev/full 2>&1"])
def test_a_run_of_its_own_ends_whole_whatever_becomes_of_its_output(tmp_path: Path, shell: str) -> None:
    command = [*CTM_RL, "train", "cartpole", *TINY, "--budget.env-steps", budget(3), "--run-dir", "a"]
    line = "set -o pipefail; " + shell.replace("{}", '"$@"')
    done = subprocess.run(["bash", "-c", line, "bash", *command], cwd=tmp_path, timeout=600, check=False)
    assert done.returncode == 0
    assert checkpoint.load(checkpoint.latest(tmp_path / "a"))["position"]["iteration"] == 3
    assert [row["iteration"] for row in read_metrics(tmp_path / "a")] == [1, 2, 3]
