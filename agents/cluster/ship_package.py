"""Sends this package to nodes that lack it, so that a cluster needs only the package's dependencies."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ctm_rl
from ctm_rl.agents.cluster.capacity import Node


def lacking(nodes: Sequence[Node]) -> list[str]:
    """Returns the nodes where this package is missing or differs."""
    return [node.name for node in nodes if not node.has_package]


def describe_shipping(nodes: Sequence[Node]) -> str | None:
    """Returns one line about what will be sent; ``None``: nothing."""
    names = lacking(nodes)
    if not names:
        return None
    which = ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    return f"ctm-rl {ctm_rl.__version__} is sent with the run: {len(names)} of {len(nodes)} nodes lack it ({which})"


@contextlib.contextmanager
def runtime_env(nodes: Sequence[Node]) -> Iterator[dict[str, Any]]:
    """Prepares the runtime environment for joining a cluster; Ray reads it from the disk inside the body.

    If one node lacks the package, the workers of all nodes get it from here, so that all have the same.

    Args:
        nodes: of the cluster.

    Yields:
        The argument for ``ray.init``; empty if nothing has to be sent.
    """
    if not lacking(nodes):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        yield {"py_modules": [str(stage(Path(folder)))]}


def stage(folder: Path) -> Path:
    """Copies the package's files in their installed layout; in a checkout, some of its folders are links.

    Args:
        folder: the directory to copy into.

    Returns:
        The package's directory in it.
    """
    from ctm_rl.agents.cluster.node_probe import PACKAGE, package_files

    for name, source in package_files().items():
        target = folder / PACKAGE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return folder / PACKAGE
