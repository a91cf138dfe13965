"""The one error that a person can cause: a command line shows its message alone, without a traceback."""

from pathlib import Path


class UserError(ValueError):
    """A wrong name, value, path or machine; the message is one line that says what is allowed."""

    exit_code = 2
    """What the command line returns."""


def expand(path: str | Path) -> Path:
    """A path with ``~`` written out.

    Raises:
        UserError: it names the home of a user that is not known here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} cannot be found: {error} Name the directory itself.") from error
