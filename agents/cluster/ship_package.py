"""Sends code to the nodes of a cluster: this package to those that lack it, and the user's own modules to all."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ctm_rl
from ctm_rl.agents.cluster.capacity import Node
from ctm_rl.agents.cluster.users_folder import users_folder


def lacking(nodes: Sequence[Node]) -> list[str]:
    """Returns the nodes where this package is missing or differs."""
    return [node.name for node in nodes if not node.has_package]


def users_modules() -> list[Path]:
    """Returns the files and packages of the user's folder that this process has imported, for a cluster's nodes.

    Those are the modules that a configuration names, and what they import; data beside a file stays here, and that in a
    package goes with it.
    """
    folder = users_folder()
    if folder is None:
        return []
    places: dict[str, set[Path]] = {}
    for name in {name.partition(".")[0] for name in list(sys.modules)} - {"__main__", ctm_rl.__name__}:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        for place in map(Path, [file] if file else list(getattr(module, "__path__", ()))):
            place = place.parent if place.name == "__init__.py" else place
            if place.suffix in ("", ".py"):
                places.setdefault(str(place.parent), set()).add(place)
    return sorted(place for parent, here in places.items() if os.path.realpath(parent) == folder for place in here)


def describe_shipping(nodes: Sequence[Node], modules: Sequence[Path] = ()) -> str | None:
    """Returns one line about what will be sent; ``None``: nothing.

    Args:
        nodes: of the cluster.
        modules: of the user, see ``users_modules``.
    """
    lines = [f"{', '.join(path.name for path in modules)} of this folder go with the run"] if modules else []
    if (package := _describe_package(nodes)) is not None:
        lines.append(package)
    return "; ".join(lines) or None


def _describe_package(nodes: Sequence[Node]) -> str | None:
    """What will be sent of this package."""
    names = lacking(nodes)
    if not names:
        return None
    which = ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    return f"ctm-rl {ctm_rl.__version__} is sent with the run: {len(names)} of {len(nodes)} nodes lack it ({which})"


@contextlib.contextmanager
def runtime_env(nodes: Sequence[Node], modules: Sequence[Path] = ()) -> Iterator[dict[str, Any]]:
    """Prepares the runtime environment for joining a cluster; Ray reads it from the disk inside the body.

    If one node lacks the package, the workers of all nodes get it from here, so that all have the same.

    Args:
        nodes: of the cluster.
        modules: of the user, for the workers of all nodes, see ``users_modules``.

    Yields:
        The argument for ``ray.init``; empty if nothing has to be sent.
    """
    own = [str(path) for path in modules]
    if not lacking(nodes):
        yield {"py_modules": own} if own else {}
        return
    with tempfile.TemporaryDirectory() as folder:
        yield {"py_modules": [str(stage(Path(folder))), *own]}


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
