"""The command line: the options it accepts, and one line for every mistake, with nothing left behind."""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ctm_rl.agents.cluster import session as cluster
from ctm_rl.agents.experiments.serialise import from_json, to_json
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.cli.short_help import HEIGHT, WIDTH
from ctm_rl.configs import load, names

TRAIN = ("train", "cartpole", "--run-dir", "new")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, golden_dir: Path) -> Path:
    """A directory with all kinds of invalid files and runs, for ``place`` to copy."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        write_invalid(golden_dir)
    return folder


@pytest.fixture
def place(place: Path, prepared: Path) -> Path:
    """A working directory with all kinds of invalid files and runs."""
    shutil.copytree(prepared, place, dirs_exist_ok=True)
    return place


def write_invalid(golden_dir: Path) -> None:
    """Fills the working directory with what the command line must refuse."""
    assert main(["import", str(golden_dir / "ctm_cartpole.pt"), "--run-dir", "imported"]) == 0
    assert main(["import", str(golden_dir / "ctm_cartpole.pt"), "--run-dir", "damaged"]) == 0
    tensors = checkpoint.latest(Path("damaged")) / checkpoint.TENSORS_FILE
    os.truncate(tensors, tensors.stat().st_size - 9)
    assert main(["import", str(golden_dir / "ctm_cartpole.pt"), "--run-dir", "no-checkpoint"]) == 0
    checkpoint.latest(Path("no-checkpoint")).rename("elsewhere")
    Path("empty").mkdir()
    Path("file").write_text("nothing")
    Path("broken.json").write_text('{"name": ')
    config = to_json(load("cartpole"))
    Path("wrong.json").write_text(json.dumps({**config, "sead": 2}))
    Path("velocities.json").write_text(json.dumps({**config, "env": {**config["env"], "hide_velocities": True}}))
    Path("out-of-range.json").write_text(json.dumps({**config, "num_learners": -1}))
    Path("syntax.yaml").write_text("name: a\nenv: {id: CartPole-v1\nseed: 1\n")
    Path("field.yaml").write_text("name: a\nenv.id: CartPole-v1\nppo:\n  lr: fast\n")
    Path("object.yaml").write_text("env.id: CartPole-v1\nname: !!python/object/apply:os.mkdir [executed]\n")
    published = (golden_dir / "ctm_cartpole.pt").read_bytes()
    Path("half.pt").write_bytes(published[: len(published) // 2])
    write_published(golden_dir, "settings.pt", iterations=None, d_model="128")
    write_published(golden_dir, "weights.pt", weights=[1])
    write_published(golden_dir, "limit.pt", max_environment_steps=0)
    assert main(["import", str(golden_dir / "ctm_sort.pt"), "--run-dir", "sorter"]) == 0
    write_changed("changed")
    Path("evil.pt").write_bytes(b"cposix\nsystem\n(S'touch executed'\ntR.")


def write_published(golden_dir: Path, name: str, weights: object = None, **changes: object) -> None:
    """A published checkpoint with other weights or settings."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        published = torch.load(golden_dir / "ctm_cartpole.pt", weights_only=True)
    settings = {**vars(published["args"]), **changes}
    weights = published["model_state_dict"] if weights is None else weights
    torch.save({"model_state_dict": weights, "args": argparse.Namespace(**settings)}, name)


def write_changed(name: str) -> None:
    """A run whose configuration is no longer that of its checkpoint."""
    config = to_json(load("cartpole"))
    checkpoint.save(Path(name), 1, {"learner": {}, "experiment": config, "position": {}})
    env = {**config["env"], "id": "CartPole-v0"}
    (Path(name) / "config.json").write_text(json.dumps({**config, "env": env}))


