"""A small disk that can be filled; the fixture ``disk`` mounts one."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """Mounts a disk of 4 MiB in memory; skips the test where that is not possible."""
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here ({done.stderr.strip()}); try unshare -rm pytest")
    try:
        yield place
    finally:
        unmount(place)


def unmount(place: Path) -> None:
    """Takes a disk away, although files on it are open; does nothing if it is gone already."""
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def fill(disk: Path) -> Path:
    """Fills a disk; returns the file that fills it."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    return filler
