"""Damaged and foreign files: every loader refuses them in one line, or what it has read is well-formed.

2,000 inputs, made by a seed: none may end in a traceback, hang, run a program, or take much memory, and none may be
accepted unless the change cannot matter or is of one of the ``ALLOWED`` classes.
"""

import argparse
import dataclasses
import faulthandler
import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from damaged_files import Checkpoint, damage_archive, damage_bytes, damage_path, damage_tree, differences
from image_files import random_images, write_cifar, write_folder, write_idx, write_parquet
from paths import GOLDEN, TESTS
from PIL import Image

from ctm_rl.agents.evaluation.load import load_trained
from ctm_rl.agents.experiments.serialise import to_json
from ctm_rl.agents.run_directory.directory import load_config, read_config
from ctm_rl.agents.runs.train_and_resume import load_training_state
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.published import OfficialModel, load_official
from ctm_rl.envs.data.human_labels import read_human_labels
from ctm_rl.envs.data.images import EncodedImages, ImageSet, as_array
from ctm_rl.envs.data.open_dataset import open_images
from ctm_rl.envs.tasks.maze_folder import read_mazes
from ctm_rl.errors import MAX_MESSAGE, UserError
from ctm_rl.inference.policy import Policy, describe
from ctm_rl.models.answering import ContinuousThoughtMachine

NUM_INPUTS, NUM_BY_DEFAULT = 2_000, 100
SECONDS = 30
"""How long one input may take, on a busy machine."""
EXTRA_MB = 500
"""How much memory all of them may take above what the loaders need."""
PUBLISHED = ("ctm_sort", "ctm_cartpole", "lstm_parity", "ctm_parity_pairing_norm_nlm")
ALLOWED = {
    "other settings that make an experiment, whose fields have types and defaults": r"experiment/.*",
    "a field left out takes its default": (
        r"((policy|model)/)?config/\w+|position/memory/num_faults|learner/playing"
        r"|learner/optimizers/.*/(foreach|fused|amsgrad|maximize|capturable|differentiable|decoupled_weight_decay)"
    ),
    "other episodes in the mean": r"position/memory/(returns|lengths)",
    "a value that is not known": (
        r"position/memory/tested/\w+|.*/python/gauss|.*/cuda|learner/counters/.*/latest_merged"
    ),
    "a parameter has no moments yet": r"learner/optimizers/default_policy_default_optimizer/state/\d+",
    "another number of processes": r"learner/(playing|generators/(learners|env_runners))(/\d+)*",
    "a published setting by which normalisation is left out": r"weights/core\.nlm\.layers\.\d\.norm\.\w+",
    "the count of something new or unknown": r"learner/counters/.*",
}
"""Classes of accepted changes beside finite numbers, flags and texts of the same types and shapes in place of others:
where they may be, as names of entries."""


class Target(NamedTuple):
    """A loader, with files that it reads."""

    name: str
    write: Callable[[Path], object]
    """Writes whole files into a directory."""
    damage: Callable[[random.Random, Path], str]
    """Damages them and returns how."""
    read: Callable[[Path], Any]
    """Calls the loader and returns a tree of what it has read."""


class Hang(BaseException):
    """An input took too long; nothing catches it."""


# Checkpoints of runs


def checkpoint_target(kind: str, purpose: str) -> Target:
    """A run's newest checkpoint, for evaluation or for resuming."""
    run = GOLDEN / "runs" / kind
    name = "iteration-000002"
    whole = Checkpoint(run / store.FOLDER / name)
    others = Checkpoint(GOLDEN / "runs" / {"acting": "answering", "answering": "acting"}[kind] / store.FOLDER / name)

    def write(place: Path) -> None:
        shutil.copytree(run / store.FOLDER, place / store.FOLDER)
        shutil.copyfile(run / "config.json", place / "config.json")

    def damage(rng: random.Random, place: Path) -> str:
        folder = place / store.FOLDER / name
        file = folder / rng.choice((store.STATE_FILE, store.TENSORS_FILE))
        way = rng.choice(("sealed",) * 7 + ("bytes", "path", "head", "kind"))
        if way == "bytes":
            return damage_bytes(file, rng)
        if way == "path":
            return damage_path(file, rng)
        changed = whole.copy()
        if way == "sealed":
            what = changed.damage(rng)
            changed.write(folder)
        elif way == "head":
            what = damage_tree(changed.head, rng)
            changed.write(folder, is_sealed=False)
        else:
            what = f"the other kind of run, {rng.choice(('whole', 'state', 'tensors'))}"
            changed.head = changed.head if what.endswith("tensors") else others.head
            changed.tensors = changed.tensors if what.endswith("state") else others.tensors
            changed.write(folder)
        return f"{way}: {what}"

    def read(place: Path) -> Any:
        if purpose == "evaluate":
            _, trained, _ = load_trained(place, place, torch.device("cpu"))
            if isinstance(trained, Policy):
                return {**describe(trained.agent), "layout": 0, "actions": repr(trained.actions)}
            assert isinstance(trained, ContinuousThoughtMachine)
            return {"config": dataclasses.asdict(trained.config), "weights": trained.state_dict()}
        return load_training_state(place, read_config(place))[1]

    return Target(f"{purpose} {kind}", write, damage, read)


