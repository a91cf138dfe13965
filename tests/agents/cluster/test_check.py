"""``ctm-rl cluster-check``: a cluster like this process, and one in which a node lacks the package."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_cluster import cluster_of, write_bare

import ctm_rl
from ctm_rl.agents.cluster import check as cluster_check
from ctm_rl.agents.cluster import node_probe
from ctm_rl.cli.main import main

HERE: dict[str, str | None] = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0+cpu", "ctm-rl": "1", "files": "a"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that leaves no trace in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.usefixtures("ray_session", "place")
def test_a_node_is_reported_with_its_size_versions_connection_and_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_check, "PLAY_SECONDS", 0.2)
    assert main(["cluster-check", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (node,) = report["nodes"]
    assert (node["cpus"], node["gpus"], node["object_store_gib"]) == (2.0, 0.0, 0.2)
    assert (node["python"], node["torch"]) == (platform.python_version(), torch.__version__)
    assert node["ctm_rl"] == ctm_rl.__version__
    assert 0 < node["round_trip_ms"] < 1000
    assert node["bandwidth_mb_s"] > 10
    assert node["env_steps_per_second"] > 100
    assert report["problems"] == []


def test_a_node_without_the_package_is_reported_and_does_not_stop_the_check(place: Path) -> None:
    bare = {"num_cpus": 3, "env_vars": {"PYTHONPATH": write_bare(place / "bare")}}
    with cluster_of([{"num_cpus": 1}, bare], place) as address:
        command = [sys.executable, "-m", "ctm_rl.cli.main", "cluster-check", "--address", address, "--json"]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr == "ctm-rl: a node differs from this process, or failed a check; see the problems above.\n"
    report = json.loads(done.stdout)
    whole, lacking = sorted(report["nodes"], key=lambda node: node["cpus"])
    assert (whole["cpus"], whole["ctm_rl"]) == (1.0, ctm_rl.__version__)
    assert whole["env_steps_per_second"] > 100
    assert (lacking["cpus"], lacking["ctm_rl"], lacking["env_steps_per_second"]) == (3.0, None, None)
    assert lacking["ray"] == whole["ray"]
    assert lacking["bandwidth_mb_s"] > 10
    lack = f"{lacking['name']} has no ctm-rl, and this process has {ctm_rl.__version__}; a run sends its own."
    assert report["problems"] == [lack]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"torch": "2.13.0+cu128"}, []),
        ({"torch": "2.12.0+cpu"}, ["a has torch 2.12.0+cpu, and this process has 2.13.0+cpu."]),
        ({"torch": None}, ["a has no torch, and this process has 2.13.0+cpu."]),
        ({"ctm-rl": "0", "files": "b"}, ["a has ctm-rl 0, and this process has 1; a run sends its own."]),
        ({"files": "b"}, ["a has ctm-rl 1 too, but not the files of this process; a run sends its own."]),
        (
            {"python": "3.12.1", "ray": "2.61.0"},
            ["a has python 3.12.1, and this process has 3.11.7.", "a has ray 2.61.0, and this process has 2.60.0."],
        ),
    ],
)
def test_each_difference_is_one_line(changes: dict[str, str | None], lines: list[str]) -> None:
    assert cluster_check.compare("a", {**HERE, **changes}, HERE) == lines


@pytest.mark.usefixtures("ray_session")
def test_a_node_that_does_not_answer_or_fails_is_reported() -> None:
    import ray

    @ray.remote(num_cpus=0)
    def never() -> None:
        import time

        time.sleep(600)

    @ray.remote(num_cpus=0)
    def fail() -> None:
        raise ZeroDivisionError("on purpose")

    problems: list[str] = []
    pending: Any = never.remote()
    assert cluster_check._answer(pending, 0.1, "a", "its versions", problems) is None
    ray.cancel(pending, force=True)
    assert cluster_check._answer(fail.remote(), 60, "b", "its versions", problems) is None
    assert problems == [
        "a did not report its versions within 0.1 s.",
        "b failed to report its versions (ZeroDivisionError: on purpose).",
    ]


def test_the_packages_files_have_their_installed_names() -> None:
    files = node_probe.package_files()
    assert {"__init__.py", "py.typed", "agents/runs/train.py", "agents/bench/run.py", "envs/data/mnist.npz"} <= set(
        files
    )
    assert all(files[name].name == name.rpartition("/")[2] for name in files)
    assert not any(name.startswith("ctm_rl/") or "__pycache__" in name for name in files)


def test_a_digest_depends_on_names_and_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("1")
    two.write_text("2")
    digests = [{"a": one, "b": two}, {"b": two, "a": one}, {"a": two, "b": one}, {"a": one}]
    first, same, *others = map(node_probe.digest, digests)
    assert first == same
    assert len({first, *others}) == 3