def everything_in(place: Path) -> dict[str, bytes]:
    """All files below a directory, and all directories."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in place.rglob("*")}


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "command": (("trian",), "unknown command 'trian'; did you mean train? Commands: list, train,"),
    "list with arguments": (("list", "all"), "takes no arguments"),
    "no experiment": (
        ("train",),
        "needs an experiment first, such as ctm-rl train cartpole (all are listed by ctm-rl list), or --env ID, --data",
    ),
    "experiment not first": (
        ("train", "--seed", "2", "acrobot"),
        "needs an experiment first, such as ctm-rl train acro",
    ),
    "two experiments": (("train", "cartpole", "--env", "CartPole-v1"), "only one of them is allowed"),
    "experiment": (("train", "cartpol"), "unknown experiment 'cartpol': did you mean cartpole? ("),
    "option": ((*TRAIN, "--model.num-tick", "2"), "unknown option --model.num-tick; did you mean --model.num-ticks?"),
    "environment as experiment": (("train", "CartPole-v1"), "an environment is given as --env CartPole-v1 ("),
    "experiment as command": (
        ("cartpole",),
        "unknown command 'cartpole'; did you mean ctm-rl train cartpole? Commands: ",
    ),
    "option without its group": (
        (*TRAIN, "--num-ticks", "1"),
        "unknown option --num-ticks; did you mean --model.num-t",
    ),
    "option like no other": ((*TRAIN, "--zzz", "1"), "all options are listed by ctm-rl train cartpole --help-all"),
    "option like an alias": ((*TRAIN, "--total-timestep", "1"), "did you mean --budget.env-steps? All are listed by"),
    "option's group": ((*TRAIN, "--ppo", "1"), "unknown option --ppo; it is a group of options, such as --ppo.lr; all"),
    "option of another library": (
        (*TRAIN, "--batch-size", "64"),
        "there is no --batch-size: here it follows from others",
    ),
    "all environments": (
        (*TRAIN, "--num-envs", "8", "--num-env-runners=2"),
        "--num-envs counts all environments, and here 2 runners have their own: give --num-envs-per-env-runner",
    ),
    "argument": ((*TRAIN, "acrobot"), "unexpected argument 'acrobot'"),
    "argument like an option": ((*TRAIN, "ppo.lr=1"), "unexpected argument 'ppo.lr=1'; did you mean --ppo.lr=...?"),
    "long dash": ((*TRAIN, "\u2014seed", "1"), "seed'; did you mean --seed?"),
    "boolean": ((*TRAIN, "--anneal-lr", "maybe"), "--ppo.is-lr-annealed must be True or False, got 'maybe'."),
    "form": (("train", "cartpole", "--print-config", "xml"), "--print-config must be json or yaml, got 'xml'."),
    "seeds after seed": (
        (*TRAIN, "--seed", "1", "2"),
        "--seed takes one seed; several are given as --seeds, got anoth",
    ),
    "seed and seeds": ((*TRAIN, "--seed", "1", "--seeds", "2"), "--seed and --seeds exclude each other"),
    "no seeds": ((*TRAIN, "--seeds"), "--seeds needs at least one whole number, as in --seeds 1 2 3."),
    "equal seeds": ((*TRAIN, "--seeds", "1", "2", "1"), "seeds must differ, got 1 twice."),
    "negative seeds": ((*TRAIN, "--seeds", "-1"), "seeds must be at least 0 and at most 2147483647, got -1."),
    "parallel without seeds": ((*TRAIN, "--parallel", "2"), "parallel has no effect without seeds; leave it out."),
    "seeds printed": (
        (*TRAIN, "--seeds", "1", "--print-config"),
        "--print-config prints one experiment; leave --seeds",
    ),
    "YAML's syntax": (("train", "--config", "syntax.yaml"), "syntax.yaml cannot be read: line 3: "),
    "YAML's field": (("train", "--config", "field.yaml"), "field.yaml, line 4: ppo.lr must be a number, got 'fast'."),
    "YAML's object": (
        ("train", "--config", "object.yaml"),
        "object.yaml cannot be read: line 2: values of the kind tag:",
    ),
    "tune's field": (
        ("tune", "cartpole", "--search", "zzz=choice(1,2)"),
        "not a field of the experiment; ctm-rl train --env CartPole-v1 --help-all lists all of them.",
    ),
    "no value": ((*TRAIN, "--seed"), "--seed needs a value: a whole number"),
    "value's type": ((*TRAIN, "--seed", "x"), "--seed must be a whole number, got 'x'"),
    "fraction": ((*TRAIN, "--seed", "1.5"), "--seed must be a whole number, got '1.5'"),
    "one of two types": ((*TRAIN, "--budget.minutes", "x"), "--budget.minutes must be a number or None, got 'x'"),
    "yes or no": ((*TRAIN, "--model.sync-window=maybe"), "--model.sync-window must be True or False, got 'maybe'"),
    "list": ((*TRAIN, "--model.head-dims", "3", "x"), "got '3 x'"),
    "value's range": ((*TRAIN, "--model.num-ticks", "0"), "model.num_ticks must be at least 1, got 0"),
    "no number": ((*TRAIN, "--ppo.lr", "nan"), "ppo.lr must be above 0, got nan"),
    "choice": ((*TRAIN, "--model.kind", "rnn"), "--model.kind must be one of ctm, lstm, gru, mlp, got 'rnn'"),
    "combination": ((*TRAIN, "--model.num-neurons", "8"), "num_neurons must be at least num_output_sync_neurons"),
    "parts": ((*TRAIN, "--ppo.num-minibatches", "7"), "num_envs_per_env_runner that work: 28 or 35."),
    "config missing": (("train", "--config", "none.json"), "none.json cannot be read: No such file"),
    "config a directory": (("train", "--config", "empty"), "empty cannot be read: Is a directory"),
    "config no JSON": (("train", "--config", "broken.json"), "broken.json is not JSON"),
    "config's field": (
        ("train", "--config", "wrong.json"),
        "sead is not a field of the experiment; did you mean seed?",
    ),
    "config's range": (
        ("train", "--config", "out-of-range.json"),
        "num_learners must be at least 0 and at most 10000, got -1",
    ),
    "config not named": (("train", "--config"), "--config needs a value"),
    "data missing": (("train", "--data", "none.npz"), "--data none.npz: it does not exist; --data takes a folder of"),
    "data without classes": (("train", "--data", "empty"), "--data empty: it holds neither images"),
    "data not named": (("train", "--data"), "--data needs a value: a folder, a file or module:function"),
    "task missing": (("train", "--task", "own_tasks:Nothing"), "--task own_tasks:Nothing: own_tasks has no Nothing"),
    "task's arguments": (
        ("train", "--task", "own_tasks:Brackets", "--env.kwargs", '{"size": 3}'),
        "unexpected keyword argument 'size'",
    ),
    "data and task": (
        ("train", "--data", "empty", "--task", "a:B"),
        "takes one experiment, got --data empty and",
    ),
    "run dir not empty": (("train", "cartpole", "--run-dir", "imported"), "is not empty; name a new directory, or"),
    "run dir a file": (("train", "cartpole", "--run-dir", "file"), "is a file; name a new or empty directory"),
    "run dir in a file": (("train", "cartpole", "--run-dir", "file/a"), "file is a file; name another directory"),
    "run dir not writable": (("train", "cartpole", "--run-dir", "/proc/a", *TRAIN[4:]), "cannot be"),
    "environment": ((*TRAIN, "--env.id", "CartPole-v9"), "It provides versioned environments: [ `v0`, `v1` ]"),
    "environment's module": ((*TRAIN, "--env.id", "nowhere:A-v0"), "No module named 'nowhere'"),
    "environment's name": (("train", "--env", "CartPol-v1", "--run-dir", "new"), "CartPole"),
    "observation space": (
        ("train", "--env", "FrozenLake-v1", "--model.encoder", "conv", "--run-dir", "new"),
        "observation space Discrete(16) is not supported by encoder conv",
    ),
    "velocities": (
        ("train", "--env", "FrozenLake-v1", "--env.wrappers", "hide-velocities", "--run-dir", "new"),
        "velocities can be hidden in a one-dimensional Box only",
    ),
    "wrapper": (
        (*TRAIN, "--env.wrappers", "stager"),
        "there is no wrapper 'stager'; the wrappers are hide-velocities[=INDEX,",
    ),
    "wrapper's value": (
        (*TRAIN, "--env.wrappers", "frame-skip=x"),
        "is given as frame-skip=N (N an integer of at least 1)",
    ),
    "config of another version": (("train", "--config", "velocities.json"), "env.hide_velocities is not a field"),
    "encoder": ((*TRAIN, "--model.encoder", "grid"), "is not supported by encoder grid"),
    "too many runners": ((*TRAIN, "--num-env-runners", "4096"), "need 4096 CPU cores, and this machine has"),
    "too many GPUs": (
        (*TRAIN, "--num-gpus-per-learner", "1", "--num-learners", "32", "--ppo.num-minibatches", "1"),
        "needs 32 GPUs, and this machine has",
    ),
    "address's form": ((*TRAIN, "--address", "somewhere"), "address must be auto or host:port, got 'somewhere'"),
    "address": ((*TRAIN, "--address", "127.0.0.1:9"), "no Ray cluster answers at address 127.0.0.1:9"),
    "address's host": ((*TRAIN, "--address", "no.invalid:6379"), "no Ray cluster answers at address no.invalid:6379"),
    "address's port": ((*TRAIN, "--address", "127.0.0.1:99999"), "no Ray cluster answers at address 127.0.0.1:99999"),
    "check's address": (("cluster-check", "--address", "127.0.0.1:9"), "no Ray cluster answers at address 127.0.0.1:9"),
    "check's address's form": (("cluster-check", "--address", "x"), "address must be auto or host:port, got 'x'"),
    "check's option": (("cluster-check", "--adress", "auto"), "unknown option --adress; did you mean --address?"),
    "storage empty": ((*TRAIN, "--storage", " "), "storage must name a directory or a URL; it is empty"),
    "storage in a file": ((*TRAIN, "--storage", "file/a"), "file/a cannot be used: Cannot create directory"),
    "storage of no kind": (
        (*TRAIN, "--storage", "s4://a"),
        "Protocol not known: s4; allowed are paths, and URLs such",
    ),
    "storage beside the run": ((*TRAIN, "--storage", "."), "itself is; name another place, or none"),
    "storage of another run": (
        ("train", "cartpole", "--storage", ".", "--run-dir", "new/imported"),
        "already has a run imported; name another --run-dir, or continue that run: ctm-rl resume",
    ),
    "resume a URL": (("resume", "file:///nowhere/a"), "file:///nowhere/a has no complete checkpoint"),
    "resume no run in a URL": (("resume", "memory://bucket"), "memory://bucket names no run in a storage"),
    "resume's place": (("resume", "imported", "--run-dir", "new"), "and imported is local; leave it out"),
    "resume nothing": (("resume",), "ctm-rl: resume needs DIR"),
    "resume nowhere": (("resume", "none"), "none is not a run directory: there is no such directory"),
    "resume no run": (("resume", "empty"), "empty is not a run directory: it has no config.json"),
    "resume without checkpoint": (("resume", "no-checkpoint"), "no-checkpoint has no checkpoint"),
    "resume damaged": (("resume", "damaged"), "tensors.safetensors has"),
    "resume imported": (("resume", "imported"), "there is no training to resume"),
    "resume's option": (("resume", "imported", "--seed", "2"), "unknown option --seed"),
    "resume's budget": (("resume", "imported", "--budget.minutes", "0"), "budget.minutes must be above 0"),
    "evaluate nothing": (("evaluate",), "ctm-rl: evaluate needs DIR"),
    "evaluate two": (("evaluate", "imported", "damaged"), "unexpected argument 'damaged'"),
    "evaluate nowhere": (("evaluate", "none"), "none is not a run directory"),
    "evaluate damaged": (("evaluate", "damaged"), "tensors.safetensors has"),
    "no episodes": (("evaluate", "imported", "--episodes", "0"), "episodes must be at least 1, got 0"),
    "seed": (("evaluate", "imported", "--seed", "-1"), "seed must be at least 0 and at most 2147483647, got -1"),
    "device's name": (("evaluate", "imported", "--device", "tpu"), "device must be cpu, cuda or cuda:N, got 'tpu'"),
    "device": (("evaluate", "imported", "--device", "cuda:99"), "device 'cuda:99' does not exist"),
    "import nothing": (("import", "--run-dir", "new"), "ctm-rl: import needs FILE"),
    "import nowhere": (("import", "file"), "ctm-rl: import needs --run-dir DIR"),
    "import missing": (("import", "none.pt", "--run-dir", "new"), "no checkpoint file at none.pt"),
    "import anything": (("import", "wrong.json", "--run-dir", "new"), "wrong.json is"),
    "import a program": (("import", "evil.pt", "--run-dir", "new"), "evil.pt is"),
    "import half a file": (
        ("import", "half.pt", "--run-dir", "new"),
        "half.pt is not a PyTorch checkpoint, is damaged",
    ),
    "import of wrong settings": (("import", "settings.pt", "--run-dir", "new"), "the args do not describe the weights"),
    "import of wrong weights": (("import", "weights.pt", "--run-dir", "new"), "must hold tensors by name"),
    "import of a wrong limit": (("import", "limit.pt", "--run-dir", "new"), "max_episode_steps must be at least 1"),
    "train imported": (("train", "--config", "sorter/config.json"), "can be evaluated, not trained"),
    "resume changed": (("resume", "changed"), "says env.id 'CartPole-v0', and the checkpoint was trained with"),
    "home": (("evaluate", "~no-such-user/a"), "Name the directory itself"),
    "address's letters": ((*TRAIN, "--address", "..:6379"), "no Ray cluster answers at address ..:6379"),
    "environment's arguments": (
        ("train", "--env", "ctm_rl.envs:ctm_rl/Wrapped-v0", "--run-dir", "new"),
        "cannot be made",
    ),
    "steps without end": ((*TRAIN, "--budget.env-steps", "9" * 40), "budget.env_steps must be at least 1 and at most"),
    "seed too large": (("evaluate", "imported", "--seed", str(2**64)), "seed must be at least 0 and at most"),
    "import over a run": (("import", "evil.pt", "--run-dir", "imported"), "is not empty"),
}


@pytest.mark.parametrize("arguments, message", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_in_one_line_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    before = everything_in(place)
    capsys.readouterr()
    assert main(arguments) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("ctm-rl: ")
    assert error.count("\n") == 1
    assert message in error
    assert everything_in(place) == before
    assert Path.cwd() == place


@pytest.fixture
def listener() -> Iterator[str]:
    """The address of a server that is not Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def nodes_of(*cpus: float) -> str:
    """A probe that reports nodes with so many CPU cores."""
    nodes = [
        {"address": f"10.0.0.{index}", "resources": {"CPU": count}, "has_package": True}
        for index, count in enumerate(cpus)
    ]
    return f"print('NODES' + {json.dumps(nodes)!r})"