# Configurations


def config_target(kind: str) -> Target:
    """A run's configuration, or one given as ``--config``."""

    def write(place: Path) -> None:
        place.mkdir()
        shutil.copyfile(GOLDEN / "runs" / kind / "config.json", place / "config.json")

    def damage(rng: random.Random, place: Path) -> str:
        file = place / "config.json"
        if rng.random() < 0.3:
            return rng.choice((damage_bytes, damage_path))(file, rng)
        content = json.loads(file.read_bytes())
        what = damage_tree(content, rng)
        file.write_text(json.dumps(content))
        return what

    return Target(
        f"config {kind}", write, damage, lambda place: {"experiment": to_json(load_config(place / "config.json"))}
    )


# Published checkpoints


def published_target(name: str) -> Target:
    """A file of the official code."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(GOLDEN / f"{name}.pt", weights_only=True)

    def write(place: Path) -> None:
        place.mkdir()
        shutil.copyfile(GOLDEN / f"{name}.pt", place / "a.pt")

    def damage(rng: random.Random, place: Path) -> str:
        way = rng.random()
        if way < 0.4:
            return (damage_bytes if way < 0.33 else damage_path)(place / "a.pt", rng)
        changed = {
            "model_state_dict": dict(content["model_state_dict"]),
            "args": argparse.Namespace(**vars(content["args"])),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of names that are twice in an archive
            return damage_archive(place / "a.pt", changed, rng, place.parent / "executed")

    def read(place: Path) -> Any:
        official: OfficialModel = load_official(place / "a.pt")
        used = dataclasses.asdict(official.model.config)  # pyright: ignore[reportArgumentType]
        return {"config": used, "weights": official.model.state_dict()}

    return Target(f"published {name}", write, damage, read)


# Data sets


def image_target(name: str, dataset: str, write: Callable[[Path], object]) -> Target:
    """Images in one of the formats that are read."""

    def read(place: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of images that cannot be decoded and are left out
            images: ImageSet = open_images(dataset, place)
            assert images.labels.dtype.kind in "iu"
            assert len(images.labels) == 0 or 0 <= images.labels.min() <= images.labels.max() < images.num_classes
            if isinstance(images, EncodedImages):
                for index in range(len(images.labels)):
                    assert images.read(index, as_array)[0].dtype == np.uint8

    return Target(name, write, _damage_any_file, read)


def _damage_any_file(rng: random.Random, place: Path) -> str:
    """Damages one of the files below a directory."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return rng.choice((damage_bytes,) * 4 + (damage_path,))(rng.choice(files), rng)


def _write_mazes(place: Path) -> None:
    """A folder of two mazes, three cells long."""
    picture = np.zeros((5, 5, 3), np.uint8)
    picture[2, 1:4] = ((255, 0, 0), (255, 255, 255), (0, 255, 0))
    place.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(picture).save(place / name)


def _read_mazes(place: Path) -> None:
    """Reads it; pictures that are no mazes are left out with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        read_mazes(place, "train", 5, 4)


def _write_labels(place: Path) -> None:
    """Human labels, as an array and as a table."""
    place.mkdir()
    np.save(place / "a.npy", np.eye(3))
    (place / "a.csv").write_text("a,b\n1,2\n3,4\n")


def _read_labels(place: Path) -> None:
    """Reads both."""
    for name in ("a.npy", "a.csv"):
        assert np.isfinite(read_human_labels(place / name)).all()


IMAGES = random_images(4, seed=1)
CHECKPOINTS = [
    checkpoint_target(kind, purpose) for purpose in ("evaluate", "resume") for kind in ("acting", "answering")
]
TARGETS = [
    *CHECKPOINTS,
    *CHECKPOINTS,
    *(published_target(name) for name in PUBLISHED),
    *(config_target(kind) for kind in ("acting", "answering")),
]
DATA = [
    image_target("image folder", "folder", lambda place: write_folder(place, "train", IMAGES, [0, 1, 0, 1])),
    image_target(
        "parquet",
        "folder",
        lambda place: write_parquet(place / "train-0.parquet", [_png(image) for image in IMAGES], [0, 1, 0, 1]),
    ),
    image_target("CIFAR", "cifar100", lambda place: write_cifar(place / "train.bin", IMAGES, [0] * 4, [0, 1, 2, 3])),
    image_target("idx", "mnist", lambda place: _write_mnist(place)),
    Target("mazes", _write_mazes, _damage_any_file, _read_mazes),
    Target("human labels", _write_labels, _damage_any_file, _read_labels),
]


def _png(image: np.ndarray) -> bytes:
    """An image as a file's bytes."""
    from image_files import encode

    return encode(image)


