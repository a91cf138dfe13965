"""A Ray cluster of several nodes on one machine, for tests; some nodes may lack this package."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BARE = '''
"""Hides ctm_rl where it is installed, but not where Ray puts what is sent to a node."""
import importlib.machinery, sys


class Hide:
    def find_spec(self, name, path=None, target=None):
        if name != "ctm_rl":
            return None
        shipped = [place for place in sys.path if "py_modules_files" in place]
        found = importlib.machinery.PathFinder.find_spec(name, shipped)
        if found is None:
            raise ModuleNotFoundError("No module named 'ctm_rl'", name="ctm_rl")
        return found


sys.meta_path.insert(0, Hide())
'''
"""A ``sitecustomize.py``."""


def write_bare(folder: Path) -> str:
    """Makes a folder that, on a node's ``PYTHONPATH``, hides this package from it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BARE)
    return str(folder)


@contextlib.contextmanager
def cluster_of(nodes: list[dict], place: Path) -> Iterator[str]:
    """Has a cluster running inside the body.

    Args:
        nodes: arguments of each node's ``Cluster.add_node``, the head first.
        place: a directory for its processes to run in.

    Yields:
        Its address; to join it, ``RAY_AUTH_MODE`` must be disabled.
    """
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, __file__, json.dumps(nodes)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=place, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield next(line for line in process.stdout if line.startswith("ADDRESS")).split()[1]
        finally:
            process.stdin.close()  # it shuts its nodes down then
            process.wait(timeout=60)


def _serve(nodes: list[dict]) -> None:
    """Runs the nodes until the standard input is closed."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for node in nodes:
            cluster.add_node(include_dashboard=False, object_store_memory=200 * 2**20, **node)
        print("ADDRESS", cluster.address, flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
