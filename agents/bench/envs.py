"""Measures how many samples a second the single-step environments make on one core; images beside Pillow alone."""

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ctm_rl.agents.bench.machine import describe_circumstances
from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.agents.supervised.sampler import make_samples_env

SECONDS = 0.5
"""How long each environment is measured in a round; at least one call."""

_IDS = "ctm_rl.envs:ctm_rl/"
_IMAGE_SIZE = (500, 400)
_NUM_IMAGES = 64
_CROP = 224
_PILLOW = "Pillow alone"


class _Case(NamedTuple):
    """An environment to measure."""

    name: str
    env: TaskConfig
    num_rows: int
    """Samples of one reset."""
    at_least: float | None = None
    """Samples a second that should be reached."""


CASES = (
    _Case("parity of 64", TaskConfig(id=f"{_IDS}Parity-v0", kwargs={"length": 64}), 1024, 1e6),
    _Case("sorting of 30", TaskConfig(id=f"{_IDS}Sorting-v0", kwargs={"length": 30}), 1024, 1e6),
    _Case("mazes of 19 px", TaskConfig(id=f"{_IDS}Maze-v0", kwargs={"size": 19}), 1024, 30_000),
    _Case("mazes of 39 px", TaskConfig(id=f"{_IDS}Maze-v0", kwargs={"size": 39}), 1024, 6_000),
    _Case("questions about 4 digits", TaskConfig(id=f"{_IDS}QAMnist-v0"), 256, 20_000),
    _Case("digits", TaskConfig(id=f"{_IDS}Images-v0", kwargs={"dataset": "mnist"}), 256),
)
"""The environments that are measured, beside images in files."""


def bench_envs(command: str, rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Measures how fast samples are made.

    Args:
        command: the command line, kept with the result.
        rounds: how often all are measured, in turn; the fastest round counts.
        report: called with a line about what is being done.

    Returns:
        A result for JSON: ``machine``, ``versions``, ``command``, ``rounds`` and ``rows``, each with ``name``,
        ``samples_per_second`` of one core's time, ``at_least`` and, for images in files, ``times_pillow``: the time
        they take, divided by that of Pillow alone for decoding and cropping the same.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write_images(folder)
        kwargs = {"dataset": "folder", "path": str(folder), "size": _CROP}
        images = _Case("JPEG 500 x 400, decoded and cropped", TaskConfig(id=f"{_IDS}Images-v0", kwargs=kwargs), 64)
        cases = (*CASES, images)
        makers = [_maker(case) for case in cases]
        best = dict.fromkeys((*(case.name for case in cases), _PILLOW), float("inf"))
        for number in range(1, rounds + 1):
            report(f"round {number} of {rounds}")
            for case, make in zip(cases, makers, strict=True):
                best[case.name] = min(best[case.name], _seconds(make, case.num_rows))
            best[_PILLOW] = min(best[_PILLOW], _seconds(lambda: _pillow_alone(folder), _NUM_IMAGES))
    rows = [
        {
            "name": case.name,
            "samples_per_second": round(1 / best[case.name], 1),
            "at_least": case.at_least,
            "times_pillow": round(best[case.name] / best[_PILLOW], 3) if case is images else None,
        }
        for case in cases
    ]
    return {**describe_circumstances(command), "rounds": rounds, "rows": rows}


def to_text(result: dict[str, Any]) -> str:
    """Makes one line of text for each row."""
    lines = []
    for row in result["rows"]:
        line = f"{row['name']:<38}{row['samples_per_second']:>14,.0f} samples/s"
        if row["at_least"] is not None:
            line += f"   (at least {row['at_least']:,.0f})"
        if row["times_pillow"] is not None:
            line += f"   ({row['times_pillow']:.2f} times Pillow alone; at most 1.3)"
        lines.append(line)
    return "\n".join([*lines, ""])


def _maker(case: _Case) -> Callable[[], object]:
    """A function that makes one batch."""
    env = make_samples_env(case.env, case.num_rows)
    env.reset(seed=1)
    return lambda: env.reset()


def _seconds(make: Callable[[], object], num_samples: int) -> float:
    """CPU seconds of this thread for one sample, in the fastest call."""
    best = float("inf")
    ends = time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < ends:
        started = time.thread_time()
        make()
        best = min(best, time.thread_time() - started)
    return best / num_samples


def _write_images(folder: Path) -> None:
    """Writes JPEGs with the dimensions of ImageNet's, smooth so that their files are of that size too."""
    rng = np.random.default_rng(0)
    for index in range(_NUM_IMAGES):
        coarse = rng.integers(256, size=(40, 50, 3), dtype=np.uint8)
        place = folder / "train" / f"class{index % 4}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(_IMAGE_SIZE, Image.Resampling.BICUBIC).save(place / f"{index}.jpg", quality=90)


def _pillow_alone(folder: Path) -> None:
    """Decodes, crops at random and resizes all images with Pillow alone."""
    rng = np.random.default_rng(0)
    for path in folder.rglob("*.jpg"):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            width, height = image.size
            share = rng.uniform(0.08, 1.0) ** 0.5
            box_width, box_height = int(width * share), int(height * share)
            left, top = int(rng.integers(width - box_width + 1)), int(rng.integers(height - box_height + 1))
            box = (left, top, left + box_width, top + box_height)
            np.asarray(image.convert("RGB").resize((_CROP, _CROP), Image.Resampling.BILINEAR, box=box))
