"""A window that shows frames, by pygame."""

import importlib.util
import os
import sys
from typing import Any

import numpy as np

from ctm_rl.agents.evaluation.frames import fit

_HAS_DISPLAY = sys.platform in ("darwin", "win32")
"""Elsewhere, variables of the environment say so."""
_MIN_SIDE = 480
"""Smaller frames open a larger window."""


def find_obstacle() -> str | None:
    """Returns why no window can be opened; ``None``: one can."""
    has_display = _HAS_DISPLAY or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    )
    if not has_display:
        return "there is no display"
    if importlib.util.find_spec("pygame") is None:
        return "pygame is not installed: pip install pygame-ce"
    import pygame

    try:
        pygame.display.init()
    except pygame.error as error:
        return f"the display cannot be used ({error})"
    return None


class Window:
    """A window of changeable size, which Escape, Q or its button closes.

    Args:
        title: of the window.
    """

    def __init__(self, title: str) -> None:
        self._title = title

    def show(self, frame: np.ndarray) -> bool:
        """Shows a frame, [H, W, 3], as large as fits; returns whether the window is still open."""
        import pygame

        screen = pygame.display.get_surface() if pygame.display.get_init() else None
        if screen is None:  # environments that draw with pygame end it with an episode
            screen = self._open(frame)
        if any(_is_close(event) for event in pygame.event.get()):
            self.close()
            return False
        image = fit(frame, *screen.get_size())
        picture = pygame.image.frombuffer(image.tobytes(), image.size, "RGB")
        screen.fill("black")
        screen.blit(picture, [(whole - part) // 2 for whole, part in zip(screen.get_size(), image.size, strict=True)])
        pygame.display.flip()
        return True

    def close(self) -> None:
        """Closes the window."""
        import pygame

        pygame.display.quit()

    def _open(self, frame: np.ndarray) -> Any:
        """Opens the window."""
        import pygame

        pygame.display.init()
        factor = max(1, -(-_MIN_SIDE // min(frame.shape[:2])))
        screen = pygame.display.set_mode((frame.shape[1] * factor, frame.shape[0] * factor), pygame.RESIZABLE)
        pygame.display.set_caption(self._title)
        return screen


def _is_close(event: Any) -> bool:
    """Whether somebody wants the window closed."""
    import pygame

    is_key = event.type == pygame.KEYDOWN and event.key in (pygame.K_ESCAPE, pygame.K_q)
    return event.type == pygame.QUIT or is_key
