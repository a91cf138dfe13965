"""Trains the runs of the zoo and packs them into ``ctm_rl/zoo``, or packs runs that exist.

``python scripts/make_zoo.py NAME ...`` trains each of the named entries (all of them without a name) with the seeds in
``RECIPES``, into ``--runs DIR``, and packs the best seed. ``python scripts/make_zoo.py --from RUN --from RUN NAME``
packs the best of runs that have been trained so. An entry replaces the one before only if it is not below its floor.
"""

import argparse
import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import ctm_rl
from ctm_rl.agents.bench.machine import describe_circumstances
from ctm_rl.agents.evaluation.answers import BATCH_SIZE
from ctm_rl.agents.evaluation.evaluate import evaluate
from ctm_rl.agents.evaluation.load import load_trained
from ctm_rl.agents.evaluation.run_environment import environment_of
from ctm_rl.agents.experiments.serialise import AnyExperiment, to_json
from ctm_rl.agents.run_directory.directory import CONFIG_FILE, METRICS_FILE, config_of, read_config
from ctm_rl.agents.run_directory.made_with import MADE_WITH_FILE
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import read_best
from ctm_rl.cli.choose import read_experiment
from ctm_rl.errors import UserError
from ctm_rl.inference.load_model import MODEL_ENTRY
from ctm_rl.inference.policy import POLICY_ENTRY, Policy
from ctm_rl.zoo.entries import FOLDER, PREFIX, RESULTS_FILE

MAX_BYTES = 8_000_000
"""Largest size of all entries together."""
NUM_EPISODES, NUM_SAMPLES = 100, 1000
"""What an entry is evaluated on: episodes of a policy, samples of a model that answers."""
NUM_COMPARED = 1000
"""Steps, or samples, at which weights in half precision must give the same actions or answers."""
MAX_DIFFERENCE = 0.01
"""How far actions that are numbers may differ then."""
CHOOSING_SEED, CHOOSING_FACTOR = 1, 3
"""The best of several runs is chosen by other episodes or samples than those of its results, and by more of them."""
MAX_LINES = 100
"""Lines of metrics that are kept."""
MAX_SHOWN = 3
"""Differing fields in a message."""
NUM_DIGITS = 6
"""Significant digits of metrics that are kept."""
_PACKAGES = ("python", "ctm-rl", "torch", "ray", "gymnasium", "numpy")
"""What versions are kept of."""
_FREE = (
    *("seed", "run_dir", "logger", "num_threads", "video_every"),
    *("keep_checkpoints", "checkpoint_minutes", "checkpoint_iterations"),
)
"""Fields of an experiment that may differ from the recipe."""


class Recipe(NamedTuple):
    """How an entry is trained, and how good it must be."""

    measure: str
    """The result of ``evaluate`` that counts; the largest is the best."""
    floor: float
    """Its smallest value."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds, of which the best is packed."""
    arguments: tuple[str, ...] = ()
    """Arguments of ``ctm-rl train NAME``, beside the seed."""

    @property
    def is_acting(self) -> bool:
        """Whether it is a policy; otherwise it is a model that answers."""
        return self.measure == "episode_return_mean"


RECIPES = {
    "acrobot": Recipe("episode_return_mean", -90.0),
    "cartpole": Recipe("episode_return_mean", 490.0),
    "mazes": Recipe("accuracy_whole", 0.85, seeds=(1,)),
    "minigrid-doorkey": Recipe("episode_return_mean", 0.95),
    "minigrid-memory": Recipe("episode_return_mean", 0.95, seeds=(1,)),
    "mnist": Recipe("accuracy", 0.96, seeds=(1,)),
    "parity": Recipe("accuracy_whole", 0.95, seeds=(1,)),
    "pendulum": Recipe("episode_return_mean", -250.0, seeds=(1,)),
    "qa-mnist": Recipe("accuracy", 0.90, seeds=(1,)),
    "sorting": Recipe("accuracy_whole", 0.80, seeds=(1,)),
}
"""All entries. Policies are evaluated with their most probable actions."""


