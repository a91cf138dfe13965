"""The one error that a person can cause: a command line shows its message alone, without a traceback."""


class UserError(ValueError):
    """A wrong name, value, path or machine; the message is one line that says what is allowed."""

    exit_code = 2
    """What the command line returns."""
