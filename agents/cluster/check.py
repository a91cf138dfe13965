"""``ctm-rl cluster-check``: every node's size, versions, connection to this process, and speed."""

import contextlib
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ctm_rl.agents.cluster.session import check_machine, prepare_environment, ray_for
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.errors import UserError, user_errors

PAYLOAD_MB = 64
NUM_ROUND_TRIPS = 10
PLAY_SECONDS = 2.0
ANSWER_SECONDS = 60.0
"""How long a node may take to answer, beyond the time of the measurement itself."""
_MIB, _GIB = 2**20, 2**30


class ClusterDiffers(UserError):
    """A node of the cluster differs from this process, or failed a check."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeReport:
    """The results of one node; ``None`` where it did not answer."""

    name: str
    """Its address, with the beginning of Ray's id if several nodes share the address."""
    address: str
    """Its address."""
    id: str
    """Ray's id."""
    cpus: float
    """CPU cores that Ray may assign."""
    gpus: float
    """GPUs that Ray may assign."""
    memory_gib: float
    """Memory that Ray may assign."""
    object_store_gib: float
    """Size of its object store."""
    python: str | None = None
    """Version of Python there."""
    ray: str | None = None
    """Version of Ray there."""
    torch: str | None = None
    """Version of PyTorch there."""
    ctm_rl: str | None = None
    """Version of this package there."""
    round_trip_ms: float | None = None
    """Median time of a tiny message from this process to the node and back."""
    bandwidth_mb_s: float | None = None
    """Megabytes (2**20 bytes) per second, from one object store to the other and back."""
    env_steps_per_second: float | None = None
    """Speed of CartPole in one process there, with our untrained policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterReport:
    """The results of all nodes, and how they differ from this process."""

    nodes: list[NodeReport]
    """The nodes that are alive."""
    driver: dict[str, str | None]
    """Versions in this process."""
    problems: list[str]
    """One line for each difference or failure."""


def check_cluster(build_config: Callable[[], Any], address: str | None, show: Callable[[str], None]) -> ClusterReport:
    """Joins a cluster, or starts Ray on this machine, and examines every node.

    Args:
        build_config: returns the configuration of the algorithm that measures a node's speed; it imports Ray, so it
            is called after ``prepare_environment``.
        address: auto or host:port; ``None``: this machine.
        show: shows what is being done.

    Raises:
        UserError: no cluster answers there.
    """
    with user_errors():
        settings = RunSettings(name="cluster-check", address=address)
    prepare_environment(settings)
    show(f"joining the Ray cluster at {address}" if address else "starting Ray on this machine")
    check_machine(settings)
    request = StopRequest(lambda: None)
    with (
        request,
        # Ray puts the working directory on its workers' path; only what is installed on the node is to count.
        tempfile.TemporaryDirectory() as directory,
        contextlib.chdir(directory),
        ray_for(settings, request),
    ):
        return _examine(build_config(), show, request.check)


def _examine(config: Any, show: Callable[[str], None], check: Callable[[], None]) -> ClusterReport:
    """Examines all nodes at once, except for their connections to this process, which would share its bandwidth."""
    from ctm_rl.agents.cluster import node_probe

    nodes = node_probe.alive_nodes()
    problems: list[str] = []
    driver = node_probe.describe()
    probes = {node["id"]: node_probe.probe_on(node["id"]) for node in nodes}
    names = _names(nodes)
    show(f"asking {len(nodes)} nodes what is installed")
    pending = {key: probe.describe.remote() for key, probe in probes.items()}
    facts = {
        key: _answer(answer, ANSWER_SECONDS, names[key], "its versions", problems) for key, answer in pending.items()
    }
    check()
    for key, found in facts.items():
        problems += [] if found is None else compare(names[key], found, driver)
    show(f"playing for {PLAY_SECONDS:g} s")
    complete = [key for key, found in facts.items() if found is not None and found["ctm-rl"] is not None]
    playing = {key: probes[key].play.remote(config, PLAY_SECONDS) for key in complete}
    limit = PLAY_SECONDS + ANSWER_SECONDS
    speeds = {key: _answer(playing[key], limit, names[key], "its speed", problems) for key in playing}
    reports = []
    for node in nodes:
        key = node["id"]
        check()
        show(f"sending {PAYLOAD_MB} MB to {names[key]} and back")
        connection = None if facts[key] is None else _measure_connection(probes[key], names[key], problems)
        reports.append(_report(node, names[key], facts[key] or {}, connection, speeds.get(key)))
    return ClusterReport(nodes=reports, driver=driver, problems=problems)


def compare(name: str, node: dict[str, str | None], driver: dict[str, str | None]) -> list[str]:
    """Returns how the installation on a node differs from the one here, one line for each difference.

    Args:
        name: the node's name.
        node: what is installed there, see ``node_probe.describe``.
        driver: what is installed here.
    """
    lines = []
    for what in ("python", "ray", "torch", "ctm-rl"):
        there, here = node[what], driver[what]
        remedy = "; a run sends its own" if what == "ctm-rl" else ""
        if there is None:
            lines.append(f"{name} has no {what}, and this process has {here}{remedy}.")
        elif _public(there) != _public(here):
            lines.append(f"{name} has {what} {there}, and this process has {here}{remedy}.")
    if node["ctm-rl"] == driver["ctm-rl"] and node["files"] != driver["files"]:
        lines.append(f"{name} has ctm-rl {node['ctm-rl']} too, but not the files of this process; a run sends its own.")
    return lines


def to_text(report: ClusterReport) -> str:
    """Returns a table, and below it the differences from this process."""
    head = ("node", "CPUs", "GPUs", "memory", "object store", "python", "ray", "torch", "ctm-rl")
    rows: list[tuple[str, ...]] = [(*head, "round trip", f"{PAYLOAD_MB} MB round trip", "env steps/s")]
    for node in report.nodes:
        versions = (node.python, node.ray, node.torch, node.ctm_rl)
        sizes = (f"{node.memory_gib:.1f} GiB", f"{node.object_store_gib:.1f} GiB")
        numbers = (
            _format(node.round_trip_ms, ".1f", " ms"),
            _format(node.bandwidth_mb_s, ",.0f", " MB/s"),
            _format(node.env_steps_per_second, ",.0f", ""),
        )
        known = [version or "-" for version in versions]
        rows.append((node.name, f"{node.cpus:g}", f"{node.gpus:g}", *sizes, *known, *numbers))
    verdict = report.problems or ["All nodes have what this process has."]
    return "\n".join([*aligned(rows), *verdict]) + "\n"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, whose columns are as wide as their longest cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def to_line(report: ClusterReport) -> str:
    """Returns one line of JSON."""
    return json.dumps(dataclasses.asdict(report), allow_nan=False) + "\n"


def _answer(pending: Any, seconds: float, name: str, what: str, problems: list[str]) -> Any:
    """Waits for a node's answer; None if it fails, which is added to the problems."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        return ray.get(pending, timeout=seconds)
    except GetTimeoutError:
        problems.append(f"{name} did not report {what} within {seconds:g} s.")
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        reason = next((line.strip() for line in reversed(str(cause).splitlines()) if line.strip()), "")
        problems.append(f"{name} failed to report {what} ({type(cause).__name__}: {reason}).")
    return None


