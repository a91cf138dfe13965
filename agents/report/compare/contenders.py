"""The runs that are compared: each is read once, and those that differ in nothing but their seeds become one line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.storage_url import mask_secrets
from ctm_rl.agents.report.curves import Rows
from ctm_rl.agents.report.report import Found, ReportOptions, find_trained, network_of, warnings_in
from ctm_rl.agents.run_directory.directory import check_is_run, config_of
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.seeds.plan import is_seeds, read_seeds
from ctm_rl.checkpoints.best import run_of
from ctm_rl.errors import UserError

INCIDENTAL = (
    *("name", "seed", "run_dir", "address", "placement", "storage", "logger", "profile"),
    *("checkpoint_minutes", "checkpoint_iterations", "keep_checkpoints", "video_every"),
)
"""Fields of an experiment that say where a run is and what it writes, not what it learns."""
_KIND = "model.kind"
_MAX_IN_NAME = 2
"""Fields that name a line, at most."""


class ComparedRun(NamedTuple):
    """A run that is compared."""

    name: str
    """Short, and no other run's."""
    run: Path
    """Its directory."""
    found: Found
    """What it has trained, and its experiment."""
    rows: Rows
    """Its metrics."""

    @property
    def model_config(self) -> Any:
        """The configuration of its model; ``None``: it is not known."""
        config = getattr(network_of(self.found.trained), "config", None)
        experiment = self.found.experiment
        return experiment.model if config is None and experiment is not None else config

    @property
    def kind(self) -> str:
        """The kind of its model, such as ctm or lstm; empty: it is not known."""
        return "" if self.model_config is None else getattr(self.model_config, "kind", "ctm")

    @property
    def task(self) -> str:
        """What it learns: curves of different tasks have different units; empty: it is not known."""
        experiment = self.found.experiment
        return "" if experiment is None else experiment.env.id

    @property
    def acts(self) -> bool | None:
        """Whether it is a policy; ``None``: it is not known."""
        experiment = self.found.experiment
        return None if experiment is None else isinstance(experiment, ActingExperiment)


class Contender(NamedTuple):
    """Runs that differ in nothing but their seeds, as one line of all charts."""

    name: str
    """As legends have it."""
    colour: int
    """Its number among the colours."""
    runs: Sequence[ComparedRun]
    """At least one."""

    @property
    def first(self) -> ComparedRun:
        """A run that stands for all of them."""
        return self.runs[0]

    @property
    def title(self) -> str:
        """The name, with the number of seeds where there are several."""
        return self.name if len(self.runs) == 1 else f"{self.name}, {len(self.runs)} seeds"


def read_contenders(paths: Sequence[Path], options: ReportOptions, notes: list[str]) -> list[Contender]:
    """Reads the runs that are compared.

    Args:
        paths: directories of runs or of several seeds, or checkpoints.
        options: which checkpoints, and whether the runs are trusted.
        notes: gets what is missing.

    Raises:
        UserError: a path is no run, or there are fewer than two runs.
    """
    places = _places(paths, notes)
    if len(places) < 2:
        given = "one" if places else "none"
        raise UserError(f"compare needs at least two runs, got {given}; ctm-rl report shows a single one.")
    names = _unique_names(places)
    runs = [_read(name, place, options, notes) for name, place in zip(names, places, strict=True)]
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(signature(run), []).append(run)
    for members in groups.values():
        _note_equal_seeds(members, notes)
    named = zip(_names_of(list(groups.values())), groups.values(), strict=True)
    return [Contender(name, number, members) for number, (name, members) in enumerate(named)]


def _places(paths: Sequence[Path], notes: list[str]) -> list[Path]:
    """Each run once, those of several seeds in the place of their directory."""
    places: dict[Path, Path] = {}
    for path in paths:
        members = _members(path) if is_seeds(path) else [path]
        for place in members:
            run = run_of(place)
            check_is_run(run)
            before = places.setdefault(run.resolve(), place)
            if before is place:
                continue
            if before.resolve() != place.resolve():
                raise UserError(
                    f"{before} and {place} are of the same run, whose curves would be compared with themselves; name "
                    "one of them, or see both by ctm-rl report."
                )
            notes.append(f"{place} is named twice, and shown once.")
    return list(places.values())


def _members(directory: Path) -> list[Path]:
    """The runs of several seeds that have begun."""
    seeds = read_seeds(directory)
    begun = [directory / seeds.run_dir(seed).name for seed in seeds.options.seeds if seeds.has_begun(seed)]
    if not begun:
        raise UserError(f"no seed in {directory} has begun; continue them with: ctm-rl resume {directory}")
    return begun