def train(name: str, recipe: Recipe, folder: Path) -> list[Path]:
    """Trains an entry with all of its seeds, one after the other; what is there already is not trained again.

    Args:
        name: of the entry, and of its experiment.
        recipe: how it is trained.
        folder: gets a run's directory for each seed.

    Returns:
        The runs' directories.
    """
    runs = []
    for seed in recipe.seeds:
        run = folder / f"{name}-seed-{seed}"
        if not run.exists():
            command = [*command_of(name, recipe, seed), "--run-dir", str(run)]
            subprocess.run([sys.executable, "-m", "ctm_rl", *command[1:]], check=True)
        runs.append(run)
    return runs


def command_of(name: str, recipe: Recipe, seed: int | None) -> list[str]:
    """The command that trains an entry."""
    return ["ctm-rl", "train", name, "--seed", str(seed), *recipe.arguments]


def pack(name: str, recipe: Recipe, runs: Sequence[Path], target: Path) -> dict[str, Any]:
    """Writes the best of some runs as an entry of the zoo.

    Args:
        name: of the entry.
        recipe: how it was trained, and how good it must be.
        runs: their directories.
        target: the entry's directory, which is replaced.

    Returns:
        The entry's results.

    Raises:
        UserError: a run was not trained so, the best one is below the floor, or the zoo would become too large.
    """
    for run in runs:
        check_recipe(name, recipe, run)
    run, place = best_of(runs, recipe)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
        entry = Path(scratch) / name
        results = write_entry(name, recipe, run, place, entry)
        value = results["evaluation"][recipe.measure]
        if value < recipe.floor:
            raise UserError(f"{place} has {recipe.measure} {value:.4g}, below the floor of {name}, {recipe.floor:g}.")
        others = [folder for folder in target.parent.iterdir() if folder.name not in (name, Path(scratch).name)]
        num_bytes = sum(map(size_of, [entry, *others]))
        if num_bytes > MAX_BYTES:
            raise UserError(f"with {name} the zoo would have {num_bytes:,} bytes, and may have {MAX_BYTES:,}.")
        shutil.rmtree(target, ignore_errors=True)
        entry.rename(target)
    return results


def best_of(runs: Sequence[Path], recipe: Recipe) -> tuple[Path, Path]:
    """The best checkpoint of some runs, after its run."""
    places = [(run, place) for run in runs for place in candidates(run)]
    if len(places) == 1:
        return places[0]

    def value(pair: tuple[Path, Path]) -> float:
        return evaluated(pair[1], recipe, CHOOSING_SEED, CHOOSING_FACTOR)[recipe.measure]

    return max(places, key=value)


def candidates(run: Path) -> list[Path]:
    """The checkpoints of a run that may be packed: the last one, and the best one if it is another."""
    last, best = store.latest(run), read_best(run)
    is_last = best is None or store.iteration_of(best.path) == store.iteration_of(last)
    return [last] if best is None or is_last else [last, best.path]


