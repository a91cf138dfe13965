"""Errors whose message a command line shows alone, without a traceback; standard library only."""

from pathlib import Path


class UserError(ValueError):
    """A wrong name, value, path or machine; the message is one line that says what is allowed."""

    exit_code = 2
    """What the command line returns."""


class EnvFault(UserError):
    """An environment did what it must not; the message names it, what happened, and the episode to find it again."""

    exit_code = 1


def expand(path: str | Path) -> Path:
    """A path with ``~`` written out.

    Raises:
        UserError: it names the home of a user that is not known here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} cannot be found: {error} Name the directory itself.") from error