def _measure_connection(probe: Any, name: str, problems: list[str]) -> tuple[float, float] | None:
    """Returns milliseconds of a round trip, and megabytes per second; None if the node failed."""
    import numpy as np

    payload = np.zeros(PAYLOAD_MB * _MIB, np.uint8)
    seconds: list[float] = []
    # The first message of each size opens connections and allocates memory in the object stores.
    for content in (*[0] * (NUM_ROUND_TRIPS + 1), payload, payload, payload):
        began = time.perf_counter()
        if _answer(probe.echo.remote(content), ANSWER_SECONDS, name, "its connection", problems) is None:
            return None
        seconds.append(time.perf_counter() - began)
    rate = 2 * PAYLOAD_MB / min(seconds[-2:])
    return 1000 * statistics.median(seconds[1 : NUM_ROUND_TRIPS + 1]), rate


def _report(
    node: dict[str, Any],
    name: str,
    facts: dict[str, str | None],
    connection: tuple[float, float] | None,
    speed: float | None,
) -> NodeReport:
    """Combines the results of a node."""
    resources = node["resources"]
    return NodeReport(
        name=name,
        address=node["address"],
        id=node["id"],
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory_gib=round(resources.get("memory", 0.0) / _GIB, 2),
        object_store_gib=round(resources.get("object_store_memory", 0.0) / _GIB, 2),
        python=facts.get("python"),
        ray=facts.get("ray"),
        torch=facts.get("torch"),
        ctm_rl=facts.get("ctm-rl"),
        round_trip_ms=None if connection is None else round(connection[0], 2),
        bandwidth_mb_s=None if connection is None else round(connection[1], 1),
        env_steps_per_second=None if speed is None else round(speed, 1),
    )


def _names(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """Every node's name by its id."""
    addresses = [node["address"] for node in nodes]
    return {
        node["id"]: node["address"] if addresses.count(node["address"]) == 1 else f"{node['address']}/{node['id'][:6]}"
        for node in nodes
    }


def _public(version: str | None) -> str | None:
    """A version without its build label, such as +cpu."""
    return None if version is None else version.partition("+")[0]


def _format(value: float | None, form: str, unit: str) -> str:
    """A number in the table."""
    return "-" if value is None else f"{value:{form}}{unit}"
