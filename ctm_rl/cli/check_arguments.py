"""Command-line options from a dataclass: checked here, one line for each mistake, then read by tyro.

tyro reports mistakes in boxes drawn for a terminal. Everything that a single argument can get wrong is therefore found
before tyro is called, from the types of the dataclass's fields; what the dataclass itself refuses, when tyro builds
it, is found in the chain of exceptions.
"""

import contextlib
import dataclasses
import io
import types
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from ctm_rl.agents.experiments.fields import closest_field, fields_of
from ctm_rl.agents.experiments.json_option import read_json_object
from ctm_rl.cli.aliases import HINTS, alias_of, check_meaning, closest_alias
from ctm_rl.errors import UserError

Options = TypeVar("Options")

HELP = ("-h", "--help")
HELP_ALL = "--help-all"
_DASHES = "-\u2013\u2014"
"""What stands before an option; text editors make other dashes of two."""
_DESCRIPTIONS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}


@dataclasses.dataclass(frozen=True, slots=True)
class _Option:
    """One option of a command, or one positional argument."""

    name: str
    """As typed: ``--ppo.lr``; of a positional argument what stands for it in the usage, as ``DIR``."""
    hint: Any
    """The type of its value; of an option that is repeated, the type of one of its values."""
    usage: str
    """The option with its value, for a message."""
    is_positional: bool = False
    is_required: bool = False

    @property
    def is_list(self) -> bool:
        """Whether any number of values may follow."""
        return get_origin(self.hint) is tuple

    @property
    def negation(self) -> str:
        """The option that sets a boolean to False: ``--a.no-b``."""
        group, dot, leaf = self.name[2:].rpartition(".")
        return f"--{group}{dot}no-{leaf}"


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
        arguments: the command line after the command.
        prog: the command, for the help text and messages.
        default: values of the fields that are not given; ``None``: the class's own defaults.
        also: another dataclass whose options the command takes, see ``divide``; suggestions include them.

    Returns:
        The dataclass, checked by itself.

    Raises:
        UserError: one line naming the option and what is allowed.
        SystemExit: help was requested, and has been written.
    """
    options = _options_of(kind)
    if is_help(arguments):
        arguments = [HELP[0]]
    else:
        arguments = _translate(arguments, options, getattr(default, "num_env_runners", 0))
        suggestions = [*options, *([] if also is None else _options_of(also))]
        arguments = _check(arguments, options, prog, suggestions, has_default=default is not None)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(
                kind, args=arguments, prog=prog, default=tyro.MISSING_NONPROP if default is None else default
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_explain_refusal(stop, options, prog)) from None


def is_help(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for help, short or whole."""
    return bool({*HELP, HELP_ALL} & set(arguments))


