"""What a run was trained with, kept in its directory: the machine, and the versions of the software."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctm_rl.agents.run_directory.directory import RunDirectory
from ctm_rl.errors import UserError
from ctm_rl.read_json import read_json
from ctm_rl.this_machine import describe_machine, versions_of

MADE_WITH_FILE = "made-with.json"

_PACKAGES = ("ctm-rl", "torch", "ray", "gymnasium", "numpy")


def made_with() -> dict[str, Any]:
    """This machine and these versions: ``machine`` as ``describe_machine``, and ``versions`` by package."""
    return {"machine": describe_machine(), "versions": versions_of(_PACKAGES)}


def write_made_with(directory: RunDirectory) -> None:
    """Writes what a run is trained with from now on, or goes without if it cannot be written.

    A run that is continued elsewhere has the last of its machines.
    """
    with contextlib.suppress(OSError):
        directory.write(MADE_WITH_FILE, made_with())


def describe_made_with(run: Path) -> tuple[str, str] | None:
    """The versions and the machine that a run was trained with, each as a line.

    Returns:
        Both; ``None``: the run is of before they were kept, or they cannot be read.
    """
    try:
        content = read_json(run / MADE_WITH_FILE)
        return versions_line(content["versions"]), machine_line(content["machine"])
    except (OSError, UserError, ValueError, TypeError, KeyError, AttributeError):
        return None


def versions_line(versions: Mapping[str, str | None]) -> str:
    """Versions as they are read: ``Python 3.11.7, torch 2.13.0``."""
    return ", ".join(f"{name.replace('python', 'Python')} {version}" for name, version in versions.items() if version)


def machine_line(machine: Mapping[str, Any]) -> str:
    """A machine as it is read: system, processor, cores."""
    cores = int(machine["cores"])
    return f"{machine['system']}, {machine['cpu']}, {cores} {'core' if cores == 1 else 'cores'}"
