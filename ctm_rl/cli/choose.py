"""Finds the experiment of a command line, by name, environment, data, task or in a file, and the fields it changes."""

import contextlib
import dataclasses
import json
from typing import Any

from ctm_rl.agents.experiments.acting import ActingExperiment, without_effect
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.run_directory.trust import check_trusted, file_claims, import_from_current_folder
from ctm_rl.cli.aliases import ALIASES
from ctm_rl.cli.check_arguments import HELP, is_help, parse
from ctm_rl.cli.short_help import short_help
from ctm_rl.configs import for_data, for_env, for_task, load, names
from ctm_rl.errors import UserError, escape_controls, expand, user_errors
from ctm_rl.named_code import is_code_name

SOURCES = {"--env": "an environment", "--data": "a folder, a file or module:function", "--task": "module:Class"}
SOURCES |= {"--config": "a file"}
"""What names an experiment, beside its name, with what follows."""
SAME_SOURCES = {"--env-id": "--env"}
"""Names that other libraries have for them."""
TRUST = "--trust"
"""Flag of ``--config``: the file is trusted, wherever it comes from."""


def read_experiment(command: str, arguments: list[str], also: type[Any] | None = None) -> AnyExperiment:
    """Returns the experiment of a command line, with the fields that the command line changes.

    Args:
        command: the command, for messages.
        arguments: the command line after the command.
        also: a dataclass with other options of the command, see ``parse``.

    Raises:
        UserError: one line naming the option and what is allowed.
        SystemExit: help was requested, and has been written.
    """
    experiment, rest, prog = choose(command, arguments)
    return changed(experiment, rest, prog, also)


def changed(experiment: AnyExperiment, rest: list[str], prog: str, also: type[Any] | None = None) -> AnyExperiment:
    """Returns an experiment with the fields that a command line changes; see ``read_experiment``."""
    if set(HELP) & set(rest):
        print(escape_controls(short_help(experiment, prog)), end="")
        raise SystemExit(0)
    default = experiment.env.kwargs
    experiment = parse(type(experiment), rest, prog, default=experiment, also=also)
    # The environment's arguments are merged: those that are not given keep their values.
    env = dataclasses.replace(experiment.env, kwargs={**default, **experiment.env.kwargs})
    return dataclasses.replace(experiment, env=env)


def choose(
    command: str, arguments: list[str], default: AnyExperiment | None = None
) -> tuple[AnyExperiment, list[str], str]:
    """Finds the experiment of a command line: by name, or by one of ``SOURCES``.

    Args:
        command: the command, for messages.
        arguments: the command line after the command.
        default: the experiment if the command line names none; ``None``: it has to name one.

    Returns:
        The experiment, the remaining arguments, and the command with the experiment, for messages.
    """
    choices, rest = _split(arguments)
    is_trusted, rest = TRUST in rest, [argument for argument in rest if argument != TRUST]
    if is_trusted and "--config" not in dict(choices):
        raise UserError(f"{TRUST} is for --config FILE; leave it out.")
    if default is not None and not choices:
        return default, rest, f"ctm-rl {command}"
    if not choices:
        named = next((word for word in rest if word in names()), "cartpole")
        raise UserError(
            f"{command} needs an experiment first, such as ctm-rl {command} {named} (all are listed by ctm-rl list), "
            "or --env ID, --data PATH, --task module:Class, or --config FILE; none is given."
        )
    if len(choices) > 1:
        given = " and ".join(" ".join(filter(None, choice)) for choice in choices)
        raise UserError(f"{command} takes one experiment, got {given}; only one of them is allowed.")
    ((option, value),) = choices
    prog = " ".join(filter(None, (f"ctm-rl {command}", option, value)))
    if option == "--env":
        with user_errors():
            experiment = _for_algorithm(for_env(value), rest)
        experiment = dataclasses.replace(experiment, env=dataclasses.replace(experiment.env, target="ask"))
    elif option in ("--data", "--task"):
        import_from_current_folder()
        experiment = _own(option, value, rest)
    elif option == "--config":
        from ctm_rl.agents.run_directory.directory import load_config

        experiment = load_config(expand(value))
        if not is_help(rest):
            _check_file(value, experiment, rest, is_trusted=is_trusted)
        return experiment, rest, prog
    else:
        if is_code_name(value):
            import_from_current_folder()
        experiment = _for_algorithm(load(value), rest)
    import_from_current_folder()
    return experiment, rest, prog


def _for_algorithm(experiment: AnyExperiment, rest: list[str]) -> AnyExperiment:
    """An experiment without those of its own settings that the algorithm of the command line does not have."""
    algorithm = None
    for place, argument in enumerate(rest):
        name, equals, text = argument.partition("=")
        if "--algorithm" in (name, *ALIASES.get(name, ())):
            algorithm = text if equals else next(iter(rest[place + 1 :]), None)
    if algorithm is None or not isinstance(experiment, ActingExperiment):
        return experiment
    defaults: dict[str, Any] = without_effect(experiment, algorithm)
    if defaults and not is_help(rest):
        left_out = ", ".join(f"ppo.{name}" for name in defaults)
        print(f"{experiment.name}: without {left_out}, which algorithm {escape_controls(algorithm)} does not have")
    return dataclasses.replace(experiment, ppo=dataclasses.replace(experiment.ppo, **defaults))


def _own(option: str, value: str, rest: list[str]) -> AnyExperiment:
    """The experiment of the user's own data or task, which is looked at with the arguments of the command line."""
    given: Any = {}
    for place, argument in enumerate(rest):
        name, equals, text = argument.partition("=")
        if name.replace("_", "-") == "--env.kwargs":
            with contextlib.suppress(ValueError, IndexError):  # what is no JSON is reported with the other options
                given = json.loads(text if equals else rest[place + 1])
    given = given if isinstance(given, dict) else {}
    if option == "--task":
        return for_task(value, **given)
    is_quiet = is_help(rest)
    return for_data(value, report=lambda line: None if is_quiet else print(escape_controls(line), flush=True), **given)


def _check_file(file: str, experiment: AnyExperiment, rest: list[str], *, is_trusted: bool) -> None:
    """Refuses a file that asks for what neither the command line nor an own run names."""
    options = {argument.partition("=")[0].replace("_", "-") for argument in rest if argument.startswith("--")}
    options |= {option for name in options for option in ALIASES.get(name, ())}
    # Arguments of the environment are merged, so that the file's remain.
    named = options - {"--env.kwargs", "--env.held-out-kwargs"}
    check_trusted(file_claims(experiment), file, named=named, is_trusted=is_trusted)
    if {"--env.id", "--callbacks"} & options:
        import_from_current_folder()


def _split(arguments: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Separates what names an experiment, as (option or empty, value), from the other arguments."""
    choices: list[tuple[str, str]] = []
    rest: list[str] = []
    remaining = list(arguments)
    if remaining and not remaining[0].startswith("-"):
        choices.append(("", remaining.pop(0)))
    while remaining:
        argument = remaining.pop(0)
        option, equals, value = argument.partition("=")
        option = SAME_SOURCES.get(option.replace("_", "-"), option)
        if option not in SOURCES:
            rest.append(argument)
            continue
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise UserError(f"{option} needs a value: {SOURCES[option]}.")
            value = remaining.pop(0)
        choices.append((option, value))
    return choices, rest
