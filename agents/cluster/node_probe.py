"""Examines a node of a cluster from an actor on it; the node may lack this package, so the code is sent by value.

Nothing of this package may be imported here, except inside a function that needs it on the node.
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
    """An actor on the node that is examined."""

    def describe(self) -> dict[str, str | None]:
        """Returns what is installed there, see ``describe``."""
        return describe()

    def echo(self, payload: Any) -> Any:
        """Returns a copy through the node's object store."""
        return payload + 0

    def play(self, config: Any, seconds: float) -> float:
        """Plays an algorithm's environments with its untrained policy; returns environment steps per second.

        Args:
            config: RLlib's configuration of the algorithm; its environment runners return columns.
            seconds: how long to play, after a first rollout that does not count.
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


def probe_on(node_id: str) -> Any:
    """Starts a ``NodeProbe`` on a node, however busy it is, and returns the actor's handle.

    Args:
        node_id: Ray's id, in hexadecimal digits.
    """
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pinned: Any = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=pinned)(NodeProbe).remote()


def alive_nodes() -> list[dict[str, Any]]:
    """Returns the nodes of the cluster that this process has joined: ``id``, ``address`` and ``resources`` of each."""
    nodes = [
        {"id": node["NodeID"], "address": node["NodeManagerAddress"], "resources": dict(node["Resources"])}
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node["address"], node["id"]))


def survey(seconds: float) -> list[dict[str, Any]]:
    """Returns ``alive_nodes`` with ``has_package``: whether the node answers in time that it has the same files as we.

    Args:
        seconds: for all nodes together.
    """
    nodes, own = alive_nodes(), digest(package_files())
    answers = [probe_on(node["id"]).describe.remote() for node in nodes]
    done = set(ray.wait(answers, num_returns=len(answers), timeout=seconds)[0]) if answers else set()
    for node, answer in zip(nodes, answers, strict=True):
        node["has_package"] = answer in done and _digest_in(answer) == own
    return nodes


def _digest_in(answer: Any) -> str | None:
    """The digest in an answer; None if the node failed."""
    try:
        found: Any = ray.get(answer)
    except RayError:
        return None
    return found["files"]


def describe() -> dict[str, str | None]:
    """Returns the versions of Python, ray, torch and ctm-rl, and the digest of our files; None: not installed."""
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
    """Returns the package's files by their names once installed, such as ``agents/ppo/learner.py``."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    root = next(iter(spec.submodule_search_locations))
    # In a checkout, three of its folders are links.
    walked = (Path(folder) / name for folder, _, names in os.walk(root, followlinks=True) for name in names)
    return {path.relative_to(root).as_posix(): path for path in walked if path.suffix in _SUFFIXES}


def digest(files: dict[str, Path]) -> str:
    """Returns a digest of the names and contents of files."""
    total = hashlib.sha256()
    for name in sorted(files):
        content = hashlib.sha256(files[name].read_bytes()).hexdigest()
        total.update(f"{name} {content}\n".encode())
    return total.hexdigest()


def _installed(name: str) -> str | None:
    """The version of an installed distribution; None: not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
