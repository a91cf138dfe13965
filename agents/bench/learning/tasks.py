"""What a comparison needs to know of its tasks: their arguments, how long they are learned, what is a good return."""

import re

ENV_STEPS = {"minigrid-keycorridor": 500_000, "minigrid-fourrooms": 1_000_000}
"""Environment steps of a run, of tasks whose experiments have a larger budget than a comparison needs."""
REFERENCES = {
    "cartpole": 500.0,
    "pendulum-no-velocity": -217.9,
    "mountaincar-no-velocity": 91.5,
    "acrobot": -73.5,
    "minigrid-doorkey": 0.964,
    "minigrid-keycorridor": 0.949,
    "minigrid-": 1.0,
    "popgym-": 1.0,
}
"""The return that is worth a score of 100, by the task's name or what it begins with.

Of rl-baselines3-zoo's benchmark (RecurrentPPO on CartPoleNoVel-v1, PendulumNoVel-v1 and MountainCarContinuousNoVel-v0;
PPO on Acrobot-v1 with velocities, DoorKey-5x5 and KeyCorridorS3R1); elsewhere the highest return there is.
"""

_ENV_ID = re.compile(r"(?:[^:]+:)?[\w./-]+-v\d+")
"""Gymnasium's ids, which end in a version; module:Name-v0 imports the module first."""


def env_steps_of(task: str, default: int) -> int:
    """Environment steps of a run on a task.

    Args:
        task: its name.
        default: the budget of its experiment.
    """
    return ENV_STEPS.get(task, default)


def arguments_of(task: str) -> list[str]:
    """How ``ctm-rl train`` is given a task: an experiment by its name, any other environment by its id."""
    return ["--env", task] if _ENV_ID.fullmatch(task) else [task]


def reference_of(task: str) -> float | None:
    """The return that is worth a score of 100; ``None``: none is known."""
    task = task.rpartition(":")[2]
    fitting = [name for name in REFERENCES if name == task or (name.endswith("-") and task.startswith(name))]
    return REFERENCES[max(fitting, key=len)] if fitting else None