SAYS = "import sys; print({!r}, file=sys.stderr); sys.exit(1)"


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (
            "import time; time.sleep(60)",
            "is not a Ray cluster that this process can join; check that it is the port",
        ),
        (
            SAYS.format("RuntimeError: This node is not in the cluster"),
            "(RuntimeError: This node is not in the cluster)",
        ),
        (SAYS.format("RPC error: Missing authorization header"), "set RAY_AUTH_MODE=token"),
        (
            SAYS.format("gcs_client.cc:1: Unauthenticated: InvalidAuthToken") + "; time.sleep(60)",
            "set RAY_AUTH_MODE=token",
        ),
        (
            SAYS.format("Token authentication is enabled but Ray couldn't find an authentication token."),
            "set RAY_AUTH_MODE=token",
        ),
        # Ray has found the token by itself and continues.
        (f"print('Token authentication is enabled. Set RAY_AUTH_MODE=disabled'); {nodes_of(3.0)}", " has 3; ask for"),
        (SAYS.format("ConnectionError: Could not find any running Ray instance."), "found no Ray cluster on this mach"),
        (nodes_of(3.0), " has 3; ask for fewer."),
        (nodes_of(1.0, 2.0), " has 3 (10.0.0.0 1, 10.0.0.1 2); ask for fewer."),
        (nodes_of(*[0.1] * 10), "10.0.0.7 0.1, 2 more nodes); ask for fewer."),
        (nodes_of(1.9, 1.9, 1.9), "num_cpus_per_env_runner 1 must be free on one node, and 3 of 4 fit: the cluster at"),
        (nodes_of(*[0.9] * 5), "must be free on one node, and it fits on no node"),
        (nodes_of(8.0), "needs 1 GPUs, and the cluster at"),
    ],
)
def test_an_unusable_cluster_is_reported_in_one_line(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    listener: str,
    probe: str,
    message: str,
) -> None:
    monkeypatch.setattr(cluster, "_PROBE", probe)
    # Only a probe that is silent is waited for; the others must have the time to start.
    monkeypatch.setattr(cluster, "_JOIN_SECONDS", 0.1 if probe.startswith("import time") else 20.0)
    capsys.readouterr()
    options = ("--num-env-runners", "4", "--num-learners", "1", "--num-gpus-per-learner", "1")
    assert main([*TRAIN, "--address", listener, *options]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    assert message in error
    assert not Path("new").exists()


@pytest.mark.parametrize(
    "arguments", [("--help",), (), ("train", "--help"), ("train", "cartpole", "--help"), ("list",), ("--version",)]
)
def test_help_loads_neither_torch_nor_ray(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys; from ctm_rl.cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 10 * bool({'torch', 'ray', 'gymnasium', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout) > 5


def test_help_lists_every_field_and_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "cartpole", "--help-all"]) == 0
    text = capsys.readouterr().out
    for name in ("--model.num-ticks", "--ppo.lr", "--budget.env-steps", "--num-env-runners", "--address", "--env.id"):
        assert name in text
    for command in ("resume", "evaluate", "import", "cluster-check"):
        assert main([command, "--help"]) == 0
        assert f"usage: ctm-rl {command}" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*names(), "--env=Acrobot-v1"])
