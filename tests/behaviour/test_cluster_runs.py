"""Runs on a cluster of several nodes: runners are placed as requested, and nodes without this package receive it."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_modules import own_modules
from small_cluster import cluster_of, write_bare
from tiny_runs import TINY

import ctm_rl
from ctm_rl.agents.cluster import node_probe
from ctm_rl.agents.cluster import ship_package as shipping
from ctm_rl.agents.cluster.capacity import Node
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.checkpoints import store as checkpoint

ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled"}

WHERE = """
import sys
import ray
from ctm_rl.agents.cluster.placement import placed_env_runners
from ray.rllib.algorithms.ppo import PPOConfig

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
config = PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=2)
for placement in sys.argv[2:]:
    with placed_env_runners(placement):
        algorithm = config.copy(copy_frozen=False).build_algo()
    group = algorithm.env_runner_group
    print("NODES", *group.foreach_env_runner(lambda _: ray.get_runtime_context().get_node_id(), local_env_runner=False))
    free = ray.available_resources()["CPU"]
    algorithm.stop()
    for _ in range(100):
        if ray.available_resources()["CPU"] == free + 2:
            print("FREE")
            break
        __import__("time").sleep(0.1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the cluster and its runs."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A cluster of a node that has this package, and of three CPUs on another one that has not."""
    bare = {"num_cpus": 3, "env_vars": {"PYTHONPATH": write_bare(folder / "bare")}}
    with cluster_of([{"num_cpus": 2}, bare], folder) as address:
        yield address


def test_a_node_without_the_package_is_reported_and_does_not_stop_the_check(folder: Path, address: str) -> None:
    command = [sys.executable, "-m", "ctm_rl.cli.main", "cluster-check", "--address", address, "--json"]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr == "ctm-rl: a node differs from this process, or failed a check; see the problems above.\n"
    report = json.loads(done.stdout)
    whole, lacking = sorted(report["nodes"], key=lambda node: node["cpus"])
    assert (whole["cpus"], whole["ctm_rl"]) == (2.0, ctm_rl.__version__)
    assert whole["env_steps_per_second"] > 100
    assert (lacking["cpus"], lacking["ctm_rl"], lacking["env_steps_per_second"]) == (3.0, None, None)
    assert lacking["ray"] == whole["ray"]
    assert lacking["bandwidth_mb_s"] > 10
    lack = f"{lacking['name']} has no ctm-rl, and this process has {ctm_rl.__version__}; a run sends its own."
    assert report["problems"] == [lack]


def test_a_run_takes_the_package_to_a_node_that_lacks_it(folder: Path, address: str) -> None:
    options = ("--address", address, "--num-env-runners", "2", "--placement", "spread", "--budget.env-steps", "100")
    command = [sys.executable, "-m", "ctm_rl.cli.main", "train", "cartpole", *TINY, *options, "--run-dir", "a"]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    host = address.partition(":")[0]
    line = f"ctm-rl {ctm_rl.__version__} is sent with the run: 1 of 2 nodes lack it ({host})"
    assert done.stdout.splitlines()[0] == line
    assert len(read_metrics(folder / "a")) == 2
    assert checkpoint.iteration_of(checkpoint.latest(folder / "a")) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_takes_the_users_modules_to_every_node(folder: Path, address: str) -> None:
    place = folder / "mine"
    place.mkdir()
    with own_modules(place):
        options = ("--address", address, "--num-env-runners", "2", "--placement", "spread", "--num-learners", "1")
        code = ("--env.wrappers", "own_wrappers:Scale=2", "--model.encoder", "image=own_nets:Wide")
        command = ["train", "--env", "own_envs:Signs", *TINY, *options, *code, "--budget.env-steps", "100"]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ctm_rl.cli.main", *command, "--run-dir", "a"],
            cwd=place, env=ENVIRONMENT, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("own_envs.py, own_nets.py, own_wrappers.py of this folder go with the run; ctm-rl ")
    rows = read_metrics(place / "a")
    assert len(rows) == 2
    assert all(row["episode_return_mean"] == pytest.approx(2 * float(row["episode_length_mean"] or 0)) for row in rows)


@pytest.mark.slow
def test_runners_are_packed_or_spread_and_give_their_room_back(folder: Path, address: str) -> None:
    command = [sys.executable, "-c", WHERE, address, "pack", "spread"]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    packed, free, spread, free_again = (line for line in done.stdout.splitlines() if line.startswith(("NODES", "FREE")))
    assert list(Counter(packed.split()[1:]).values()) == [2]
    assert list(Counter(spread.split()[1:]).values()) == [1, 1]
    assert free == free_again == "FREE"


def test_placement_of_no_runners_is_refused() -> None:
    with pytest.raises(ValueError, match="placement has no effect without num_env_runners"):
        ActingExperiment(name="a", env=EnvConfig(id="b"), placement="spread")


def nodes(*names: str, lacking: tuple[str, ...] = ()) -> list[Node]:
    """Nodes, some without the package."""
    return [Node(name, 1.0, 0.0, has_package=name not in lacking) for name in names]


def test_nothing_is_sent_where_nothing_lacks() -> None:
    with shipping.runtime_env(nodes("a", "b")) as sent:
        assert sent == {}
    assert shipping.describe_shipping(nodes("a", "b")) is None
    told = shipping.describe_shipping(nodes(*"abcdef", lacking=tuple("bcdef"))) or ""
    assert told.endswith("5 of 6 nodes lack it (b, c, d and 2 more)")


def test_what_is_sent_is_the_package_as_it_is_once_installed(tmp_path: Path) -> None:
    with shipping.runtime_env(nodes("a", lacking=("a",))) as sent:
        (package,) = map(Path, sent["py_modules"])
        files = {path.relative_to(package).as_posix(): path for path in package.rglob("*") if path.is_file()}
        assert node_probe.digest(files) == node_probe.digest(node_probe.package_files())
        code = "import ctm_rl.agents.experiments.acting, ctm_rl.configs, ctm_rl.envs; print(ctm_rl.__file__)"
        environment = {**ENVIRONMENT, "PYTHONPATH": str(package.parent)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.stdout.strip() == str(package / "__init__.py"), done.stderr
    assert not package.exists()
