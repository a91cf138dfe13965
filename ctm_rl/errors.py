"""Errors whose message the command line prints without a traceback; standard library only."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

MAX_MESSAGE = 4000
"""Longest message, in characters."""
MAX_WORD = 400
"""Longest word in it."""
_LONG_WORD = re.compile(rf"\S{{{MAX_WORD + 1},}}")


class UserError(ValueError):
    """A wrong name, value, path or machine; the message is one line that describes what is allowed."""

    exit_code = 2
    """Exit code of the command line."""

    def __str__(self) -> str:
        """The message, without what would control a terminal, and not longer than a person reads."""
        return shortened(escape_controls(super().__str__()))


def escape_controls(text: str) -> str:
    """Replaces characters that a terminal obeys or cannot show by their escapes; line breaks and tabs stay.

    Args:
        text: parts of it may come from files or names that somebody else has made.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t" else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    """A character as an escape; a byte of a file name that is no text, as it is in ``os.listdir``, as that byte."""
    if "\udc80" <= sign <= "\udcff":
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()


def shortened(text: str) -> str:
    """Cuts words and texts that are too long for a message in their middle."""
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 :]}"
    return _LONG_WORD.sub(lambda word: f"{word[0][: MAX_WORD // 2]}...{word[0][-MAX_WORD // 2 :]}", text)


class CodeError(UserError):
    """Code that a configuration or a checkpoint names is not trusted, not there, or not what it has to be."""


class EnvFault(UserError):
    """An environment raised or left its spaces; the message names it, the fault, and the episode to reproduce it."""

    exit_code = 1


class Diverged(UserError):
    """Training has come to numbers that are not finite; the message names the step or the sample, and the way out."""

    exit_code = 1


@contextlib.contextmanager
def user_errors(*others: type[Exception]) -> Iterator[None]:
    """Reports what the body refuses as a mistake of the user.

    Args:
        others: exceptions that are such refusals as well, beside ``ValueError``.

    Raises:
        UserError: with the same message.
    """
    try:
        yield
    except (ValueError, *others) as error:
        raise UserError(str(error)) from error


def expand(path: str | Path) -> Path:
    """The path with ``~`` expanded.

    Raises:
        UserError: it names the home of an unknown user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} cannot be found: {error} Name the directory itself.") from error


def sentence(text: object) -> str:
    """A message as a sentence, with a full stop unless it ends with a mark, so that another one can follow it."""
    shown = str(text).rstrip()
    return shown if shown.endswith((".", "?", "!")) else f"{shown}."


def printable(text: object, max_length: int = 200) -> str:
    """A name or text of a foreign file as it may be written to a terminal.

    Args:
        text: a name, a path, another library's message.
        max_length: characters that are kept; of a longer text the middle is left out.

    Returns:
        One line: whatever controls a terminal, and bytes that are not text, are written as escapes.
    """
    shown = str(text)
    if len(shown) > max_length:
        shown = f"{shown[: max_length // 2]}...{shown[-max_length // 2 :]}"
    return "".join(char if char.isprintable() else _escape(char) for char in shown)
