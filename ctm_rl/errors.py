"""Errors whose message the command line prints without a traceback; standard library only."""

from pathlib import Path


class UserError(ValueError):
    """A wrong name, value, path or machine; the message is one line that describes what is allowed."""

    exit_code = 2
    """Exit code of the command line."""


class EnvFault(UserError):
    """An environment raised or left its spaces; the message names it, the fault, and the episode to reproduce it."""

    exit_code = 1


def expand(path: str | Path) -> Path:
    """The path with ``~`` expanded.

    Raises:
        UserError: it names the home of an unknown user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} cannot be found: {error} Name the directory itself.") from error
