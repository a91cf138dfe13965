"""Describes where something was measured: the machine and the versions of the software."""

from typing import Any

from ctm_rl.this_machine import describe_machine, versions_of

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
        "machine": describe_machine(),
        "versions": versions_of(_PACKAGES),
        "command": command,
    }
