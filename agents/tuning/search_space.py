"""Searches: a field of an experiment and its possible values, read from text without executing it."""

import itertools
import json
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_origin

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.fields import closest_field, fields_of
from ctm_rl.agents.experiments.serialise import AnyExperiment, from_json, to_json
from ctm_rl.errors import UserError

Config = dict[str, Any]
"""Values by the full names of their fields."""

FORMS = {
    "uniform": "uniform(a,b)",
    "loguniform": "loguniform(a,b)",
    "quniform": "quniform(a,b,step)",
    "randint": "randint(a,b)",
    "choice": "choice(x,y,...)",
    "grid": "grid(x,y,...)",
}
LISTED = ("choice", "grid")
"""The functions whose arguments are the values themselves."""

_SEARCH = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*=\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_WORD = re.compile(r"[\w.:/@+=-]+")
_WORDS = {"true": True, "false": False, "none": None, "null": None}
_SWEEP_FIELDS = ("name", "run_dir", "address", "storage", "placement", "logger", "profile")
_SHARE_INSIDE = 0.1234567
_NUM_ENUMERATED = 64
"""All whole numbers of a range are checked if there are at most this many."""
_NUM_COMBINED = 2048
"""All combinations of values are checked if there are at most this many."""


@dataclass(frozen=True, slots=True)
class Search:
    """A field and its possible values."""

    field: str
    """Its full name."""
    kind: str
    """One of ``FORMS``."""
    arguments: tuple[Any, ...]
    """The bounds, and the step of quniform; or all values."""

    @property
    def is_random(self) -> bool:
        """Whether values are drawn at random."""
        return self.kind != "grid"

    def samples(self) -> list[Any]:
        """Returns all values, or of a large range its ends: enough to check whether the field accepts them."""
        if self.kind in LISTED:
            return list(self.arguments)
        low, high, *step = self.arguments
        if self.kind == "randint":
            return list(range(low, high)) if high - low <= _NUM_ENUMERATED else [low, high - 1]
        if self.kind == "quniform" and all(isinstance(number, int) for number in self.arguments):
            values = range(low, high + 1, step[0])
            return list(values) if len(values) <= _NUM_ENUMERATED else [low, high]
        # A value inside that is no whole number, unless all are: a field for whole numbers then refuses it.
        inside = low + (step[0] if step else _SHARE_INSIDE * (high - low))
        return [float(low), float(inside), float(high)]

    def nearest(self, value: Any) -> Any:
        """Returns the possible value nearest to a number; a listed value is returned as it is."""
        if self.kind in LISTED:
            return value
        low, high, *step = self.arguments
        if self.kind == "randint":
            return min(max(round(value), low), high - 1)
        if step:
            value = low + round((value - low) / step[0]) * step[0]
        return min(max(value, low), high)


def parse_search(text: str) -> Search:
    """Reads ``field=function(values)``.

    Args:
        text: from the command line, such as ``ppo.lr=loguniform(1e-4,3e-3)``.

    Returns:
        The search; whether the field exists is not checked.

    Raises:
        UserError: one line naming what is wrong and what is allowed.
    """
    match = _SEARCH.fullmatch(text)
    if match is None:
        raise UserError(f"--search must be FIELD=FUNCTION(VALUES), as 'ppo.lr=loguniform(1e-4,3e-3)', got {text!r}.")
    field, kind, inside = match.groups()
    field = field.replace("-", "_")
    if kind not in FORMS:
        raise UserError(f"--search {field}: unknown function {kind!r}; allowed are {', '.join(FORMS.values())}.")
    arguments = tuple(_read_value(part, field) for part in _split(inside)) if inside.strip() else ()
    if kind == "randint":  # 1e4 is a whole number too
        arguments = tuple(int(item) if isinstance(item, float) and item.is_integer() else item for item in arguments)
    if kind in LISTED:
        if not arguments:
            raise UserError(f"--search {field}: {kind} needs at least one value, as in {FORMS[kind]}.")
    else:
        _check_range(field, kind, arguments)
    return Search(field, kind, arguments)


def _split(inside: str) -> Iterator[str]:
    """Splits at commas outside of brackets and quotes."""
    depth, quote, begin = 0, "", 0
    for index, letter in enumerate(inside):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and not depth:
            yield inside[begin:index].strip()
            begin = index + 1
    yield inside[begin:].strip()


