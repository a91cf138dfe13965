"""What is in ``deploy/`` and its guide: versions, commands and sizes agree with the package; the scripts really run."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from paths import ROOT
from shell_commands import commands_in, understand

import ctm_rl
from ctm_rl.agents.cluster.capacity import Node, check_capacity
from ctm_rl.errors import UserError

DEPLOY = ROOT / "deploy"
GUIDE = ROOT / "docs" / "cluster.md"
FILES = [*sorted(DEPLOY.iterdir()), GUIDE]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
LAUNCHER = ("aws.yaml", "gcp.yaml", "on-premise.yaml")
KUBERNETES = ("raycluster.yaml", "rayjob.yaml")
CORES = {"m7i.2xlarge": 8, "m7i.4xlarge": 16, "g6.2xlarge": 8, "n2-standard-8": 8, "n2-standard-16": 16}
CORES |= {"g2-standard-8": 8}
"""Of the clouds' machine types."""


def load(name: str) -> dict[str, Any]:
    """A YAML file of one document."""
    return yaml.safe_load((DEPLOY / name).read_text())


# --- versions ---


def test_the_versions_that_are_installed_satisfy_the_package() -> None:
    wanted = {need.name: need for need in map(Requirement, PROJECT["project"]["dependencies"])}
    for name in ("ray", "torch"):
        assert wanted[name].specifier.contains(PINS[name])


def test_every_version_that_is_named_is_the_pinned_one() -> None:
    found: dict[str, set[str]] = {"python": set(), "ray": set(), "torch": set(), "ctm-rl": set()}
    patterns = {
        "python": r"(?i)\bpython(?:[:=]| )(\d+\.\d+[.\d]*\d)",
        "ray": r"(?:\bray(?:\[\w+\])?==|rayVersion: \"?|rayproject/ray:)([\d.]+\d)",
        "torch": r"\btorch==([\d.]+\d)",
        "ctm-rl": r"/ctm-rl:([\w.]+)",
    }
    for file in FILES:
        for name, pattern in patterns.items():
            found[name] |= set(re.findall(pattern, file.read_text()))
    assert found["ray"] == {PINS["ray"]}
    assert found["torch"] <= {PINS["torch"]}
    assert found["ctm-rl"] == {ctm_rl.__version__}
    # One for all, with its patch version.
    (python,) = found["python"]
    assert python.count(".") == 2
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(python)
    assert python.startswith(PROJECT["tool"]["pyright"]["pythonVersion"] + ".")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_packages_are_installed_in_the_pinned_versions_only(file: Path) -> None:
    text = file.read_text().replace("\\\n", " ")
    installs = [line for line in text.splitlines() if re.search(r"\bpip install\b", line)]
    assert [line for line in installs if not re.search(r"(-c|--constraint) \S*constraints\.txt", line)] == []
    if file.name in ("Containerfile", "setup-node.sh"):
        assert len(installs) == 1
        assert '"ray[default]"' in installs[0]


# --- commands ---


def text_of(file: Path) -> str:
    """The text of a file that commands are looked for in; of a script only its comments, since it is run below."""
    text = file.read_text()
    return text if file.suffix != ".sh" else "".join(re.findall(r"(?m)^ *#.*\n", text))


ALL_COMMANDS = [(file.name, words) for file in FILES for words in commands_in(text_of(file))]
COMPLETE = [(name, words) for name, words in ALL_COMMANDS if len(words) > 1]
"""Commands with arguments; the others are only mentioned."""


@pytest.mark.parametrize(("name", "words"), COMPLETE, ids=[f"{name}-{words[0]}" for name, words in COMPLETE])
def test_a_command_that_is_shown_is_understood(name: str, words: list[str]) -> None:
    understand(words)


