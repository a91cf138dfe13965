"""Measures an all-reduce of gradients between two processes, as learners on CPUs do it."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

_TIMES = 50
_TIMEOUT = 120.0


class ReduceCost(NamedTuple):
    """Seconds of a message between two learners: a fixed part, and one for each byte."""

    latency: float
    """Of the smallest message."""
    byte: float
    """Of each byte."""


def measure_all_reduce(num_bytes: int) -> ReduceCost:
    """Measures with gloo between two processes of this machine.

    Args:
        num_bytes: of the gradients.

    Returns:
        The cost of one message; a sum over two processes takes two messages of half the bytes in a ring.

    Raises:
        RuntimeError: the processes failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __name__, str(Path(folder) / "rendezvous"), str(num_bytes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        processes = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
            for rank in range(2)
        ]
        try:
            outputs = [process.communicate(timeout=_TIMEOUT) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        if process.returncode:
            raise RuntimeError(f"the all-reduce of two processes failed: {errors.decode()[-500:]}")
    small, large = json.loads(outputs[0][0])
    return ReduceCost(small / 2, max(0.0, large - small) / num_bytes)


def main(rendezvous: str, num_bytes: int, rank: int) -> None:
    """One of the two processes; the first prints the seconds of a sum of one number and of all gradients."""
    import torch
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    medians = []
    for numbers in (1, max(1, num_bytes // 4)):
        gradients = torch.zeros(numbers)
        seconds = []
        for _ in range(_TIMES):
            distributed.barrier()
            started = time.perf_counter()
            distributed.all_reduce(gradients)
            seconds.append(time.perf_counter() - started)
        medians.append(statistics.median(seconds))
    distributed.destroy_process_group()
    if rank == 0:
        print(json.dumps(medians))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
