"""A cluster of several nodes, each with an address of its own: one is cut off, and another one comes in its place."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_runs import CTM_RL, TINY_ACTING

from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.checkpoints import store as checkpoint

PORT = 6391
HEAD = "10.77.0.1"
TINY = (*TINY_ACTING, "--ppo.num-rollout-steps", "40", "--budget.env-steps", "100000000", "--num-env-runners", "3")
WHERE = """
import json, ray
from ray._private.state import actors
ray.init(address="10.77.0.1:6391", log_to_driver=False, logging_level="ERROR")
alive = [actor for actor in actors().values() if actor["State"] == "ALIVE" and "EnvRunner" in actor["ActorClassName"]]
print("WHERE" + json.dumps(sorted(actor["Address"]["IPAddress"] for actor in alive)))
"""
COUNT = """
import ray
ray.init(address="10.77.0.1:6391", log_to_driver=False, logging_level="ERROR")
print("NODES", sum(node["Alive"] for node in ray.nodes()))
"""
ENVIRONMENT = {
    **os.environ,
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    # A lost node is to be noticed soon.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class Net:
    """Network namespaces on a bridge, each one a machine with an address of its own."""

    def __init__(self, folder: Path) -> None:
        self._name = f"ctm{os.getpid()}"
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._num_nodes = 0
        _ip("netns", "add", self._hub)
        self._in(self._hub, "link", "add", "bridge", "type", "bridge")
        self._in(self._hub, "link", "set", "bridge", "up")

    @property
    def _hub(self) -> str:
        return f"{self._name}-hub"

    def _node(self, number: int) -> str:
        return f"{self._name}-{number}"

    def add(self) -> int:
        """Adds a machine and starts Ray on it, with one core; gives its number, from 1, the end of its address."""
        self._num_nodes += 1
        number, node = self._num_nodes, self._node(self._num_nodes)
        _ip("netns", "add", node)
        _ip("link", "add", "eth", "netns", node, "type", "veth", "peer", "name", f"port{number}", "netns", self._hub)
        self._in(self._hub, "link", "set", f"port{number}", "master", "bridge", "up")
        self._in(node, "addr", "add", f"10.77.0.{number}/24", "dev", "eth")
        self._in(node, "link", "set", "eth", "up")
        self._in(node, "link", "set", "lo", "up")
        where = ["--head", f"--port={PORT}"] if number == 1 else [f"--address={HEAD}:{PORT}"]
        own = ["--include-dashboard=false", f"--temp-dir={self._folder / 'ray'}"] if number == 1 else []
        self.start(
            number,
            *(str(Path(sys.executable).with_name("ray")), "start", "--block", *where, *own, "--num-cpus=1"),
            *(f"--node-ip-address=10.77.0.{number}", "--object-store-memory=100000000"),
        )
        return number

    def start(self, number: int, *command: str) -> "subprocess.Popen[bytes]":
        """Starts a program on a machine."""
        with (self._folder / f"said-{number}").open("ab") as said:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self._node(number), *command],
                stdout=said,
                stderr=said,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def ask(self, number: int, program: str) -> str:
        """Runs a program of Python on a machine; gives what it printed."""
        command = ["ip", "netns", "exec", self._node(number), sys.executable, "-c", program]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout

    def cut_off(self, number: int) -> None:
        """Disconnects a machine from the network."""
        self._in(self._hub, "link", "set", f"port{number}", "down")

    def close(self) -> None:
        """Ends everything that runs on these machines, and takes them away."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            for number in range(1, self._num_nodes + 1):
                found = subprocess.run(
                    ["ip", "netns", "pids", self._node(number)], capture_output=True, text=True, check=False
                )
                for pid in found.stdout.split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), kind)
            time.sleep(2.0)
        for process in self._processes:
            process.wait(timeout=20)
        for name in (*(self._node(number) for number in range(1, self._num_nodes + 1)), self._hub):
            subprocess.run(["ip", "netns", "del", name], check=False)

    def _in(self, namespace: str, *command: str) -> None:
        _ip("-n", namespace, *command)


def _ip(*command: str) -> None:
    """Runs iproute2's ip."""
    subprocess.run(["ip", *command], check=True, capture_output=True, text=True)


@pytest.fixture
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """A network without machines yet."""
    folder = Path("/tmp") / f"ctm{os.getpid()}"  # short: sockets lie in it
    folder.mkdir()
    try:
        found = Net(folder)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        folder.rmdir()
        pytest.skip(f"network namespaces are not allowed here: {getattr(error, 'stderr', None) or error}")
    try:
        yield found
    finally:
        found.close()
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def wait_for(what: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)


def count_nodes(net: Net) -> int:
    """How many nodes have joined."""
    try:
        answer = net.ask(1, COUNT)
    except subprocess.CalledProcessError:
        return 0
    return int(answer[answer.index("NODES") + 5 :])


def steps_of(run: Path) -> list[int]:
    """Environment steps of each iteration so far."""
    with contextlib.suppress(OSError):
        totals = [int(row["env_steps"] or 0) for row in read_metrics(run)]
        return [after - before for before, after in zip([0, *totals], totals, strict=False)]
    return []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_is_cut_off_and_another_joins_and_training_goes_on(net: Net, tmp_path: Path) -> None:
    net.add()
    wait_for(lambda: count_nodes(net) == 1, 90, lambda: "the head does not answer")
    for _ in range(2):
        net.add()
    wait_for(lambda: count_nodes(net) == 3, 90, lambda: f"{count_nodes(net)} of 3 nodes have joined")
    run = tmp_path / "a"
    arguments = ["train", "cartpole", *TINY, "--address", f"{HEAD}:{PORT}", "--run-dir", str(run)]
    driver = net.start(1, *CTM_RL, *arguments)

    def said() -> str:
        return f"{steps_of(run)[-10:]}\n{(Path('/tmp') / f'ctm{os.getpid()}' / 'said-1').read_text()[-3000:]}"

    slots = 3 * 4 * 40
    wait_for(lambda: len(steps_of(run)) >= 5, 120, said)
    assert min(steps_of(run)) > 0.8 * slots
    answer = net.ask(1, WHERE)
    where = json.loads(answer[answer.index("WHERE") + 5 :])
    assert where == ["10.77.0.1", "10.77.0.2", "10.77.0.3"]
    net.cut_off(3)
    started = time.monotonic()
    wait_for(lambda: bool(steps_of(run)) and steps_of(run)[-1] <= 2 / 3 * slots, 120, said)
    noticed = time.monotonic() - started
    num_before = len(steps_of(run))
    wait_for(lambda: len(steps_of(run)) >= num_before + 5, 60, said)
    net.add()
    started = time.monotonic()
    wait_for(lambda: steps_of(run)[-1] > 0.8 * slots, 120, said)
    rejoined = time.monotonic() - started
    answer = net.ask(1, WHERE)
    assert json.loads(answer[answer.index("WHERE") + 5 :]) == ["10.77.0.1", "10.77.0.2", "10.77.0.4"]
    # ip netns exec becomes the program itself
    os.kill(driver.pid, signal.SIGINT)
    assert driver.wait(60) == 130
    rows = read_metrics(run)
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    assert checkpoint.iteration_of(checkpoint.latest(run)) == len(rows)
    print(f"{len(rows)} iterations; the node was missed after {noticed:.0f} s, replaced after {rejoined:.0f} s")
