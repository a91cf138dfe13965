"""What loggers have written, read back: TensorBoard's events, the records of W&B's files, MLflow's tables."""

import json
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ctm_rl.agents.loggers.groups import tag_of
from ctm_rl.agents.run_directory.metrics_file import read_metrics

Points = dict[str, list[tuple[int, float]]]
"""Steps and values of each name."""


def scalars_of(folder: Path) -> Points:
    """The scalars of a folder of events, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in accumulator.Scalars(name)] for name in names}


def points_of_metrics(run_dir: Path) -> Points:
    """The rows of ``metrics.jsonl``, as loggers with groups hold them."""
    points: Points = defaultdict(list)
    for row in read_metrics(run_dir):
        for name, value in row.items():
            if value is not None:
                points[tag_of(name)].append((int(row["env_steps"] or 0), value))
    return dict(points)


def points_of_wandb(run_dir: Path) -> Points:
    """The history in the files of a run's offline W&B folders, in their order."""
    points: Points = defaultdict(list)
    for file in sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_ctime_ns):
        for values in history_of(file):
            for name, value in values.items():
                if not name.startswith("_"):
                    points[name].append((int(values["_step"]), value))
    return dict(points)


def history_of(file: Path) -> Iterator[dict[str, float]]:
    """The rows of W&B's history in a file of records."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports]

    for content in records_in(file.read_bytes()):
        record = Record.FromString(content)
        if record.HasField("history"):
            yield {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}


def records_in(data: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, whose blocks of 32 KiB begin with W&B's header of 7 bytes."""
    assert data[:4] == b":W&B"
    blocks = [data[max(7, at) : at + 32768] for at in range(0, len(data), 32768)]
    record = b""
    for block in blocks:
        while len(block) >= 7:
            length, kind = struct.unpack_from("<HB", block, 4)
            record = block[7 : 7 + length] if kind in (1, 2) else record + block[7 : 7 + length]
            block = block[7 + length :]
            if kind in (1, 4):
                yield record


def points_of_mlflow(file: Path) -> Points:
    """The metrics in MLflow's tables, by step; its latest values must be the last of them."""
    points: Points = defaultdict(list)
    database = sqlite3.connect(file)
    for name, step, value in database.execute("SELECT key, step, value FROM metrics ORDER BY step"):
        points[name].append((step, value))
    latest = {
        name: (step, value) for name, step, value in database.execute("SELECT key, step, value FROM latest_metrics")
    }
    database.close()
    assert latest == {name: found[-1] for name, found in points.items()}
    return dict(points)