def divide(kind: type[Any], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates the options of one dataclass, with their values, from everything else.

    Args:
        kind: the dataclass.
        arguments: the command line after the command.

    Returns:
        The arguments that belong to the dataclass, and the others, both in their order.
    """
    options = _options_of(kind).values()
    known = {option.name for option in options} | {option.negation for option in options if option.hint is bool}
    own: list[str] = []
    others: list[str] = []
    target = others
    for argument in arguments:
        if _is_option(argument):
            target = own if _name_of(argument) in known else others
        target.append(argument)
    return own, others


def _options_of(kind: Any) -> dict[str, _Option]:
    """All options of a dataclass by their names, those of nested dataclasses by their full names."""
    annotated = get_type_hints(kind, include_extras=True)
    required = {field.name for field in dataclasses.fields(kind) if _is_required(field)}
    options = {}
    for field, hint in fields_of(kind).items():
        markers = getattr(annotated.get(field), "__metadata__", ())
        metavar = next((marker.metavar for marker in markers if getattr(marker, "metavar", None)), "VALUE")
        is_positional = tyro.conf.Positional in markers
        name = metavar if is_positional else f"--{field.replace('_', '-')}"
        usage = name if is_positional else f"{name} {metavar}"
        item = get_args(hint)[0] if tyro.conf.UseAppendAction in markers else hint
        options[name] = _Option(name, item, usage, is_positional, field in required)
    return options


def _is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether a field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _translate(arguments: Sequence[str], options: dict[str, _Option], num_env_runners: int) -> list[str]:
    """Replaces the names that other libraries have for options by ours.

    Raises:
        UserError: such a name means something else here; one line says what to use.
    """
    negations = {option.negation for option in options.values() if option.hint is bool}
    result: list[str] = []
    for index, argument in enumerate(arguments):
        name = _name_of(argument)
        if argument == "--":
            return [*result, *arguments[index:]]
        if not _is_option(argument) or name in options or name in negations:
            result.append(argument)
            continue
        alias = alias_of(name, {*options, *negations})
        if alias is not None:
            check_meaning(name, _number_given(arguments, "--num-env-runners", num_env_runners))
        elif name in HINTS:
            raise UserError(f"there is no {name}: {HINTS[name]}.")
        result.append(argument if alias is None else alias + argument[len(name) :])
    return result


def _number_given(arguments: Sequence[str], option: str, default: int) -> int:
    """The whole number that a command line gives an option; what is none is refused later."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if _name_of(argument) == option:
            value = argument.partition("=")[2] or following
            default = int(value) if value.isdecimal() else default
    return default


def _is_option(argument: str) -> bool:
    """Whether an argument names an option; -1 and -inf are values."""
    return argument.startswith("-") and argument.lstrip("-")[:1].isalpha() and argument not in ("-inf", "-nan")


def _name_of(argument: str) -> str:
    """The option that an argument names, without a value behind ``=``."""
    return argument.partition("=")[0].replace("_", "-")


def _check(
    arguments: Sequence[str], options: dict[str, _Option], prog: str, suggestions: list[str], *, has_default: bool
) -> list[str]:
    """Checks every argument by itself and returns them for tyro, where booleans take no value.

    Raises:
        UserError: an option is unknown, has no value or one of the wrong type, or a required one is missing.
    """
    missing = {option.name: option for option in options.values() if option.is_required and not has_default}
    positional = [option for option in options.values() if option.is_positional]
    negations = {option.negation for option in options.values() if option.hint is bool}
    remaining = list(arguments)
    listed: list[str] = []
    result: list[str] = []
    is_ended = False
    last = ""
    while remaining:
        argument = remaining.pop(0)
        if argument == "--" and not is_ended:  # the usual convention: what follows are not options
            is_ended = True
            result.append(argument)
            continue
        if is_ended or not _is_option(argument):
            if not positional:
                raise UserError(_unexpected(argument, options, last, prog, suggestions))
            missing.pop(positional[0].name, None)
            # Those of a list stand together, as tyro reads them.
            (listed if positional[0].is_list and not is_ended else result).append(argument)
            positional = positional if positional[0].is_list else positional[1:]
            continue
        name = last = _name_of(argument)
        if name in negations and "=" not in argument:
            result.append(name)
            continue
        if name not in options:
            raise UserError(f"unknown option {name}; {_suggest(name, suggestions)} {prog} {HELP_ALL}.")
        missing.pop(name, None)
        result += _take(options[name], argument, remaining)
    if missing:
        needed = " and ".join(option.usage for option in missing.values())
        raise UserError(f"{prog.removeprefix('ctm-rl ')} needs {needed}; see {prog} --help.")
    return [*listed, *result]


def _take(option: _Option, argument: str, remaining: list[str]) -> list[str]:
    """Takes an option's values from the remaining arguments, checks them, and returns the option for tyro."""
    _, equals, value = argument.partition("=")
    values = [value] if equals else []
    if option.hint is bool:
        if not equals and remaining and remaining[0].lower() in ("true", "false"):
            values = [remaining.pop(0)]
        _check_values(option, values or ["True"])
        return [option.negation if values and values[0].lower() == "false" else option.name]
    while remaining and not _is_option(remaining[0]) and (option.is_list or not values):
        values.append(remaining.pop(0))
    _check_values(option, values)
    values = [_plain(option.hint, value) for value in values]
    return [f"{option.name}={values[0]}", *values[1:]] if equals else [option.name, *values]


def _check_values(option: _Option, values: list[str]) -> None:
    """Raises UserError unless an option can take its values."""
    allowed = _describe(option.hint)
    if not values and not option.is_list:
        raise UserError(f"{option.name} needs a value: {allowed}.")
    if not _accepts(option.hint, values):
        raise UserError(f"{option.name} must be {allowed}, got {' '.join(values)!r}.")


def _accepts(hint: Any, values: list[str]) -> bool:
    """Whether the words of a command line are a value of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_accepts(part, values) for part in arguments)
    if origin is tuple:
        return all(_accepts(arguments[0], [value]) for value in values)
    (value,) = values
    if origin is Literal:
        return value in map(str, arguments)
    if hint is bool:
        return value.lower() in ("true", "false")
    if hint is type(None):
        return value == "None"
    try:
        read_json_object(values) if origin is dict else _whole_number(value) if hint is int else hint(value)
    except (ValueError, RecursionError):
        return False
    return True


def _whole_number(text: str) -> int:
    """Reads a whole number as people write it: 1000000, 1_000_000 or 1e6.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(f"{text} is not a whole number") from None
        return int(number)


def _plain(hint: Any, value: str) -> str:
    """A checked value as tyro reads it: of a whole number its digits."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType, tuple) else (hint,)
    if int not in parts or (type(None) in parts and value == "None"):
        return value
    return str(_whole_number(value))


def _describe(hint: Any) -> str:
    """What a type allows, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("None" if part is type(None) else _describe(part) for part in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"{_describe(arguments[0])}, any number of times, separated by spaces"
    if origin is dict:
        return """a JSON object, such as '{"size": 5}'"""
    return _DESCRIPTIONS[hint]


def _suggest(option: str, known: list[str]) -> str:
    """Names the option that was probably meant, if there is one."""
    member = next((name for name in known if name.startswith(f"{option}.")), None)
    if member is not None:
        return f"it is a group of options, such as {member}; all are listed by"
    closest = closest_field(option.lstrip("-"), [name[2:] for name in known if name.startswith("--")])
    guess = closest_alias(option, known) if closest is None else f"--{closest}"
    return "all options are listed by" if guess is None else f"did you mean {guess}? All are listed by"


def _unexpected(argument: str, options: dict[str, _Option], last: str, prog: str, suggestions: list[str]) -> str:
    """What is wrong with an argument that belongs to no option, whose last one before it is ``last``."""
    if last == "--seed" and "--seeds" in suggestions:
        return f"--seed takes one seed; several are given as --seeds, got another one, {argument!r}."
    if last in options and options[last].hint is bool:
        return f"{last} must be True or False, got {argument!r}."
    name, equals, _ = argument.partition("=")
    option = f"--{name.lstrip(_DASHES).replace('_', '-')}"
    if option in options or alias_of(option, options) is not None:
        return f"unexpected argument {argument!r}; did you mean {option}{'=...' if equals else ''}?"
    return f"unexpected argument {argument!r}; options are --name value, see {prog} --help."


def _explain_refusal(stop: SystemExit, options: dict[str, _Option], prog: str) -> str:
    """Returns what the dataclass refused: tyro exits while it handles that error."""
    error: BaseException | None = stop
    while error is not None and not isinstance(error, ValueError):
        error = error.__context__
    if error is None:
        return f"the options cannot be read; see {prog} --help."
    reason = str(error)
    # The models' configurations name their fields alone; the message names the option's group as well.
    field = reason.partition(" ")[0].replace("_", "-")
    is_model_field = f"--{field}" not in options and f"--model.{field}" in options
    return f"model.{reason}" if is_model_field else reason
