"""Odd names, places and settings of Python: each works, or is refused in one line."""

import os
import subprocess
from pathlib import Path

import pytest
from tiny_runs import CTM_RL

from ctm_rl.agents.run_directory.directory import RunDirectory, created_directory
from ctm_rl.agents.run_directory.working_directory import working_inside
from ctm_rl.cli.main import _report_finished, main
from ctm_rl.errors import UserError

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def run(place: Path, *arguments: str | bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command in a process of its own."""
    return subprocess.run(
        [*CTM_RL, *arguments], cwd=place, env={**os.environ, **variables}, capture_output=True, check=False
    )


def assert_refused(done: subprocess.CompletedProcess[bytes], message: bytes) -> None:
    """A command has ended with one line."""
    assert done.returncode == 2
    assert done.stderr.startswith(b"ctm-rl: ")
    assert done.stderr.count(b"\n") == 1
    assert message in done.stderr


def test_a_working_directory_that_was_deleted_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "gone").mkdir()
    monkeypatch.chdir(place / "gone")
    (place / "gone").rmdir()
    for arguments in (["train", "cartpole"], ["evaluate", "a"], ["resume", "a"], ["list"]):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("ctm-rl: the working directory cannot be used: No such file or directory; change")
        assert error.count("\n") == 1
    assert main(["--version"]) == 0


def test_a_run_ends_well_although_the_working_directory_was_deleted_meanwhile(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "gone").mkdir()
    (place / "a").mkdir()
    monkeypatch.chdir(place / "gone")
    with working_inside(place / "a"):
        (place / "gone").rmdir()
    (place / "b").mkdir()
    os.chdir(place / "b")
    (place / "b").rmdir()
    _report_finished(place / "a")
    assert f"done: {place / 'a'}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "locale"), [(b"r\xff", {}), (b"caf\xc3\xa9", ASCII)])
def test_a_name_that_is_no_text_is_refused_as_the_bytes_that_it_is(
    tmp_path: Path, name: bytes, locale: dict[str, str]
) -> None:
    done = run(tmp_path, b"train", b"cartpole", b"--run-dir", name, **locale)
    shown = name.decode("ascii", "backslashreplace").encode()
    assert_refused(done, b"/" + shown + b" cannot be used: its name is not text in the encoding of this locale")
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_in_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff"))
    path.mkdir()
    with pytest.raises(UserError, match="its name is not text"):
        RunDirectory(path, {})
    with pytest.raises(UserError, match="its name is not text"), created_directory(path / "a", {}):
        pass
    assert list(path.iterdir()) == []


def test_help_and_messages_can_be_written_in_ascii(tmp_path: Path) -> None:
    done = run(tmp_path, "train", "cartpole", "--help", **ASCII)
    assert done.returncode == 0
    assert done.stdout.isascii()
    done = run(tmp_path, "list", "grüße", PYTHONIOENCODING="ascii")
    assert_refused(done, rb"list takes no arguments, got 'gr\xfc\xdfe'.")


def test_without_docstrings_experiments_are_listed_and_training_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list"]) == 0
    listed = run(tmp_path, "list", PYTHONOPTIMIZE="2")
    assert (listed.returncode, listed.stdout.decode()) == (0, capsys.readouterr().out)
    done = run(tmp_path, "train", "cartpole", PYTHONOPTIMIZE="2")
    assert_refused(done, b"Ray needs the docstrings that Python drops with PYTHONOPTIMIZE=2")


def test_a_directory_whose_name_begins_with_a_dash_is_shown_so_that_it_is_understood(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _report_finished(place / "-x y")
    assert capsys.readouterr().out == ("done: './-x y'\nevaluate it: ctm-rl evaluate './-x y'\n")
    (place / "-x").mkdir()
    for arguments in (["evaluate", "./-x"], ["evaluate", "--", "-x"], ["resume", "--", "-x"]):
        assert main(arguments) == 2
        assert "-x is not a run directory: it has no config.json" in capsys.readouterr().err
