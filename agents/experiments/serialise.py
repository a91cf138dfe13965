"""Writes experiments as JSON and reads them strictly."""

import dataclasses
import difflib
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.answering import AnsweringExperiment

_MAX_WHOLE = 2**63 - 1
"""Largest whole number that torch and numpy take."""
AnyExperiment = ActingExperiment | AnsweringExperiment


def to_json(experiment: AnyExperiment) -> dict[str, Any]:
    """Returns an experiment as values that JSON can hold; ``from_json`` is the inverse."""
    return _plain(dataclasses.asdict(experiment))


def from_json(values: object) -> AnyExperiment:
    """Builds an experiment, strictly: a field that is unknown, missing or of the wrong type is refused by its name.

    Args:
        values: the result of ``json.load``; fields with a default may be left out.

    Returns:
        The experiment, checked; one with a ``signal`` answers, any other acts.

    Raises:
        ValueError: one line naming the field and what is allowed.
    """
    is_supervised = isinstance(values, dict) and "signal" in values
    return build(AnsweringExperiment if is_supervised else ActingExperiment, values)


def _plain(value: Any) -> Any:
    """Replaces tuples by lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def build(kind: Any, values: object, path: str = "") -> Any:
    """Builds a dataclass from a JSON object, strictly.

    Args:
        kind: the dataclass.
        values: the result of ``json.load``.
        path: the full name of the object in messages.

    Raises:
        ValueError: one line naming the field and what is allowed.
    """
    where = path or "experiment"
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a JSON object of fields, got {_shorten(values)}.")
    hints = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            near = _nearest(str(name), list(fields))
            raise ValueError(f"{_join(path, str(name))} is not a field of the {where}; {near}.")
    for name, item in fields.items():
        is_required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if is_required and name not in values:
            raise ValueError(f"{_join(path, name)} is missing.")
    built = {name: _convert(hints[name], value, _join(path, name)) for name, value in values.items()}
    try:
        return kind(**built)
    except ValueError as error:
        # The models' configurations name their fields alone; the message names the group as well.
        message = str(error)
        if path and not message.startswith(f"{path}.") and message.split(" ", 1)[0] in fields:
            message = f"{path}.{message}"
        raise ValueError(message) from error


def _convert(hint: Any, value: object, path: str) -> Any:
    """Checks one JSON value against a field's type and converts it."""
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _convert(inner, value, path)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{path} must be one of {', '.join(map(str, arguments))}; got {_shorten(value)}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{path} must be a list, got {_shorten(value)}.")
        return tuple(_convert(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    return _convert_plain(dict if origin is dict else hint, value, path)


def _convert_plain(hint: Any, value: object, path: str) -> Any:
    """Checks one JSON value against a plain type."""
    # bool is a subclass of int in Python.
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e6 is a float in JSON and YAML
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(min(max(value, -(10**300)), 10**300))  # no float is larger than about 1e308
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a JSON object"}
        raise ValueError(f"{path} must be {names[hint]}, got {_shorten(value)}.")
    if hint is int and not -_MAX_WHOLE <= value <= _MAX_WHOLE:  # pyright: ignore[reportOperatorIssue]
        raise ValueError(f"{path} must be at most {_MAX_WHOLE}, got {_shorten(value)}.")
    return value


def _shorten(value: object) -> str:
    """A value in a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(path: str, name: str) -> str:
    """The full name of a field."""
    return f"{path}.{name}" if path else name


def _nearest(name: str, choices: list[str]) -> str:
    """Names the allowed choices, and the closest one first if there is one."""
    close = difflib.get_close_matches(name, choices, n=1)
    listed = ", ".join(choices)
    return f"did you mean {close[0]}? Allowed: {listed}" if close else f"allowed: {listed}"