def check_recipe(name: str, recipe: Recipe, run: Path) -> None:
    """Refuses a run that the recipe does not make, or that is not finished.

    Raises:
        UserError: it names the fields that differ, or the steps.
    """
    made = dict(flat(to_json(read_experiment("train", command_of(name, recipe, 0)[2:]))))
    there = dict(flat(to_json(read_config(run))))
    differing = [key for key in there if key not in _FREE and there[key] != made.get(key)]
    if differing:
        shown = ", ".join(f"{key} {there[key]!r} and not {made.get(key)!r}" for key in differing[:MAX_SHOWN])
        shown += f", and {len(differing) - MAX_SHOWN} more fields differ" if len(differing) > MAX_SHOWN else ""
        raise UserError(f"{run} is not made by the recipe of {name}: it has {shown}; change RECIPES or the run.")
    reached = json.loads((run / METRICS_FILE).read_text().splitlines()[-1])["env_steps"]
    if reached < made["budget.env_steps"]:
        raise UserError(f"{run} is not finished: {reached:,} of {made['budget.env_steps']:,} steps; resume it first.")


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values of nested dictionaries, with their full names."""
    for key, value in values.items():
        if isinstance(value, dict) and not key.endswith("kwargs"):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def evaluated(place: Path, recipe: Recipe, seed: int, factor: int = 1) -> dict[str, Any]:
    """The results of a checkpoint or an entry, on as many times the usual number of episodes or samples."""
    num_episodes = factor * (NUM_EPISODES if recipe.is_acting else NUM_SAMPLES)
    return evaluate(place, episodes=num_episodes, deterministic=recipe.is_acting, seed=seed)


def write_entry(name: str, recipe: Recipe, run: Path, place: Path, entry: Path) -> dict[str, Any]:
    """Writes an entry, in half precision where that does not change what it does; returns its results."""
    experiment = shipped(read_config(run))
    lines = [json.loads(line) for line in (run / METRICS_FILE).read_text().splitlines()]
    iteration = store.iteration_of(place)
    (entry / store.FOLDER).mkdir(parents=True)
    (entry / CONFIG_FILE).write_text(json.dumps(config_of(experiment), indent=1) + "\n")
    (entry / METRICS_FILE).write_text("".join(json.dumps(rounded(line)) + "\n" for line in thinned(lines)))
    if (run / MADE_WITH_FILE).is_file():
        shutil.copyfile(run / MADE_WITH_FILE, entry / MADE_WITH_FILE)
    learned = dict(trained_module(run, place).named_parameters())
    state, target = store.load(place), store.path_of(entry, iteration)
    store.write(target, slim(state, experiment, set(learned)))
    num_differing = compare(run, place, entry)
    if num_differing:
        shutil.rmtree(entry / store.FOLDER)
        store.write(target, slim(state, experiment, set()))
    reached = next(line for line in reversed(lines) if line["iteration"] <= iteration)
    options = ["--deterministic"] if recipe.is_acting else ["--episodes", str(NUM_SAMPLES)]
    circumstances = describe_circumstances(shlex.join(command_of(name, recipe, experiment.seed)))
    versions = {**circumstances["versions"], "ctm-rl": ctm_rl.__version__}  # of this checkout, installed or not
    circumstances["versions"] = {package: versions[package] for package in _PACKAGES}
    results = {
        "name": name,
        "num_parameters": sum(parameter.numel() for parameter in learned.values()),
        "weights": "float32" if num_differing else "float16",
        "half_precision": {"compared": NUM_COMPARED, "differing": num_differing},
        "training": {
            "command": circumstances.pop("command"),
            "iteration": iteration,
            "env_steps": reached["env_steps"],
            "seconds": reached["seconds"],
        },
        "measure": recipe.measure,
        "evaluation": {
            "command": shlex.join(["ctm-rl", "evaluate", f"{PREFIX}{name}", *options]),
            **rounded(evaluated(entry, recipe, seed=0)),
        },
        "circumstances": circumstances,
    }
    (entry / RESULTS_FILE).write_text(json.dumps(results, indent=1) + "\n")
    return results


def shipped(experiment: AnyExperiment) -> AnyExperiment:
    """An experiment without the places of the machine that it was trained on."""
    return dataclasses.replace(experiment, run_dir=None, storage=None, address=None, placement=None)


def trained_of(run: Path, place: Path) -> Any:
    """The policy or model of a checkpoint."""
    return load_trained(run, place, torch.device("cpu"))[1]


def trained_module(run: Path, place: Path) -> torch.nn.Module:
    """The network of a checkpoint."""
    trained = trained_of(run, place)
    return trained.agent if isinstance(trained, Policy) else trained


def slim(state: dict[str, Any], experiment: AnyExperiment, halved: Collection[str]) -> dict[str, Any]:
    """The part of a checkpoint that an entry has: what describes the model.

    Args:
        state: the content of the checkpoint.
        experiment: what was trained.
        halved: the names of weights that are written in half precision; statistics and indices never are.
    """
    (key,) = {POLICY_ENTRY, MODEL_ENTRY} & set(state)
    weights: dict[str, torch.Tensor] = state[key]["weights"]
    halves = {name: store.Half(value) if name in halved else value for name, value in weights.items()}
    return {"experiment": config_of(experiment), key: {**state[key], "weights": halves}}


def thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most ``MAX_LINES`` lines, about evenly spaced, with the last one; of neighbours those with the most values."""

    def num_values(index: int) -> int:
        return sum(value is not None for value in lines[index].values())

    groups = np.array_split(np.arange(len(lines) - 1), MAX_LINES - 1)
    chosen = [max(group.tolist(), key=num_values) for group in groups if len(group)]
    return [lines[index] for index in [*chosen, len(lines) - 1]]


