"""Runs of ``ctm-rl bench learning`` that nobody had to wait for."""

from typing import Any

from ctm_rl.agents.bench.learning.results import NUM_POINTS, Run


def learned(task: str, contender: str, seed: int, curve: list[float | None], **changes: Any) -> Run:
    """A finished run; of a curve of two values the first half of the points has the first."""
    points = [curve[index * len(curve) // NUM_POINTS] for index in range(NUM_POINTS)]
    known: dict[str, Any] = {"task": task, "contender": contender, "seed": seed, "env_steps": 1000, "curve": points}
    measured = {"evaluation": curve[-1], "episodes": 100, "seconds": 60.0, "reached_env_steps": 1024, "settings": "a"}
    return {**known, **measured, **changes}


def played_randomly(task: str, value: float) -> Run:
    """The run of a random policy."""
    return learned(task, "random", 0, [value], env_steps=0, evaluation=value) | {"curve": []}
