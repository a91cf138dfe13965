"""Keeps pygame, which many environments draw with, silent: no sound card, no greeting, no screen of its own."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def silent_pygame(*, has_window: bool = False) -> Iterator[None]:
    """Keeps pygame, which many environments draw with, from opening a sound card and greeting, inside the body.

    Args:
        has_window: whether there is a window; otherwise no screen is opened either.
    """
    values = {"SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    values |= {} if has_window else {"SDL_VIDEODRIVER": "dummy"}
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
