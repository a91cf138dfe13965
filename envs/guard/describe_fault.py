"""What counts as a fault of an environment, and its description: what the guards have in common."""

import traceback
from pathlib import Path
from typing import Any

from ctm_rl.envs.guard import timeout
from ctm_rl.envs.guard.timeout import StepTimeout

FAULTS = (Exception, StepTimeout, SystemExit)
"""Everything that an environment may raise and that is its fault: not the signals of the process."""


class Misbehaviour(Exception):
    """An environment returned something invalid; the message follows the environment's name."""


class BadObservation(Misbehaviour):
    """An environment returned an observation that has no form of its space; the message follows "that" or "whose"."""


def is_stop(error: BaseException) -> bool:
    """Whether this is Ray ending its worker process, which it does by ``SystemExit`` in the middle of a step."""
    return isinstance(error, SystemExit) and hasattr(error, "ray_terminate_msg")


def describe(error: BaseException, time_limit: float | None) -> str:
    """Describes a fault in words that follow the environment's name.

    Args:
        error: a ``Misbehaviour``, a ``StepTimeout``, or whatever the environment raised.
        time_limit: seconds that were allowed.

    Returns:
        What happened; of errors and timeouts with the file and line.
    """
    if isinstance(error, BadObservation):
        return f"returned {observed(str(error))}"
    if isinstance(error, Misbehaviour):
        return str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != timeout.__file__]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, StepTimeout):
        return f"took longer than {time_limit:g} seconds{place}"
    reason = " ".join(str(error).split())
    return f"raised {type(error).__name__}{': ' if reason else ''}{reason[:200]}{place}"


def observed(problem: str) -> str:
    """An observation, or a batch of them, with what is wrong with it or with one of its parts."""
    return f"an observation {'whose' if problem.startswith('part ') else 'that'} {problem}"


def short(value: Any) -> str:
    """A value for a message, shortened."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an object of the environment's own, or a number of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
