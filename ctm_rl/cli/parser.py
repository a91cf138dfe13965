"""Command-line options from a dataclass by tyro; what tyro says about a mistake in a box becomes one line here."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import types
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from ctm_rl.errors import UserError

Options = TypeVar("Options")

_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
_RULE = re.compile(r"[─-]{3,}")


def parse(
    kind: type[Options],
    arguments: Sequence[str],
    prog: str,
    default: Options | None = None,
    also: type[Any] | None = None,
) -> Options:
    """Reads options into a dataclass.

    Args:
        kind: the dataclass.
        arguments: what stands on the command line, without the command.
        prog: the command, for the help text and messages.
        default: where fields that are not given are taken from; ``None``: the class's own defaults.
        also: another dataclass whose options the command takes, see ``divide``; one of them may have been meant.

    Returns:
        The dataclass, checked by itself.

    Raises:
        UserError: one line naming the option and what is allowed.
        SystemExit: help was asked for, and has been written.
    """
    known = dict(_list_options(kind, ""))
    given = _spell_out_booleans(arguments, known)
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured), _wide_terminal(is_needed=not {"-h", "--help"} & set(given)):
            if default is None:
                return tyro.cli(kind, args=given, prog=prog)
            return tyro.cli(kind, args=given, prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        known |= {} if also is None else dict(_list_options(also, ""))
        raise UserError(_explain(captured.getvalue(), given, known, prog)) from None


def divide(kind: type[Any], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates the options of one dataclass, with their values, from everything else.

    Args:
        kind: the dataclass.
        arguments: what stands on the command line, without the command.

    Returns:
        The arguments that belong to the dataclass, and the others, both in their order.
    """
    known = {name for name, _ in _list_options(kind, "")}
    own: list[str] = []
    others: list[str] = []
    target = others
    for argument in arguments:
        if argument.startswith("-") and not argument[1:2].isdigit():
            option = argument.partition("=")[0].replace("_", "-")
            target = own if option.replace("--no-", "--", 1) in known else others
        target.append(argument)
    return own, others


def _list_options(kind: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """All options of a dataclass with the type of each, nested ones by their full name."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        name = f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(hint):
            yield from _list_options(hint, f"{name}.")
        else:
            yield f"--{name}", hint


def _spell_out_booleans(arguments: Sequence[str], known: dict[str, Any]) -> list[str]:
    """Lets yes-or-no options take True or False as well: ``--a.b False`` becomes ``--a.no-b``."""
    remaining = list(arguments)
    result = []
    while remaining:
        argument = remaining.pop(0)
        option, _, value = argument.partition("=")
        option = option.replace("_", "-")
        if known.get(option) is not bool:
            result.append(argument)
            continue
        if not value and remaining and remaining[0].lower() in ("true", "false"):
            value = remaining.pop(0)
        if value.lower() == "false":
            head, dot, leaf = option[2:].rpartition(".")
            option = f"--{head}{dot}no-{leaf}"
        elif value and value.lower() != "true":
            raise UserError(f"{option} must be True or False, got {value!r}.")
        result.append(option)
    return result


@contextlib.contextmanager
def _wide_terminal(*, is_needed: bool) -> Iterator[None]:
    """Keeps tyro from breaking the lines of its messages: they are put into one line afterwards."""
    before = os.environ.get("COLUMNS")
    if is_needed:
        os.environ["COLUMNS"] = "4000"
    try:
        yield
    finally:
        if is_needed:
            del os.environ["COLUMNS"]
            if before is not None:
                os.environ["COLUMNS"] = before


def _explain(box: str, arguments: list[str], known: dict[str, Any], prog: str) -> str:
    """Puts tyro's message into one line that says what is allowed."""
    # The box is drawn in two ways, depending on what the terminal can show; its first line is a title.
    stripped = (line.strip("│╭╮╰╯ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:])
    lines = [line for line in stripped if line]
    if lines and _RULE.fullmatch(lines[0]):
        del lines[0]
    end = next((index for index, line in enumerate(lines) if _RULE.fullmatch(line)), len(lines))
    message = " ".join(" ".join(lines[:end]).split())
    if message.startswith("Unrecognized options:"):
        return _explain_unknown(message.partition(":")[2].split(",")[0].strip(), known, prog)
    match = re.match(r"Error parsing (\S+): (.*)", message)
    if match and match.group(1) in known:
        option = match.group(1)
        return f"{option} must be {_describe(known[option])}, got {_value_of(option, arguments)}."
    if match:
        # A dataclass refused its values; the models name their fields alone.
        group, reason = match.groups()
        is_field = f"--{group}.{reason.split(' ', 1)[0].replace('_', '-')}" in known
        return f"{group}.{reason}" if is_field else reason
    match = re.search(r"'(--\S+)'", message)
    if match and match.group(1) in known:
        option = match.group(1)
        allowed = _describe(known[option])
        if message.startswith("Missing value"):
            return f"{option} needs a value: {allowed}."
        return f"{option} must be {allowed}, got {_value_of(option, arguments)}."
    if message.startswith("Required options") or "(required)" in box:
        described = [index for index, line in enumerate(lines) if line.endswith("(required)")]
        message = f"{prog.removeprefix('ctm-rl ')} needs {' and '.join(lines[index - 1] for index in described)}"
    return f"{message.rstrip('.')}; see {prog} --help."


def _explain_unknown(token: str, known: dict[str, Any], prog: str) -> str:
    """Says which option may have been meant."""
    if not token.startswith("-"):
        return f"unexpected argument {token!r}; options are --name value, see {prog} --help."
    option = token.partition("=")[0].replace("_", "-")
    leaf = option.lstrip("-").rsplit(".", 1)[-1]
    same = [name for name in known if name[2:].rsplit(".", 1)[-1] == leaf]
    leaves = {name[2:].rsplit(".", 1)[-1]: name for name in known}
    near = [leaves[found] for found in difflib.get_close_matches(leaf, list(leaves), n=1)]
    close = same or difflib.get_close_matches(option, list(known), n=1, cutoff=0.75) or near
    allowed = f"did you mean {close[0]}? All are listed by" if close else "all options are listed by"
    return f"unknown option {option}; {allowed} {prog} --help."


def _describe(hint: Any) -> str:
    """A type in a person's words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("None" if part is type(None) else _describe(part) for part in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"{_describe(arguments[0])}, any number of times, with spaces between"
    if origin is dict:
        return """a JSON object, as '{"size": 5}'"""
    return _WORDS.get(hint, "given")


def _value_of(option: str, arguments: list[str]) -> str:
    """What was given for an option."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") != option:
            continue
        if equals:
            return repr(value)
        rest = arguments[index + 1 :]
        count = next((place for place, item in enumerate(rest) if item.startswith("--")), len(rest))
        return repr(" ".join(rest[:count]))
    return "nothing"
