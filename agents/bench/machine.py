"""Describes where something was measured: the machine and the versions of the software."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from ctm_rl.agents.cluster.session import count_cpus

_PACKAGES = ("ctm-rl", "torch", "ray", "gymnasium", "numpy", "sb3-contrib", "stable-baselines3")


def describe_circumstances(command: str) -> dict[str, Any]:
    """Describes what a reader needs to judge a measurement: the machine, the versions and the command.

    Args:
        command: the command line.

    Returns:
        ``machine`` with the processor's name, how many of its cores this process may use, the memory in GiB and the
        system; ``versions`` of the libraries that matter for speed, ``None`` for those that are not installed; and
        ``command``.
    """
    return {
        "machine": {
            "cpu": _cpu_name(),
            "cores": count_cpus(),
            "memory_gb": _memory_gb(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "command": command,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """The processor's name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _memory_gb() -> float | None:
    """The machine's memory, in GiB."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
