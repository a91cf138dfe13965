"""Calls the callbacks of a run, one after the other; an exception is reported with where it was raised."""

import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctm_rl.agents.callbacks.callback import Callback, RunView
from ctm_rl.errors import UserError


class CallbackFailed(UserError):
    """A callback has raised an exception, which is the cause; the message names callback, method and line."""

    exit_code = 1


class Calls:
    """Calls the methods of callbacks.

    Args:
        callbacks: with what messages call them, in the order in which they are called.
    """

    def __init__(self, callbacks: Sequence[tuple[str, Callback]]) -> None:
        self._callbacks = callbacks

    def has(self, method: str) -> bool:
        """Whether a callback overrides a method."""
        return any(getattr(type(one), method) is not getattr(Callback, method) for _, one in self._callbacks)

    def call(self, method: str, run: RunView, *arguments: Any) -> None:
        """Calls a method of every callback.

        Args:
            method: its name.
            run: stopped if the method returns False.
            *arguments: beside the run.

        Raises:
            CallbackFailed: a callback has raised an exception; those after it are not called.
        """
        for name, callback in self._callbacks:
            try:
                answer = getattr(callback, method)(run, *arguments)
            except (Exception, SystemExit) as error:  # whatever a callback may raise
                raise CallbackFailed(f"callback {name} failed in {method}{_place(error)}: {_text(error)}.") from error
            if isinstance(answer, (bool, np.bool_)) and not answer:
                run.stop(f"{name}.{method} returned False")


def _text(error: BaseException) -> str:
    """An exception's type and message, in one line."""
    if isinstance(error, SystemExit):
        return "it called exit(), which ends no run; call run.stop(reason)"
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    """The innermost line outside of installed packages, or else the innermost, as `` (file.py:3)``."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    if not frames:
        return ""
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    file = Path(own[-1].filename)
    try:
        short = file.relative_to(os.getcwd()) if file.is_absolute() else file
    except (OSError, ValueError):
        short = file
    return f" ({short}:{own[-1].lineno})"