def test_commands_are_found_where_they_are() -> None:
    found = {(name, words[0]) for name, words in COMPLETE}
    for name in ("cluster.md", "slurm.sh"):
        assert {(name, "train"), (name, "resume")} <= found
    assert ("rayjob.yaml", "train") in found
    assert sum(name == "cluster.md" for name, _ in COMPLETE) >= 9
    with pytest.raises(UserError, match="num-env-runner"):
        understand(next(commands_in("`ctm-rl train cartpole --num-env-runner 2`")))


# --- Ray's cluster launcher ---


@pytest.mark.parametrize("name", LAUNCHER)
def test_a_launcher_file_passes_rays_own_checks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.chdir(ROOT)
    config = prepare_config(load(name))
    validate_config(config)
    types = config["available_node_types"]
    assert sum(kind["min_workers"] for kind in types.values()) >= 2
    if name != "on-premise.yaml":
        assert sum(kind.get("max_workers", 0) for kind in types.values()) <= config["max_workers"]
    # Nothing of Ray's defaults installs besides.
    for kind in ("head", "worker"):
        (command,) = config[f"{kind}_setup_commands"]
        script = command.split()[1]
        assert config["file_mounts"][script] == "deploy/setup-node.sh"
    mounted = {Path(target).name: source for target, source in config["file_mounts"].items()}
    assert mounted["constraints.txt"] == "constraints.txt"
    made = {"dist", "~/.ray/auth_token"}  # by commands of the guide
    assert [source for source in mounted.values() if source not in made and not Path(source).is_file()] == []
    assert "--head" in " ".join(config["head_start_ray_commands"])


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_a_cloud_has_the_cores_it_says_and_enough_for_the_guides_run(name: str) -> None:
    types = load(name)["available_node_types"]
    for kind in ("cpu-worker", "gpu-worker"):
        node = types[kind]["node_config"]
        assert types[kind]["resources"]["CPU"] == CORES[node.get("InstanceType") or node["machineType"]]
    assert types["gpu-worker"]["resources"]["GPU"] == 1
    nodes = [as_node("head", types["head"]["resources"])]
    for kind, spec in types.items():
        nodes += [as_node(kind, spec["resources"])] * spec.get("min_workers", 0)
    shown = [words for _, words in COMPLETE if words[0] == "train" and "s3://BUCKET/runs" in words]
    assert len(shown) == 2
    for words in shown:
        experiment = understand(words)
        assert experiment is not None
        check_capacity(experiment, name, nodes)


def as_node(name: str, resources: dict[str, Any]) -> Node:
    """A node of so many cores and GPUs."""
    return Node(name, float(resources.get("CPU", 0)), float(resources.get("GPU", 0)), has_package=True)


# --- KubeRay ---


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The Ray cluster in a manifest."""
    spec = manifest["spec"]
    return spec["rayClusterSpec"] if manifest["kind"] == "RayJob" else spec


def groups_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's group, then the workers'."""
    cluster = cluster_of(manifest)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def nodes_of(manifest: dict[str, Any]) -> list[Node]:
    """The nodes that a manifest's cluster has."""
    nodes = []
    for group in groups_of(manifest):
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        cores = float(group["rayStartParams"].get("num-cpus", limits["cpu"]))
        gpus = float(limits.get("nvidia.com/gpu", 0))
        nodes += [Node(container["name"], cores, gpus, has_package=True)] * group.get("replicas", 1)
    return nodes