def test_short_help_fits_one_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", name, "--ppo.lr", "nonsense", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= HEIGHT
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith("usage: ctm-rl train")
    assert len([line for line in lines if line.startswith("  --")]) == 15


def test_short_help_shows_the_values_of_the_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "train"]) == 0
    assert "--help-all" in capsys.readouterr().out
    assert main(["train", "parity", "-h"]) == 0
    rows = [line.split(maxsplit=2)[:2] for line in capsys.readouterr().out.splitlines()]
    parity = load("parity")
    assert ["--budget.env-steps", str(parity.budget.env_steps)] in rows
    assert ["--model.num-ticks", str(parity.model.num_ticks)] in rows


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize("name", ["cartpole", "qa-mnist", "minigrid-memory"])
def test_a_printed_experiment_goes_back_in(
    name: str, form: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("--total-timesteps", "1e6", "--learning-rate", "1e-5", "--seed", "1_0")
    assert main(["train", name, *changes, f"--print-config={form}"]) == 0
    text = capsys.readouterr().out
    Path(f"printed.{form}").write_text(text)
    assert main(["train", "--config", f"printed.{form}", "--print-config"]) == 0
    experiment = from_json(json.loads(capsys.readouterr().out))
    assert (experiment.name, experiment.budget.env_steps, experiment.seed) == (name, 1_000_000, 10)
    assert main(["train", "--config", f"printed.{form}", "--print-config", form]) == 0
    assert capsys.readouterr().out == text
    assert not Path("runs").exists()


def test_list_has_a_line_for_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("cartpole", "--model.num-ticks", "5"), lambda run: run.model.num_ticks == 5),
        (("cartpole", "--model.num_ticks=5"), lambda run: run.model.num_ticks == 5),
        (("cartpole", "--model.sync-window"), lambda run: run.model.sync_window),
        (("cartpole", "--model.sync-window", "True"), lambda run: run.model.sync_window),
        (("cartpole-window", "--model.no-sync-window"), lambda run: not run.model.sync_window),
        (("cartpole-window", "--model.sync-window", "false"), lambda run: not run.model.sync_window),
        (("cartpole-window", "--model.sync-window=False"), lambda run: not run.model.sync_window),
        (("cartpole", "--model.head-dims", "8", "9"), lambda run: run.model.head_dims == (8, 9)),
        (("cartpole", "--model.kind", "lstm", "--ppo.lr", "3e-4"), lambda run: run.ppo.lr == 3e-4),
        (("cartpole", "--budget.minutes", "1.5"), lambda run: run.budget.minutes == 1.5),
        (("cartpole", "--budget.minutes", "None"), lambda run: run.budget.minutes is None),
        (("--env", "Acrobot-v1", "--seed", "4"), lambda run: (run.env.id, run.seed) == ("Acrobot-v1", 4)),
        (("--seed", "4", "--env=Acrobot-v1"), lambda run: (run.env.id, run.seed) == ("Acrobot-v1", 4)),
        (("--config", "a.json", "--seed", "4"), lambda run: (run.name, run.seed) == ("cartpole", 4)),
    ],
)
def test_any_field_is_changed_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: Callable[[Any], bool]
) -> None:
    from ctm_rl.agents.runs import train_and_resume as run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("a.json").write_text(json.dumps(to_json(load("cartpole"))))
    trained = []
    monkeypatch.setattr(run, "train", lambda experiment, progress: trained.append(experiment) or tmp_path)
    assert main(["train", *arguments]) == 0
    assert expected(trained[0])
    assert trained[0].run_dir is None  # a name is chosen when the directory is created
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_errors_of_our_own_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ctm_rl.agents.runs import train_and_resume as run

    def fail(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(run, "train", fail)
    with pytest.raises(ValueError, match="a bug"):
        main(["train", "cartpole"])
