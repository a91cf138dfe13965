"""Temporary folders that Ray cannot use: a short one takes their place, or one line says so."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ctm_rl.agents.cluster import temporary_folder
from ctm_rl.agents.cluster.temporary_folder import LONGEST_SOCKET, MAX_SOCKET_BYTES, ray_folder
from ctm_rl.errors import UserError

START = """
from ctm_rl.agents.cluster.session import prepare_environment, ray_for
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.experiments.settings import RunSettings

settings = RunSettings(name="short")
prepare_environment(settings)
with ray_for(settings, StopRequest(lambda: None)):
    import ray
    print(ray.get(ray.remote(num_cpus=1)(lambda: 6 * 7).remote()))
"""


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variable is set."""
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def long_folder(tmp_path: Path, length: int) -> str:
    """A folder with which the longest path of a socket has this many bytes; umlauts have two."""
    missing = length - len(os.fsencode(tmp_path / "ray" / LONGEST_SOCKET)) - 1
    folder = tmp_path / ("ä" + (missing - 2) * "x")
    folder.mkdir()
    return str(folder)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_the_usual_folder_is_kept_as_long_as_sockets_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        for length in (MAX_SOCKET_BYTES, MAX_SOCKET_BYTES + 1):
            monkeypatch.setenv(name, long_folder(Path(short), length))
            with ray_folder() as folder:
                assert (folder is None) == (length == MAX_SOCKET_BYTES)
            assert os.listdir(os.environ[name]) == []


@pytest.mark.parametrize("unusable", ["/proc/x", "relative", "/dev/null"])
def test_a_folder_that_cannot_be_written_is_replaced(unusable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", unusable)
    with ray_folder() as folder:
        assert folder is not None
        assert len(f"{folder}/{LONGEST_SOCKET}") <= MAX_SOCKET_BYTES
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert not os.path.exists(folder)


def test_one_line_says_that_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/x")
    monkeypatch.setattr(temporary_folder, "SHORT_PLACES", ("/proc", "/dev/null"))
    with pytest.raises(UserError, match=r"cannot use /proc/x/ray .*set RAY_TMPDIR to a folder .* at most 39 bytes"):
        with ray_folder():
            pass


def test_ray_starts_with_a_long_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", long_folder(tmp_path, 150))
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, timeout=150)
    assert done.stdout == "42\n", done.stderr
    assert done.returncode == 0