def rounded(value: Any) -> Any:
    """Nested values with numbers of ``NUM_DIGITS`` significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{NUM_DIGITS}g}") if np.isfinite(value) else None
    return value


def compare(run: Path, place: Path, entry: Path) -> int:
    """How many of ``NUM_COMPARED`` actions or answers of an entry differ from those of its run's checkpoint."""
    one, other = trained_of(run, place), trained_of(entry, entry)
    if isinstance(one, Policy):
        return compare_policies(one, other, environment_of(run))
    environment = environment_of(run, num_envs=BATCH_SIZE)
    num_differing = 0
    for _ in range(NUM_COMPARED // BATCH_SIZE):
        observations, _ = environment.reset()
        first, second = (model.answer(observations).classes.reshape(BATCH_SIZE, -1) for model in (one, other))
        num_differing += int((first != second).any(1).sum())
    environment.close()
    return num_differing


def compare_policies(one: Policy, other: Policy, environment: Any) -> int:
    """How many most probable actions differ, on the observations that the first policy comes to."""
    num_differing, is_over = 0, True
    observation = states = None
    for step in range(NUM_COMPARED):
        if is_over:
            observation, _ = environment.reset(seed=step)
            states = one.initial_state(), other.initial_state()
        assert states is not None
        action, first = one.act(observation, states[0], deterministic=True)
        second_action, second = other.act(observation, states[1], deterministic=True)
        states = first, second
        num_differing += not is_alike(action, second_action)
        observation, _, is_terminated, is_truncated, _ = environment.step(action)
        is_over = is_terminated or is_truncated
    environment.close()
    return num_differing


def is_alike(action: Any, other: Any) -> bool:
    """Whether two actions are the same choice, or numbers that half precision does not tell apart."""
    return bool(np.allclose(action, other, rtol=0, atol=MAX_DIFFERENCE if np.asarray(action).dtype.kind == "f" else 0))


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains or packs entries; returns the exit code."""
    parser = argparse.ArgumentParser(description="Trains the runs of the zoo and packs them, or packs runs that exist.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"entries: {', '.join(RECIPES)}; none: all")
    parser.add_argument(
        "--from",
        dest="runs",
        action="append",
        type=Path,
        default=[],
        metavar="RUN",
        help="a run that exists, of the one entry that is named; may be given several times",
    )
    parser.add_argument(
        "--runs",
        dest="folder",
        type=Path,
        default=Path("runs", "zoo"),
        metavar="DIR",
        help="where runs are trained; those that are there are not trained again",
    )
    parser.add_argument("--zoo", type=Path, default=FOLDER, metavar="DIR", help="where entries are written")
    options = parser.parse_args(arguments)
    names = options.names or list(RECIPES)
    unknown = [name for name in names if name not in RECIPES]
    if unknown or (options.runs and len(names) != 1):
        parser.error(f"unknown entry {unknown[0]}" if unknown else "--from RUN takes the name of one entry")
    try:
        for name in names:
            recipe = RECIPES[name]
            runs = options.runs or train(name, recipe, options.folder)
            print(f"{name}: {describe(pack(name, recipe, runs, options.zoo / name))}", flush=True)
    except (UserError, subprocess.CalledProcessError) as error:
        print(f"make_zoo: {error}", file=sys.stderr)
        return 1
    return 0


def describe(results: dict[str, Any]) -> str:
    """An entry's results in one line."""
    value = results["evaluation"][results["measure"]]
    return (
        f"{results['measure']} {value:.4g}, {results['num_parameters']:,} parameters in {results['weights']} "
        f"({results['half_precision']['differing']} of {NUM_COMPARED} differ in half precision)"
    )


if __name__ == "__main__":
    sys.exit(main())
