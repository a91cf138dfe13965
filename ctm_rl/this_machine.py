"""What this machine is: its processor, its cores, and the versions of what is installed."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def cpu_name() -> str:
    """The processor's name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def count_cpus() -> int:
    """How many of its cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version_of(name: str) -> str | None:
    """The version of an installed distribution; ``None``: it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions_of(names: Iterable[str]) -> dict[str, str | None]:
    """The versions of Python and of some distributions, by name; ``None``: it is not installed."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in names}}


def describe_machine() -> dict[str, Any]:
    """The processor's name, how many of its cores this process may use, the memory in GiB, and the system."""
    return {
        "cpu": cpu_name(),
        "cores": count_cpus(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _memory_gb() -> float | None:
    """The machine's memory, in GiB."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
