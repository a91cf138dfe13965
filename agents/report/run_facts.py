"""What ran: the experiment of a run, its model, where it stands, and the command that makes it again."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.storage_url import mask_secrets
from ctm_rl.agents.report.document import Code, Figure, Section, Table
from ctm_rl.agents.run_directory.directory import CONFIG_FILE, config_of
from ctm_rl.agents.run_directory.made_with import describe_made_with, machine_line, made_with, versions_line
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import read_best

_MAX_DEPTH = 3
"""Parts of a model's name that the table of layers goes down to."""


def facts_section(
    run: Path,
    experiment: AnyExperiment | None,
    rows: Sequence[dict[str, Any]],
    model: nn.Module | None,
    iteration: int | None,
    name: str | None = None,
) -> Section:
    """The section "What ran".

    Args:
        run: the run's directory.
        experiment: of the run; ``None``: an imported checkpoint has none, or it cannot be read.
        rows: its metrics.
        model: what was trained; ``None``: there is no usable checkpoint.
        iteration: of the checkpoint that is shown.
        name: by which the run was asked for where that is no path, such as ``zoo:mazes``; it cannot be resumed.
    """
    facts = [*_experiment_facts(experiment, model), *_training_facts(run, rows, iteration), *_machine_facts(run)]
    figures: list[Figure] = [Table(title="Run", columns=("what", "value"), rows=facts)]
    if experiment is not None:
        figures.append(_commands(run, experiment, name))
    if model is not None:
        figures.append(_layers(model))
    if experiment is not None:
        text = mask_secrets(json.dumps(config_of(experiment), indent=2))
        figures.append(Code(title="Configuration", text=text, is_folded=True, caption=f"{CONFIG_FILE} of the run."))
    return Section(name="run", title="What ran", figures=figures)


def count_parameters(model: nn.Module) -> int:
    """How many numbers a model has learned."""
    return sum(parameter.numel() for parameter in model.parameters())


def _experiment_facts(experiment: AnyExperiment | None, model: nn.Module | None) -> list[tuple[str, str]]:
    """The experiment and the sizes of its model."""
    facts: list[tuple[str, str]] = []
    if experiment is not None:
        kind = "learns to act" if isinstance(experiment, ActingExperiment) else "learns to answer"
        facts.append(("experiment", f"{experiment.name}, {kind}"))
        kwargs = f" {mask_secrets(json.dumps(experiment.env.kwargs))}" if experiment.env.kwargs else ""
        facts.append(("environment", f"{experiment.env.id}{kwargs}"))
    config: Any = getattr(model, "config", None)
    config = experiment.model if config is None and experiment is not None else config
    if config is not None:
        kind = getattr(config, "kind", "ctm")
        sizes = f", {config.num_neurons} neurons, memory of {config.history_length} ticks" if kind == "ctm" else ""
        ticks = "" if kind == "mlp" else f", {_count(config.num_ticks, 'tick')}"
        facts.append(("model", f"{kind}{sizes}{ticks}, encoder {config.encoder}"))
    if model is not None:
        facts.append(("parameters", f"{count_parameters(model):,}"))
    if experiment is not None:
        facts.append(("seed", str(experiment.seed)))
    return facts


def _training_facts(run: Path, rows: Sequence[dict[str, Any]], iteration: int | None) -> list[tuple[str, str]]:
    """How far the run is, and which checkpoint is shown."""
    facts: list[tuple[str, str]] = []
    if rows:
        last = rows[-1]
        facts.append(("iterations", f"{int(last.get('iteration') or len(rows)):,}"))
        steps, seconds = last.get("env_steps"), last.get("seconds")
        if steps is not None:
            facts.append(("environment steps", f"{int(steps):,}"))
        if seconds is not None:
            facts.append(("time of training", duration(seconds)))
        if steps and seconds:
            facts.append(("speed", f"{steps / seconds:,.0f} environment steps per second"))
    if iteration is not None:
        facts.append(("checkpoint shown", f"iteration {iteration}"))
    kept = store.iterations_of(run)
    if kept:
        facts.append(("checkpoints kept", ", ".join(str(number) for number in sorted(kept))))
    try:
        best = read_best(run)
    except store.CheckpointError:
        best = None
    if best is not None:
        facts.append(("best checkpoint", f"iteration {best.iteration}, {best.metric} {best.value:.4g}"))
    return facts


def _machine_facts(run: Path) -> list[tuple[str, str]]:
    """Versions and machine of the run and of this report."""
    trained = describe_made_with(run)
    here = made_with()
    return [
        *([] if trained is None else [("trained with", trained[0]), ("trained on", trained[1])]),
        ("report made with", versions_line(here["versions"])),
        ("report made on", machine_line(here["machine"])),
    ]


def _commands(run: Path, experiment: AnyExperiment, name: str | None) -> Figure:
    """How to make the run again, go on with it and evaluate it."""
    place = shlex.quote(str(run) if name is None else name)
    config = shlex.quote(str(run / CONFIG_FILE) if name is None else name)
    again = f"ctm-rl train --config {config} --run-dir runs/{experiment.name}-again"
    lines = [again, *([] if name else [f"ctm-rl resume {place}"]), f"ctm-rl evaluate {place}"]
    return Code(
        title="Commands",
        caption=f"Train the same again in a new directory{'' if name else ', go on with this run'}, and evaluate it.",
        text="\n".join(lines),
    )


def _layers(model: nn.Module) -> Figure:
    """The parts of a model with their parameters."""
    parts: dict[str, list[tuple[str, Any]]] = {}
    for name, parameter in model.named_parameters():
        group = ".".join(name.split(".")[:-1][:_MAX_DEPTH]) or name
        parts.setdefault(group, []).append((name, parameter))
    rows = []
    for group, members in parts.items():
        shapes = [f"{name.rpartition('.')[2]} {_shape(parameter)}" for name, parameter in members]
        shown = ", ".join(shapes[:4]) + (f" and {len(shapes) - 4} more" if len(shapes) > 4 else "")
        rows.append((group, shown, f"{sum(parameter.numel() for _, parameter in members):,}"))
    rows.append(("all", "", f"{count_parameters(model):,}"))
    return Table(title="Layers", columns=("part", "shapes", "parameters"), rows=rows)


def _shape(parameter: Any) -> str:
    """A shape such as 64 x 32."""
    return " x ".join(map(str, parameter.shape)) or "1"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _count(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}{'' if number == 1 else 's'}"