def _read_value(text: str, field: str) -> Any:
    """Reads one value: JSON, True, False, None, or a word."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for read in (json.loads, int, float):
        try:
            value = read(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, float) or math.isfinite(value):
            return value
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1]
    if not _WORD.fullmatch(text):
        raise UserError(f"--search {field}: cannot read the value {text!r}; give a number, a word, or JSON in quotes.")
    return text


def _check_range(field: str, kind: str, arguments: tuple[Any, ...]) -> None:
    """Refuses bounds that are not numbers or not in order, and a step that does not divide them."""
    given = f"{kind}({','.join(map(str, arguments))})"
    count = 3 if kind == "quniform" else 2
    kinds = int if kind == "randint" else (int, float)
    if len(arguments) != count or any(isinstance(item, bool) or not isinstance(item, kinds) for item in arguments):
        what = "whole numbers" if kind == "randint" else "numbers"
        raise UserError(f"--search {field}: {FORMS[kind]} takes {count} {what}, got {given}.")
    low, high, *step = arguments
    if low >= high:
        raise UserError(f"--search {field}: {given} is empty: {low} must be below {high}.")
    if kind == "loguniform" and low <= 0:
        raise UserError(f"--search {field}: loguniform needs bounds above 0, got {given}.")
    if step and (step[0] <= 0 or any(abs(end / step[0] - round(end / step[0])) > 1e-9 for end in (low, high))):
        raise UserError(f"--search {field}: the bounds of {given} must be multiples of its step, and the step above 0.")


def with_values(experiment: AnyExperiment, config: Config) -> AnyExperiment:
    """Returns an experiment with other values, checked as when it is read from ``config.json``.

    Args:
        experiment: the experiment to change.
        config: the values by the full names of their fields.

    Raises:
        ValueError: one line naming the field and what is allowed.
    """
    values = to_json(experiment)
    for name, value in config.items():
        *groups, leaf = name.split(".")
        place = values
        for group in groups:
            place = place[group]
        place[leaf] = value
    return from_json(values)


def check_searches(experiment: AnyExperiment, searches: list[Search]) -> None:
    """Refuses unknown fields, and values that the experiment does not accept, alone or together.

    Args:
        experiment: the experiment whose fields are searched.
        searches: the searched fields.

    Raises:
        UserError: one line naming the field and what is allowed.
    """
    known = fields_of(type(experiment))
    for index, search in enumerate(searches):
        _check_field(search.field, known, experiment)
        if any(search.field == other.field for other in searches[:index]):
            raise UserError(f"--search {search.field} is given twice; give all its values at once.")
    for config in combinations(searches):
        try:
            with_values(experiment, config)
        except ValueError as error:
            values = ", ".join(f"{name} {value}" for name, value in config.items())
            raise UserError(f"a trial with {values} cannot be run: {error}") from error


def combinations(searches: list[Search]) -> Iterator[Config]:
    """Yields all combinations of values; if there are too many, every value alone, with the other fields unchanged."""
    names, samples = [search.field for search in searches], [search.samples() for search in searches]
    if math.prod(map(len, samples)) <= _NUM_COMBINED:
        for values in itertools.product(*samples):
            yield dict(zip(names, values, strict=True))
        return
    for name, values in zip(names, samples, strict=True):
        yield from ({name: value} for value in values)


def _check_field(name: str, known: dict[str, Any], experiment: AnyExperiment) -> None:
    """Refuses a name that is not a field, and fields that are the same for all trials."""
    if name in _SWEEP_FIELDS:
        raise UserError(f"--search {name}: it is the same for all trials of a sweep; search another field.")
    parent = name.rpartition(".")[0]
    if name in known or get_origin(known.get(parent)) is dict:
        return
    closest = closest_field(name, known)
    hint = f"did you mean {closest}?" if closest else f"{_help_command(experiment)} lists all of them."
    raise UserError(f"--search {name}: not a field of the experiment; {hint}")


def _help_command(experiment: AnyExperiment) -> str:
    """The command that lists the fields of experiments of this kind; the name of one need not be a command's."""
    if isinstance(experiment, ActingExperiment):
        return f"ctm-rl train --env {shlex.quote(experiment.env.id)} --help-all"
    return "ctm-rl train parity --help-all"
