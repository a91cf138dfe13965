"""What is searched: a field of an experiment and the values it may take, read from text without executing any."""

import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_origin

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
"""Those that name every value."""

_SEARCH = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*=\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_WORD = re.compile(r"[\w.:/@+=-]+")
_WORDS = {"true": True, "false": False, "none": None, "null": None}
_OF_THE_SWEEP = ("name", "run_dir", "address", "storage", "placement")
_NUM_ENUMERATED = 64
"""Whole numbers are tried one by one if there are at most so many."""
_NUM_COMBINED = 2048
"""Values of different fields are tried together if there are at most so many ways to."""


@dataclass(frozen=True, slots=True)
class Search:
    """A field and the values it may take."""

    field: str
    """Its full name."""
    kind: str
    """One of ``FORMS``."""
    arguments: tuple[Any, ...]
    """Bounds, and the step of quniform; or all values."""

    @property
    def is_random(self) -> bool:
        """Whether values are drawn."""
        return self.kind != "grid"

    def samples(self) -> list[Any]:
        """All values, or enough of them to see whether the field takes them: the ends of a range."""
        if self.kind in LISTED:
            return list(self.arguments)
        low, high, *step = self.arguments
        if self.kind == "randint":
            return list(range(low, high)) if high - low <= _NUM_ENUMERATED else [low, high - 1]
        if self.kind == "quniform" and all(isinstance(number, int) for number in self.arguments):
            values = range(low, high + 1, step[0])
            return list(values) if len(values) <= _NUM_ENUMERATED else [low, high]
        return [float(low), float(high)]

    def nearest(self, value: Any) -> Any:
        """The allowed value that is nearest to a number; values that are listed stay."""
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
        text: as it stands on a command line, as ``ppo.lr=loguniform(1e-4,3e-3)``.

    Returns:
        The search; whether there is such a field is not known yet.

    Raises:
        UserError: one line naming what is wrong and what is allowed.
    """
    match = _SEARCH.fullmatch(text)
    if match is None:
        raise UserError(f"--search must be FIELD=FUNCTION(VALUES), as 'ppo.lr=loguniform(1e-4,3e-3)', got {text!r}.")
    field, kind, inside = match.groups()
    field = field.replace("-", "_")
    if kind not in FORMS:
        raise UserError(f"--search {field}: unknown function {kind!r}; there are {', '.join(FORMS.values())}.")
    arguments = tuple(_read_value(part, field) for part in _split(inside)) if inside.strip() else ()
    if kind in LISTED:
        if not arguments:
            raise UserError(f"--search {field}: {kind} needs one value at least, as {FORMS[kind]}.")
    else:
        _check_range(field, kind, arguments)
    return Search(field, kind, arguments)


def _split(inside: str) -> Iterator[str]:
    """Cuts at commas that are in no brackets and no quotes."""
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
    """One value: what JSON knows, True, False, None, or a word."""
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
    """Refuses bounds that are no numbers, in the wrong order, or with nothing between them."""
    said = f"{kind}({','.join(map(str, arguments))})"
    count = 3 if kind == "quniform" else 2
    kinds = int if kind == "randint" else (int, float)
    if len(arguments) != count or any(isinstance(item, bool) or not isinstance(item, kinds) for item in arguments):
        what = "whole numbers" if kind == "randint" else "numbers"
        raise UserError(f"--search {field}: {FORMS[kind]} takes {count} {what}, got {said}.")
    low, high, *step = arguments
    if low >= high:
        raise UserError(f"--search {field}: {said} is empty: {low} must be below {high}.")
    if kind == "loguniform" and low <= 0:
        raise UserError(f"--search {field}: loguniform needs bounds above 0, got {said}.")
    if step and (step[0] <= 0 or any(abs(end / step[0] - round(end / step[0])) > 1e-9 for end in (low, high))):
        raise UserError(f"--search {field}: the bounds of {said} must be multiples of its step, which is above 0.")


def with_values(experiment: AnyExperiment, config: Config) -> AnyExperiment:
    """Gives an experiment other values, checked as those of its ``config.json`` are.

    Args:
        experiment: what the other fields are taken from.
        config: the values.

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
    """Refuses fields that there are not, and values that they do not take, alone or together.

    Args:
        experiment: what is searched from.
        searches: what is searched.

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
            said = ", ".join(f"{name} {value}" for name, value in config.items())
            raise UserError(f"a trial with {said} cannot be run: {error}") from error


def combinations(searches: list[Search]) -> Iterator[Config]:
    """Values that fields may get, together; alone, the others as they were, if there are very many ways to combine."""
    names, samples = [search.field for search in searches], [search.samples() for search in searches]
    if math.prod(map(len, samples)) <= _NUM_COMBINED:
        for values in itertools.product(*samples):
            yield dict(zip(names, values, strict=True))
        return
    for name, values in zip(names, samples, strict=True):
        yield from ({name: value} for value in values)


def _check_field(name: str, known: dict[str, Any], experiment: AnyExperiment) -> None:
    """Refuses a name that is no field, and fields that belong to the sweep."""
    if name in _OF_THE_SWEEP:
        raise UserError(f"--search {name}: it is the sweep's own, and the same for all trials; search another field.")
    parent = name.rpartition(".")[0]
    if name in known or get_origin(known.get(parent)) is dict:
        return
    closest = closest_field(name, known)
    hint = f"did you mean {closest}?" if closest else f"ctm-rl train {experiment.name} --help lists all."
    raise UserError(f"--search {name}: it is no field of the experiment; {hint}")