@pytest.mark.parametrize("name", KUBERNETES)
def test_a_manifest_has_what_kuberay_asks_for(name: str) -> None:
    manifest = load(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"] == {"raycluster.yaml": "RayCluster", "rayjob.yaml": "RayJob"}[name]
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
    cluster = cluster_of(manifest)
    assert cluster["rayVersion"] == PINS["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert set(cluster) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    assert names
    assert len(set(names)) == len(names)
    for group in groups_of(manifest):
        # KubeRay hands them to ray start as they are.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


@pytest.mark.parametrize("name", KUBERNETES)
def test_a_manifests_pods_are_whole(name: str) -> None:
    claim = load("storage.yaml")
    assert (claim["kind"], claim["spec"]["accessModes"]) == ("PersistentVolumeClaim", ["ReadWriteMany"])
    image = f"registry.example.com/ctm-rl:{ctm_rl.__version__}"
    for group in groups_of(load(name)):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["image"] == image
        # A node of Ray counts on all that it has: a pod must not be given less than it may use.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_job_fits_its_cluster_and_its_storage_is_on_the_volume() -> None:
    manifest = load("rayjob.yaml")
    program, *words = shlex.split(manifest["spec"]["entrypoint"])
    assert program == "ctm-rl"
    experiment = understand(words)
    assert experiment is not None
    assert experiment.address == "auto"
    check_capacity(experiment, "the manifest", nodes_of(manifest))
    (head,) = groups_of(manifest)[0]["template"]["spec"]["containers"]
    mounts = [Path(mount["mountPath"]) for mount in head["volumeMounts"]]
    assert experiment.storage is not None
    assert any(Path(experiment.storage).is_relative_to(mount) for mount in mounts)
    assert manifest["spec"]["shutdownAfterJobFinishes"] is True


def test_the_guides_run_fits_the_cluster_that_stays() -> None:
    runs = [words for _, words in COMPLETE if words[0] == "train" and "/storage/runs" in words]
    assert len(runs) >= 2  # the job's, and the guide's
    for words in runs:
        experiment = understand(words)
        assert experiment is not None
        check_capacity(experiment, "the manifest", nodes_of(load("raycluster.yaml")))


def test_the_image_is_slim_and_its_user_is_not_root() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    assert [line for line in lines if re.fullmatch(r"FROM python:[\d.]+-slim", line)]
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert len(users) == 1
    # Kubernetes does not look names up.
    assert int(users[0]) > 0
    assert f"--uid {users[0]} " in (DEPLOY / "Containerfile").read_text()
    assert load("rayjob.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["securityContext"][
        "fsGroup"
    ] == int(users[0])


# --- scripts, among programs that only write down how they were called ---

FAKES = {
    "scontrol": """
if [[ $2 == hostnames ]]; then printf '%s\\n' ${HOSTS:-n1 n2 n3}; exit; fi
echo "NodeName=$3 NodeAddr=$ADDRESS NodeHostName=$3"
""",
    # Every task in a process of its own, as on a node; a signal goes to all of them.
    "srun": """
tasks=1
while [[ $1 == -* ]]; do [[ $1 == --ntasks=* ]] && tasks=${1#*=}; shift; done
trap 'kill $(jobs -p); wait; exit 143' TERM
for ((task = 0; task < tasks; task++)); do "$@" & done
wait -n; code=$?; wait; exit "$code"
""",
    "ray": """
trap 'echo "ray ended" >>"$PLACE/calls"; exit 0' TERM
if [[ $1 == status ]]; then [[ $RAY_AUTH_MODE == token && -s $PLACE/nodes ]]; exit; fi
[[ $* == *"${BROKEN:-nothing}"* ]] && exit 3
echo "${#RAY_AUTH_TOKEN}" >>"$PLACE/nodes"
while :; do sleep 1; done
""",
    "ctm-rl": """
if [[ $* == *--json ]]; then for node in $(cat "$PLACE/nodes"); do printf '{"round_trip_ms": 1.0}'; done; exit; fi
[[ $1 == cluster-check ]] && exit "${CHECK:-0}"
if [[ -n ${LONG:-} ]]; then
    trap '/bin/sleep 0.3; echo "saved" >>"$PLACE/calls"; exit 143' TERM
    for ((i = 0; i < 200; i++)); do sleep 1; done
fi
exit "${TRAIN:-0}"
""",
    "uv": "",
    "curl": "",
}
# In one piece: several write at once.
HEADER = '#!/usr/bin/env bash\nprintf -v line "%q " "$(basename "$0")" "$@"\necho "$line" >>"$PLACE/calls"\n'
SHORT = "#!/bin/sh\nexec /bin/sleep 0.05\n"
RUN = ("train", "cartpole", "--num-env-runners", "23", "--placement", "spread", "--run-dir", "a b")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the programs."""
    (tmp_path / "bin").mkdir()
    for name, body in {**{name: HEADER + body for name, body in FAKES.items()}, "sleep": SHORT}.items():
        program = tmp_path / "bin" / name
        program.write_text(body)
        program.chmod(0o755)
    return tmp_path


def environment(place: Path, **changes: str) -> dict[str, str]:
    """As in a SLURM job of three nodes."""
    slurm = {"SLURM_JOB_ID": "70012", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_NUM_NODES": "3"}
    own = {"PATH": f"{place / 'bin'}:{os.defpath}", "PLACE": str(place), "HOME": str(place), "ADDRESS": "192.0.2.7"}
    return {**own, **slurm, "SLURM_CPUS_PER_TASK": "8", **changes}


@contextlib.contextmanager
def running(place: Path, *arguments: str, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """Has slurm.sh running inside the body, and ends what it leaves behind."""
    command = ["bash", str(DEPLOY / "slurm.sh"), *arguments]
    with (place / "said").open("wb") as said:
        surroundings = environment(place, **changes)
        process = subprocess.Popen(command, env=surroundings, stderr=said, cwd=place, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(place: Path, *arguments: str, **changes: str) -> tuple[int, str]:
    """Runs slurm.sh to its end; returns its exit status and standard error."""
    with running(place, *arguments, **changes) as process:
        status = process.wait(timeout=30)
        said = (place / "said").read_text()
    return status, said


def calls(place: Path) -> list[list[str]]:
    """What was called, in order."""
    return [shlex.split(line) for line in (place / "calls").read_text().splitlines()]


def index_of(called: list[list[str]], *words: str) -> int:
    """Where the first call with these words is."""
    return next(index for index, call in enumerate(called) if set(words) <= set(call))


@pytest.mark.parametrize("name", ["slurm.sh", "setup-node.sh"])
def test_a_script_is_one_that_bash_reads(name: str) -> None:
    subprocess.run(["bash", "-n", str(DEPLOY / name)], check=True)
    assert os.access(DEPLOY / name, os.X_OK)


@pytest.mark.parametrize("status", [0, 7])
def test_slurm_starts_head_then_workers_then_trains_and_ends_what_it_began(place: Path, status: int) -> None:
    assert run(place, *RUN, TRAIN=str(status))[0] == status
    called = calls(place)
    address = "192.0.2.7:20024"
    head = index_of(called, "ray", "start", "--head", "--node-ip-address=192.0.2.7", "--port=20024", "--num-cpus=7")
    check = index_of(called, "ctm-rl", "cluster-check", "--address", address)
    train = index_of(called, "ctm-rl", *RUN, "--address", address)
    workers = [i for i, call in enumerate(called) if call[:2] == ["ray", "start"] and "--head" not in call]
    ends = [i for i, call in enumerate(called) if call == ["ray", "ended"]]
    assert len(workers) == 2
    assert all(f"--address={address}" in called[i] and "--num-cpus=8" in called[i] for i in workers)
    assert head < min(workers) < max(workers) < train
    assert check < train < min(ends)
    assert len(ends) == 3
    first, second = (call for call in called if call[0] == "srun")
    assert {"--nodelist=n1", "--ntasks=1", "--nodes=1", "--cpus-per-task=8"} <= set(first)
    assert {"--nodelist=n2,n3", "--ntasks=2", "--nodes=2", "--cpus-per-task=8"} <= set(second)
    # All with one token, of 32 bytes.
    assert (place / "nodes").read_text().split() == ["64"] * 3
    for i in (check, train):
        understand(called[i][1:])


def test_slurm_needs_no_workers(place: Path) -> None:
    assert run(place, *RUN, SLURM_JOB_NUM_NODES="1", HOSTS="n1")[0] == 0
    assert len([call for call in calls(place) if call[:2] == ["ray", "start"]]) == 1


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"SLURM_JOB_ID": ""}, 2, "no SLURM job"),
        ({"SLURM_CPUS_PER_TASK": ""}, 2, "--cpus-per-task"),
        ({"PATH": os.defpath}, 2, "there is no srun here"),
        ({"HOSTS": "n1 n2"}, 1, "scontrol names 2 of 3 nodes"),
        ({"ADDRESS": "127.0.1.1"}, 1, "do not reach n1 by the address 127.0.1.1"),
        ({"BROKEN": "--head"}, 1, "ray start has ended"),
        ({"BROKEN": "--address="}, 1, "ray start has ended"),
        ({"CHECK": "1"}, 1, ""),
    ],
)
def test_slurm_trains_on_nothing_less_than_the_whole_cluster(
    place: Path, changes: dict[str, str], status: int, says: str
) -> None:
    code, said = run(place, *RUN, **changes)
    assert code == status
    assert says in said
    called = calls(place) if (place / "calls").exists() else []
    assert [call for call in called if call[:2] == ["ctm-rl", "train"]] == []
    started = (place / "nodes").read_text().split() if (place / "nodes").exists() else []
    assert called.count(["ray", "ended"]) == len(started)


def test_slurms_example_fits_the_job_that_it_asks_for() -> None:
    asked = dict(re.findall(r"(?m)^#SBATCH --([\w-]+)=(\d+)$", (DEPLOY / "slurm.sh").read_text()))
    cores = float(asked["cpus-per-task"])
    nodes = [as_node("head", {"CPU": cores - 1}), *[as_node("worker", {"CPU": cores})] * (int(asked["nodes"]) - 1)]
    shown = [words for _, words in COMPLETE if words[0] == "train" and "STORAGE" in words]
    assert len(shown) == 2
    for words in shown:
        experiment = understand(words)
        assert experiment is not None
        assert experiment.num_env_runners == sum(node.cpus for node in nodes)
        check_capacity(experiment, "the job", nodes)


def test_slurm_asks_for_a_command(place: Path) -> None:
    code, said = run(place)
    assert (code, said.count("\n")) == (2, 1)
    assert "sbatch deploy/slurm.sh train" in said


def test_slurm_lets_the_run_save_when_its_time_is_up(place: Path) -> None:
    with running(place, *RUN, LONG="1") as process:
        deadline = time.monotonic() + 20
        while not ((place / "calls").exists() and "ctm-rl train" in (place / "calls").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
    # The cluster was there until the run had saved.
    assert calls(place)[-4:] == [["saved"], *[["ray", "ended"]] * 3]


def test_a_node_is_set_up_with_the_pinned_versions_and_twice_does_no_harm(place: Path) -> None:
    node = place / "a node"
    (node / "dist").mkdir(parents=True)
    wheel = node / "dist" / "ctm_rl-0.1.0-py3-none-any.whl"
    wheel.touch()
    script = node / "setup-node.sh"
    script.write_bytes((DEPLOY / "setup-node.sh").read_bytes())
    for _ in range(2):
        subprocess.run(["bash", str(script), "boto3"], env=environment(place), check=True)
    venv, install = calls(place)[:2]
    assert venv[:2] == ["uv", "venv"]
    assert venv[-1] == str(node / "venv")
    assert install[install.index("--constraint") + 1] == str(node / "constraints.txt")
    assert install[-3:] == ["ray[default]", "boto3", str(wheel)]
    assert len(calls(place)) == 4
    lines = (place / ".bashrc").read_text().splitlines()
    assert lines == [
        f'export PATH="{node}/venv/bin:$PATH"',
        "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0",
    ]
