"""What a node of a cluster is asked; the node may lack this package, so the questions travel there by value.

Nothing of this package may be imported here except inside a function that needs it on the node.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PACKAGE = "ctm_rl"
_SUFFIXES = (".py", ".pyi", ".npz", ".typed")


class NodeProbe:
    """Lives on the node that is asked."""

    def describe(self) -> dict[str, str | None]:
        """What is installed there, see ``describe``."""
        return describe()

    def echo(self, payload: Any) -> Any:
        """Sends a copy back through the node's object store."""
        return payload + 0

    def play(self, config: Any, seconds: float) -> float:
        """How fast the node plays, see ``play``."""
        return play(config, seconds)


def probe_on(node_id: str) -> Any:
    """Starts a ``NodeProbe`` on a node, however busy that is; gives the actor's handle.

    Args:
        node_id: Ray's, in hexadecimal digits.
    """
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pinned: Any = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=pinned)(NodeProbe).remote()


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster that this process has joined: ``id``, ``address`` and ``resources`` of each."""
    nodes = [
        {"id": node["NodeID"], "address": node["NodeManagerAddress"], "resources": dict(node["Resources"])}
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node["address"], node["id"]))


def survey(seconds: float) -> list[dict[str, Any]]:
    """Like ``alive_nodes``, with ``has_package`` besides: whether the node answers in time that it has our very files.

    Args:
        seconds: for all nodes together.
    """
    nodes, own = alive_nodes(), digest(package_files())
    asked = [probe_on(node["id"]).describe.remote() for node in nodes]
    done = set(ray.wait(asked, num_returns=len(asked), timeout=seconds)[0]) if asked else set()
    for node, answer in zip(nodes, asked, strict=True):
        node["has_package"] = answer in done and _files(answer) == own
    return nodes


def _files(answer: Any) -> str | None:
    """The digest in an answer, if it is one."""
    try:
        found: Any = ray.get(answer)
    except RayError:
        return None
    return found["files"]


def describe() -> dict[str, str | None]:
    """Versions of Python, ray, torch and ctm-rl here, and the digest of the latter's files; None: not installed."""
    try:
        version = str(importlib.import_module(PACKAGE).__version__)
    except ImportError:
        version = None
    return {
        "python": platform.python_version(),
        "ray": ray.__version__,
        "torch": _installed("torch"),
        "ctm-rl": version,
        "files": None if version is None else digest(package_files()),
    }


def package_files() -> dict[str, Path]:
    """The package's files by their names in it, as they are once installed: ``agents/runs/train.py``."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    root = next(iter(spec.submodule_search_locations))
    # In a checkout three of its folders are links.
    walked = (Path(folder) / name for folder, _, names in os.walk(root, followlinks=True) for name in names)
    return {path.relative_to(root).as_posix(): path for path in walked if path.suffix in _SUFFIXES}


def digest(files: dict[str, Path]) -> str:
    """One number for names and content of files."""
    total = hashlib.sha256()
    for name in sorted(files):
        content = hashlib.sha256(files[name].read_bytes()).hexdigest()
        total.update(f"{name} {content}\n".encode())
    return total.hexdigest()


def play(config: Any, seconds: float) -> float:
    """Plays an algorithm's environments with its untrained policy for a while; gives environment steps a second.

    Args:
        config: of the algorithm, as RLlib takes it; its environment runners give columns.
        seconds: for how long, after a first rollout that does not count.
    """
    runner = config.env_runner_cls(config=config, worker_index=0, num_workers=0)
    try:
        runner.sample()
        num_steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            num_steps += runner.sample().num_steps
        return num_steps / (time.perf_counter() - began)
    finally:
        runner.stop()


def _installed(name: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