def _write_mnist(place: Path) -> None:
    """Digits as they are published, packed."""
    write_idx(place / "train-images-idx3-ubyte.gz", np.zeros((3, 28, 28)))
    write_idx(place / "train-labels-idx1-ubyte.gz", np.array([0, 1, 2]))


# Playing them


def problem_of(target: Target, place: Path, whole: Any) -> str | None:
    """What is wrong with how a loader has taken a damaged input; ``None``: nothing."""
    try:
        found = target.read(place)
    except (UserError, ValueError) as error:  # other loaders' ValueError becomes a UserError
        return _problem_of_message(str(error if isinstance(error, UserError) else UserError(str(error))))
    except Exception as error:  # this is what must not happen
        return f"{type(error).__name__}: {str(error)[:200]}"
    left = [where for where in differences(whole, found) if not _is_allowed(where.lstrip("/"))]
    return f"is accepted, and changes {', '.join(left)[:300]}" if left else None


def _problem_of_message(message: str) -> str | None:
    """What is wrong with a refusal."""
    if len(message) > MAX_MESSAGE + 100 or not message.replace("\n", " ").isprintable():
        return f"is refused by {message[:100]!r}, {len(message)} characters"
    return None


def _is_allowed(where: str) -> bool:
    """Whether a difference is of an allowed class."""
    return any(re.fullmatch(pattern, where) for pattern in ALLOWED.values())


def fuzz(targets: list[Target], num_inputs: int, folder: Path, seed: int = 20) -> Iterator[str]:
    """Plays damaged inputs and reports those that are not taken as they should be."""

    def ring(*_: object) -> None:
        raise Hang

    wholes = {}
    for target in targets:
        if target.name not in wholes:
            target.write(folder / target.name.replace(" ", "-"))
            wholes[target.name] = target.read(folder / target.name.replace(" ", "-"))
    before = signal.signal(signal.SIGALRM, ring)
    try:
        for index in range(num_inputs):
            target, rng = targets[index % len(targets)], random.Random(f"{seed} {index}")
            place = folder / "input"
            target.write(place)
            what = target.damage(rng, place)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # for what no signal interrupts
            try:
                problem = problem_of(target, place, wholes[target.name])
            except Hang:
                problem = "hangs"
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                faulthandler.cancel_dump_traceback_later()
            if problem is not None:
                yield f"{index}, {target.name}, {what:.200}: {problem}"
            shutil.rmtree(place)
    finally:
        signal.signal(signal.SIGALRM, before)
    if (folder / "executed").exists() or "evil" in sys.modules:
        yield "a program was run"


def peak_mb() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_damaged_checkpoints_and_configurations_are_refused_or_harmless(tmp_path: Path) -> None:
    assert list(fuzz(TARGETS, NUM_BY_DEFAULT, tmp_path)) == []


@pytest.mark.slow
def test_two_thousand_damaged_files_are_refused_or_harmless(tmp_path: Path) -> None:
    """In a process of its own, whose memory is measured."""
    code = "import sys, test_damaged_files as test; sys.exit(test.main(sys.argv[1]))"
    folders = [str(TESTS / "faults"), str(TESTS / "helpers"), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(filter(None, folders)), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def main(folder: str, num_inputs: int = NUM_INPUTS) -> int:
    """Plays all inputs and prints what is wrong.

    Args:
        folder: an empty directory.
        num_inputs: how many.

    Returns:
        The exit code.
    """
    place = Path(folder)
    targets = [*TARGETS, *DATA]
    problems = list(fuzz(targets, len(targets), place / "warm"))
    needed = peak_mb()
    problems += fuzz(targets, num_inputs, place / "all", seed=21)
    if peak_mb() - needed > EXTRA_MB:
        problems.append(f"the loaders take {peak_mb() - needed:.0f} MB more than for the first inputs")
    print("\n".join(problems), f"\n{num_inputs} inputs, {len(problems)} problems, {peak_mb() - needed:.0f} MB")
    return 1 if problems else 0