def _unique_names(places: Sequence[Path]) -> list[str]:
    """As much of the ends of paths as tells them apart."""
    parts = [run_of(place).resolve().parts for place in places]
    names = [path[-1] for path in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        names = [
            name if names.count(name) == 1 else "/".join(path[-depth:]) for name, path in zip(names, parts, strict=True)
        ]
    return names


def _read(name: str, place: Path, options: ReportOptions, notes: list[str]) -> ComparedRun:
    """A run with what there is of it; what is missing is noted under its name."""
    run = run_of(place)
    own: list[str] = []
    with warnings_in(own):
        found = find_trained(run, place, options, own)
        rows = read_metrics(run)
    if not rows:
        own.append("it has no metrics, and no learning curves.")
    notes += [f"{name}: {note}" for note in own]
    return ComparedRun(name, run, found, rows)


def signature(run: ComparedRun) -> str:
    """What a run learns, without its seed; runs of the same signature differ in their seeds alone."""
    experiment = run.found.experiment
    if experiment is None:
        return run.name
    return json.dumps({name: value for name, value in config_of(experiment).items() if name not in INCIDENTAL})


def _note_equal_seeds(members: Sequence[ComparedRun], notes: list[str]) -> None:
    """Notes runs that are no independent ones."""
    seeds: dict[int, str] = {}
    for run in members:
        if run.found.experiment is None:
            continue
        other = seeds.setdefault(run.found.experiment.seed, run.name)
        if other != run.name:
            notes.append(f"{other} and {run.name} have the same configuration and seed: their spread is too small.")


def differences(experiments: Sequence[AnyExperiment]) -> dict[str, list[str]]:
    """The fields in which experiments differ, by their full names, each with its values as text.

    Args:
        experiments: fields that some of them do not have, as those that answer have no ``ppo``, are left out.

    Returns:
        For each field the value of each experiment; without seeds and what is incidental.
    """
    flat = [_flattened(config_of(experiment)) for experiment in experiments]
    shared = [name for name in flat[0] if name.partition(".")[0] not in INCIDENTAL] if flat else []
    shared = [name for name in shared if all(name in values for values in flat)]
    found = {name: [mask_secrets(json.dumps(values[name])) for values in flat] for name in shared}
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def _flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their full names; arguments of environments and other empty objects stay whole."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value and not name.endswith("kwargs"):
            flat |= _flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _names_of(groups: Sequence[Sequence[ComparedRun]]) -> list[str]:
    """The shortest kind of name that tells all contenders apart: experiment, model, what differs, or directory."""
    firsts = [members[0] for members in groups]
    kinds = [run.kind for run in firsts]
    experiments = ["" if run.found.experiment is None else run.found.experiment.name for run in firsts]
    both = [f"{name} {kind}" if name and kind else "" for name, kind in zip(experiments, kinds, strict=True)]
    candidates = [experiments, both] if len(set(experiments)) > 1 else [kinds]
    candidates.append(_by_differences(firsts))
    for names in candidates:
        if all(names) and len(set(names)) == len(groups):
            return names
    return [members[0].name if len(members) == 1 else _common(members) for members in groups]


def _by_differences(firsts: Sequence[ComparedRun]) -> list[str]:
    """Names such as ``ctm, num_ticks 4``; empty ones where there is too much that differs."""
    experiments = [run.found.experiment for run in firsts]
    known = [experiment for experiment in experiments if experiment is not None]
    found = differences(known)
    if len(known) < len(firsts) or len(found) > _MAX_IN_NAME:
        return [""] * len(firsts)
    names = sorted(found, key=lambda name: name != _KIND)
    return [", ".join(_value_in_name(name, found[name][index]) for name in names) for index in range(len(firsts))]


def _value_in_name(name: str, value: str) -> str:
    """The value of a field as a part of a name; the kind of a model says what it is."""
    plain = value.strip('"')
    return plain if name == _KIND else f"{name.rpartition('.')[2]} {plain}"


def _common(members: Sequence[ComparedRun]) -> str:
    """A name for several runs: the directory that they are in alone, as ``--seeds`` makes it, or that of the first."""
    parent = members[0].run.resolve().parent
    return parent.name if is_seeds(parent) else f"{members[0].name} and {len(members) - 1} more"
