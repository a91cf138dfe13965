"""Where a run computes: a Ray of its own on this machine, or an existing cluster, checked before anything is made."""

import contextlib
import json
import logging
import math
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ctm_rl.agents.cluster.capacity import Node, check_capacity, needed_cpus, needed_gpus
from ctm_rl.agents.cluster.ship_package import runtime_env
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.errors import UserError

_CONNECT_SECONDS = 3.0
_JOIN_SECONDS = 45.0
_ANSWER_SECONDS = 20.0
"""How long nodes may take to say whether they have this package; one that does not gets it."""
_LOG = logging.getLogger(__name__)

# Run in a process of its own: a driver that meets a port that is not Ray's retries for minutes, then exits.
_PROBE = """
import json, sys, ray
from ctm_rl.agents.cluster.node_probe import survey
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("NODES" + json.dumps(survey(float(sys.argv[2]))), flush=True)
"""


def prepare_environment(experiment: RunSettings) -> None:
    """Sets what Ray reads from the environment when it is imported, as far as nobody has set it; call it before that.

    No GPUs are hidden from the training process, and nothing is reported to Ray's makers. A Ray of our own gets a token
    of its own: otherwise Ray would write one into the home directory, which may not be writable, and from then on
    every ``ray start`` would ask for it.
    """
    if "ray" in sys.modules:
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if experiment.address is None and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def check_machine(experiment: RunSettings) -> list[Node]:
    """Refuses a run that would wait for ever for processors that are not there.

    Returns:
        The nodes of the cluster; of a Ray of our own, this machine.

    Raises:
        UserError: the cluster cannot be joined, or has too few CPU cores or GPUs.
    """
    if experiment.address is None:
        where, nodes = "this machine", [_this_machine(experiment)]
    else:
        where, nodes = f"the cluster at {experiment.address}", _probe(experiment.address)
    check_capacity(experiment, where, nodes)
    return nodes


def _this_machine(experiment: RunSettings) -> Node:
    """What a Ray of our own has."""
    num_gpus = 0
    if needed_gpus(experiment) > 0:
        import torch

        num_gpus = torch.cuda.device_count()
    return Node("this machine", float(count_cpus()), float(num_gpus), has_package=True)


def count_cpus() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def ray_for(
    experiment: RunSettings, request: StopRequest, nodes: Sequence[Node] = (), *, num_cpus: float = 0.0
) -> Iterator[None]:
    """Has a Ray running inside the body: the one that already runs in this process, the cluster, or one of its own.

    What this started, it stops. Ray and RLlib log errors only.

    Args:
        experiment: says which.
        request: gets its signals back, which Ray takes.
        nodes: of the cluster, from ``check_machine``; those without this package are sent it.
        num_cpus: CPU cores that a Ray of its own has at least, whatever the machine has.
    """
    import ray

    with warnings.catch_warnings():
        # RLlib warns of its own deprecated calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        is_own = not ray.is_initialized()
        if is_own:
            if experiment.address:
                with runtime_env(nodes) as sent:
                    ray.init(
                        address=experiment.address,
                        runtime_env=sent or None,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                    )
            else:
                # Several Rays may run on one machine; "local" joins none of them.
                ray.init(
                    address="local",
                    num_cpus=max(count_cpus(), math.ceil(max(num_cpus, needed_cpus(experiment)))),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        logging.getLogger("ray.rllib").setLevel(logging.ERROR)
        request.take()
        try:
            request.check()
            yield
        finally:
            if is_own:
                ray.shutdown()


def _probe(address: str) -> list[Node]:
    """Joins a cluster from a process of its own and tells its nodes."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise UserError(
                f"no Ray cluster answers at address {address} ({error}); "
                "start one there with ray start --head, or leave --address out."
            ) from error
    said = []
    command = [sys.executable, "-c", _PROBE, address, str(_ANSWER_SECONDS)]
    with (
        # Ray puts the working directory on its workers' path, and what is installed there is what counts.
        tempfile.TemporaryDirectory() as place,
        subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as probe,
    ):
        deadline = threading.Timer(_JOIN_SECONDS, probe.kill)
        deadline.start()
        try:
            assert probe.stdout is not None
            for line in probe.stdout:
                if line.startswith("NODES"):
                    return [_node(values) for values in json.loads(line.removeprefix("NODES"))]
                said.append(line)
                if _asks_for_token(line):
                    probe.kill()  # it would go on asking
        finally:
            deadline.cancel()
    _LOG.debug("joining %s failed: %s", address, said)
    raise UserError(_explain(address, said))


def _node(values: dict[str, Any]) -> Node:
    """A node as the probe tells it."""
    resources = values["resources"]
    return Node(values["address"], resources.get("CPU", 0.0), resources.get("GPU", 0.0), values["has_package"])


def _asks_for_token(line: str) -> bool:
    """Whether a line of Ray's tells that the cluster wants to know who is there."""
    # Not whatever names RAY_AUTH_MODE: Ray also says so where it has found the token by itself.
    refusals = ("Unauthenticated", "Missing authorization header", "AuthToken", "find an authentication token")
    return any(words in line for words in refusals)


def _explain(address: str, said: list[str]) -> str:
    """Why a cluster could not be joined, from what Ray wrote."""
    if any(_asks_for_token(line) for line in said):
        return (
            f"the Ray cluster at address {address} asks for a token: RAY_AUTH_MODE=token must be set, "
            "with the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token."
        )
    if any("Could not find any running Ray instance" in line for line in said):
        return (
            f"address {address} found no Ray cluster on this machine; "
            "start one with ray start --head, or leave --address out for a Ray of its own."
        )
    last = next((line for line in reversed(said) if line.startswith(("ConnectionError", "RuntimeError"))), "")
    reason = f" ({' '.join(last.split())})" if last else ""
    return (
        f"what answers at address {address} is no Ray cluster that this process can join{reason}; "
        "is it the port of ray start, and is this machine one of its nodes?"
    )
