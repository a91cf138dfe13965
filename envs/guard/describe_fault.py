"""What counts as a fault of an environment, and its description: what the guards have in common."""

import traceback
from pathlib import Path

from ctm_rl.envs.guard import timeout
from ctm_rl.envs.guard.timeout import StepTimeout


class Misbehaviour(Exception):
    """An environment returned something invalid; the message follows the environment's name."""


def describe(error: BaseException, time_limit: float | None) -> str:
    """Describes a fault in words that follow the environment's name.

    Args:
        error: a ``Misbehaviour``, a ``StepTimeout``, or whatever the environment raised.
        time_limit: seconds that were allowed.

    Returns:
        What happened; of errors and timeouts with the file and line.
    """
    if isinstance(error, Misbehaviour):
        return str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != timeout.__file__]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, StepTimeout):
        return f"took longer than {time_limit:g} seconds{place}"
    reason = " ".join(str(error).split())
    return f"raised {type(error).__name__}{': ' if reason else ''}{reason[:200]}{place}"
