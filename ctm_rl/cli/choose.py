"""Which experiment a command line means: by its name, by an environment, or in a file; and what it changes."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.cli.parser import parse
from ctm_rl.configs import for_env, load, names
from ctm_rl.errors import UserError, expand

SOURCES = ("--env", "--config")
SHORT = {"--env-kwargs": "--env.kwargs", "--tolerate-env-faults": "--env.tolerate-faults"}
"""Options that have a second name."""


def read_experiment(command: str, arguments: list[str], also: type[Any] | None = None) -> AnyExperiment:
    """Finds the experiment that is meant, with the fields that are changed by name.

    Args:
        command: what is to be done with it.
        arguments: what stands behind the command.
        also: other options that the command takes.
    """
    experiment, rest, prog = choose(command, arguments)
    chosen = experiment.env.kwargs
    experiment = parse(type(experiment), rest, prog, default=experiment, also=also)
    # What is said of the environment's arguments changes those of the experiment, one by one.
    env = dataclasses.replace(experiment.env, kwargs={**chosen, **experiment.env.kwargs})
    return dataclasses.replace(experiment, env=env)


def choose(
    command: str, arguments: list[str], default: AnyExperiment | None = None
) -> tuple[AnyExperiment, list[str], str]:
    """Finds the experiment that is meant: by its name, by an environment, or in a file.

    Args:
        command: what is to be done with it.
        arguments: what stands behind the command.
        default: what is meant if nothing is said; ``None``: something has to be said.

    Returns:
        The experiment, the remaining arguments, and the command so far, for messages.
    """
    choices: list[tuple[str, str]] = []
    rest: list[str] = []
    remaining = list(arguments)
    if remaining and not remaining[0].startswith("-"):
        choices.append(("", remaining.pop(0)))
    while remaining:
        argument = remaining.pop(0)
        option, equals, value = argument.partition("=")
        if option not in SOURCES:
            rest.append(SHORT.get(option.replace("_", "-"), option) + equals + value)
            continue
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise UserError(f"{option} needs a value: {'an environment' if option == '--env' else 'a file'}.")
            value = remaining.pop(0)
        choices.append((option, value))
    if default is not None and not choices:
        return default, rest, f"ctm-rl {command}"
    if len(choices) != 1:
        problem = "only one of them is allowed" if choices else "none is given"
        raise UserError(
            f"{command} needs an experiment first ({', '.join(names())}), or --env ID, or --config FILE; {problem}."
        )
    ((option, value),) = choices
    prog = " ".join(filter(None, (f"ctm-rl {command}", option, value)))
    if option == "--env":
        experiment = checked(lambda: for_env(value))
    elif option == "--config":
        from ctm_rl.agents.run_directory.directory import load_config

        experiment = load_config(expand(value))
    else:
        experiment = load(value)
    return experiment, rest, prog


def checked(make: Callable[[], AnyExperiment]) -> AnyExperiment:
    """Makes an experiment of what a person gave; its refusal is theirs to read."""
    try:
        return make()
    except ValueError as error:
        raise UserError(str(error)) from error
