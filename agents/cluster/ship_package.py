"""Sends this package to nodes that lack it: a cluster needs nothing but what the package itself needs."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ctm_rl
from ctm_rl.agents.cluster.capacity import Node


def lacking(nodes: Sequence[Node]) -> list[str]:
    """The nodes where this package is missing, or another one."""
    return [node.name for node in nodes if not node.has_package]


def tell_shipping(nodes: Sequence[Node]) -> str | None:
    """One line about what will be sent; ``None``: nothing."""
    names = lacking(nodes)
    if not names:
        return None
    which = ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    return f"ctm-rl {ctm_rl.__version__} goes with the run: {len(names)} of {len(nodes)} nodes lack it ({which})"


@contextlib.contextmanager
def runtime_env(nodes: Sequence[Node]) -> Iterator[dict[str, Any]]:
    """Gives the runtime environment that Ray is to join a cluster with; it is read from the disk inside the body.

    Where one node lacks the package, the workers of all nodes get it from here, so that all have the same.

    Args:
        nodes: of the cluster.

    Yields:
        What ``ray.init`` takes; empty where nothing has to be sent.
    """
    if not lacking(nodes):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        yield {"py_modules": [str(stage(Path(folder)))]}


def stage(folder: Path) -> Path:
    """Copies the package as it is once installed: the rooms of a checkout lie beside it, and belong into it.

    Args:
        folder: where to.

    Returns:
        The package's directory in it.
    """
    from ctm_rl.agents.cluster.node_probe import PACKAGE, package_files

    for name, source in package_files().items():
        target = folder / PACKAGE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return folder / PACKAGE
