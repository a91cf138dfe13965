"""Starts a Ray on this machine or joins an existing cluster, after checking that it can run the experiment."""

import contextlib
import functools
import json
import logging
import math
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ctm_rl.agents.cluster.capacity import Node, check_capacity, needed_cpus, needed_gpus
from ctm_rl.agents.cluster.ship_package import runtime_env, users_modules
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.cluster.temporary_folder import ray_folder
from ctm_rl.agents.cluster.users_folder import SETUP_HOOK
from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.agents.rllib import private
from ctm_rl.errors import UserError
from ctm_rl.this_machine import count_cpus

LOOPBACK = "127.0.0.1"
"""Where a local Ray listens."""
_LEAVE_SECONDS = 5.0
_CONNECT_SECONDS = 3.0
_JOIN_SECONDS = 45.0
_ANSWER_SECONDS = 20.0
"""How long nodes may take to answer whether they have this package; one that does not answer is sent it."""
_LOG = logging.getLogger(__name__)

# Run in a separate process: a driver that connects to a port that is not Ray's retries for minutes, then exits.
_PROBE = """
import json, sys, ray
from ctm_rl.agents.cluster.node_probe import survey
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("NODES" + json.dumps(survey(float(sys.argv[2]))), flush=True)
"""


def prepare_environment(experiment: RunSettings) -> None:
    """Sets the environment variables that Ray reads when it is imported, unless they are set; call it before that.

    No GPUs are hidden from the training process, no usage statistics are sent, and calls are not recorded. A local Ray
    gets its own token: otherwise Ray would write one into the home directory, which may not be writable, and every
    later ``ray start`` would require it. Ray's processes start in the run's directory, where a relative entry of
    PYTHONPATH would name a folder of the run: entries are made absolute, and empty ones are dropped.
    """
    if path := os.environ.get("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, path.split(os.pathsep))))
    if "ray" in sys.modules:
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's GCS would keep a record of every call of an environment runner or learner, 3 KB each, of up to 100,000.
    os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    if experiment.address is None and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def check_machine(experiment: RunSettings) -> list[Node]:
    """Refuses a run that would wait forever for processors that do not exist.

    Returns:
        The nodes of the cluster; without a cluster, this machine.

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
    """The node of a local Ray."""
    num_gpus = 0
    if needed_gpus(experiment) > 0:
        import torch

        num_gpus = torch.cuda.device_count()
    return Node("this machine", float(count_cpus()), float(num_gpus), has_package=True)


@contextlib.contextmanager
def ray_for(
    experiment: RunSettings, request: StopRequest, nodes: Sequence[Node] = (), *, num_cpus: float = 0.0
) -> Iterator[None]:
    """Provides Ray inside the body: the one already initialised in this process, the cluster, or a local one.

    A Ray that this function started is stopped afterwards. Ray and RLlib log errors only.

    Args:
        experiment: names the cluster, or none.
        request: takes its signals over again after Ray has installed its own handlers; learns if Ray ends by itself.
        nodes: of the cluster, from ``check_machine``; those without this package are sent it.
        num_cpus: the least number of CPU cores that a local Ray gets, whatever the machine has.
    """
    import ray

    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        # RLlib warns about its own deprecated calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        is_own, processes = not ray.is_initialized(), {}
        if is_own:
            if experiment.address:
                with runtime_env(nodes, users_modules()) as sent:
                    ray.init(
                        address=experiment.address,
                        runtime_env=sent or None,
                        job_config=private.job_without_working_directory(),
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                    )
            else:
                # Several Rays may run on one machine; "local" starts another and joins none of them.
                folder = stack.enter_context(ray_folder())
                with private.ray_apart():
                    ray.init(
                        address="local",
                        _node_ip_address=LOOPBACK,
                        job_config=private.job_without_working_directory(),
                        _temp_dir=folder,
                        num_cpus=max(count_cpus(), math.ceil(max(num_cpus, needed_cpus(experiment)))),
                        include_dashboard=False,
                        runtime_env={"worker_process_setup_hook": SETUP_HOOK},
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                    )
                processes = private.processes_of_local_ray()
        kill_rest = functools.partial(_kill, {process.pid for process in processes.values()})
        request.on_exit.append(kill_rest)
        logging.getLogger("ray.rllib").setLevel(logging.ERROR)
        request.take()
        try:
            request.check()
            with _watched(processes, request):
                yield
        finally:
            if is_own:
                ray.shutdown()
                kill_rest()


@contextlib.contextmanager
def _watched(processes: Mapping[str, "subprocess.Popen[bytes]"], request: StopRequest) -> Iterator[None]:
    """Stops the run if one of the processes that Ray cannot do without ends inside the body; where Linux can report it.

    Args:
        processes: of a local Ray, by their kinds.
        request: is called at once: Ray ends this process within a second.
    """
    watched = {
        os.pidfd_open(processes[kind].pid): f"Ray has ended: its process {name} was killed."
        for kind, name in private.VITAL_PROCESSES.items()
        if kind in processes and hasattr(os, "pidfd_open")
    }
    ending, end = os.pipe()

    def watch() -> None:
        poll = select.poll()
        for descriptor in (*watched, ending):
            poll.register(descriptor, select.POLLIN)
        reason = watched.get(poll.poll()[0][0])
        if reason is not None:
            request.lose(reason)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(end, b"e")
        thread.join(_LEAVE_SECONDS)
        for descriptor in (*watched, ending, end):
            os.close(descriptor)


def _kill(sessions: Collection[int]) -> None:
    """Kills what is left of a local Ray, by its sessions: a worker that was stopped (SIGSTOP) would outlive it."""
    processes = [int(name) for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc") else ()
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process) in sessions:
                os.kill(process, signal.SIGKILL)


def _probe(address: str) -> list[Node]:
    """Joins a cluster from a separate process and returns its nodes."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise UserError(
                f"no Ray cluster answers at address {address} ({error}); "
                "start one there with ray start --head, or leave --address out."
            ) from error
    output = []
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
                output.append(line)
                if _requires_token(line):
                    probe.kill()  # it would retry for minutes
        finally:
            deadline.cancel()
    _LOG.debug("joining %s failed: %s", address, output)
    raise UserError(_explain(address, output))


def _node(values: dict[str, Any]) -> Node:
    """A node, from the probe's JSON."""
    resources = values["resources"]
    return Node(values["address"], resources.get("CPU", 0.0), resources.get("GPU", 0.0), values["has_package"])


def _requires_token(line: str) -> bool:
    """Whether a line of Ray's output says that the cluster requires a token."""
    # Not every line with RAY_AUTH_MODE: Ray also names it when it has found the token by itself.
    refusals = ("Unauthenticated", "Missing authorization header", "AuthToken", "find an authentication token")
    return any(words in line for words in refusals)


def _explain(address: str, output: list[str]) -> str:
    """Why a cluster could not be joined, from Ray's output."""
    if any(_requires_token(line) for line in output):
        return (
            f"the Ray cluster at address {address} requires a token: set RAY_AUTH_MODE=token, "
            "with the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token."
        )
    if any("Could not find any running Ray instance" in line for line in output):
        return (
            f"address {address} found no Ray cluster on this machine; "
            "start one with ray start --head, or leave --address out to start Ray on this machine."
        )
    last = next((line for line in reversed(output) if line.startswith(("ConnectionError", "RuntimeError"))), "")
    reason = f" ({' '.join(last.split())})" if last else ""
    return (
        f"what answers at address {address} is not a Ray cluster that this process can join{reason}; "
        "check that it is the port of ray start, and that this machine is one of its nodes."
    )
