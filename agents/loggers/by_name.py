"""Loggers by the names of ``--logger``: those that come with the package, and those of users."""

import importlib.util
from collections.abc import Sequence
from typing import Any

from ctm_rl.agents.loggers.protocol import METHODS, Logger
from ctm_rl.errors import UserError
from ctm_rl.named_code import declared_code, is_code_name, load_code

ENTRY_POINTS = "ctm_rl.loggers"
"""The group of entry points in which an installed package declares its loggers."""
_HERE = "ctm_rl.agents.loggers"
_BUILT_IN = {
    "tensorboard": f"{_HERE}.tensorboard_events:TensorBoardEvents",
    "csv": f"{_HERE}.csv_file:CsvFile",
    "wandb": f"{_HERE}.wandb_run:WandbRun",
    "mlflow": f"{_HERE}.mlflow_run:MlflowRun",
}
NAMES = tuple(_BUILT_IN)
"""The loggers that come with the package."""
_PACKAGES = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
"""What is not installed with the package, by logger; the extra has the logger's name."""


def build_loggers(names: Sequence[str]) -> dict[str, Logger]:
    """Makes a run's loggers, by their names; none is started.

    Raises:
        UserError: one of them does not exist, cannot be made, or needs a package that is not installed.
    """
    return {name: _build(name) for name in names}


def _build(name: str) -> Logger:
    """Makes one logger."""
    for package in _PACKAGES.get(name, ()):
        if importlib.util.find_spec(package) is None:
            raise UserError(f'--logger {name} needs {package}, which is not installed: pip install "ctm-rl[{name}]".')
    declared = {} if name in _BUILT_IN or is_code_name(name) else declared_code(ENTRY_POINTS)
    if name not in _BUILT_IN and name not in declared and not is_code_name(name):
        known = ", ".join((*NAMES, *sorted(declared)))
        raise UserError(f"--logger must be one of {known}, or module:Class of your own, got {name!r}.")
    made: Any
    try:
        made = load_code(_BUILT_IN.get(name, name), "--logger", declared)()
    except UserError:
        raise
    except Exception as error:  # whatever a constructor may raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"--logger {name} cannot be made: {type(error).__name__}: {reason}.") from error
    missing = [method for method in METHODS if not callable(getattr(made, method, None))]
    if missing:
        raise UserError(f"--logger {name} must have the methods {', '.join(METHODS)}; it has no {', '.join(missing)}.")
    return made
