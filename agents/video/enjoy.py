"""Shows a policy at play: in a window, on a terminal, or as lines of text."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Literal

from rich.console import Console

from ctm_rl.agents.evaluation.silent_pygame import silent_pygame
from ctm_rl.agents.video.player import Player, Shown
from ctm_rl.agents.video.record import frame_of, painter
from ctm_rl.agents.video.terminal import TerminalScreen, plain_line
from ctm_rl.agents.video.window import Window, find_obstacle
from ctm_rl.errors import UserError

Screen = Literal["auto", "window", "terminal", "lines"]
"""Where a policy is shown: in a window where there is a display, otherwise on the terminal, in colours if it has some
(auto)."""
Show = Callable[[Shown], bool]
"""Shows a step; returns whether to go on."""


def choose_screen(wanted: Screen, console: Console) -> tuple[Screen, str | None]:
    """Decides where to show a policy.

    Args:
        wanted: by the user.
        console: standard output.

    Returns:
        Where, and a line on why it is not in a window, if that may be news; ``None``: it is not.

    Raises:
        UserError: it cannot be shown where it is wanted.
    """
    has_colours = console.is_terminal and console.color_system in ("truecolor", "256")
    if wanted == "terminal" and not has_colours:
        missing = "has no 256 colours" if console.is_terminal else "is not a terminal"
        raise UserError(f"--screen terminal cannot be used: standard output {missing}; take --screen lines.")
    if wanted in ("terminal", "lines"):
        return wanted, None
    obstacle = find_obstacle()
    if obstacle is None:
        return "window", None
    if wanted == "window":
        raise UserError(f"--screen window cannot be used: {obstacle}; take --screen terminal or lines.")
    note = None if obstacle == "there is no display" else f"shown in the terminal, since {obstacle}."
    return ("terminal" if has_colours else "lines"), note


def enjoy(player: Player, screen: Screen, console: Console, *, with_thinking: bool) -> list[float]:
    """Plays and shows, as fast as the environment's frames are meant to be shown.

    Ends early, without an error, where Ctrl-C is pressed, the window closed, or nobody reads the lines any more.

    Args:
        player: who plays.
        screen: where, from ``choose_screen``.
        console: standard output.
        with_thinking: show what it thought as well.

    Returns:
        The return of each episode, so far of one that was not over.

    Raises:
        UserError: as ``Player.play``.
    """
    returns: dict[int, float] = {}
    has_window = screen == "window"
    with silent_pygame(has_window=has_window), _shower(player, screen, console, with_thinking=with_thinking) as show:
        with contextlib.suppress(KeyboardInterrupt), contextlib.closing(player.play(render=screen != "lines")) as steps:
            due = time.monotonic()
            for shown in steps:
                returns[shown.episode] = shown.episode_return
                if not show(shown):
                    break
                if screen != "lines":
                    due = max(due + 1 / player.fps, time.monotonic() - 1 / player.fps)
                    time.sleep(max(0.0, due - time.monotonic()))
    return list(returns.values())


@contextlib.contextmanager
def _shower(player: Player, screen: Screen, console: Console, *, with_thinking: bool) -> Iterator[Show]:
    """What shows the steps inside the body."""
    if screen == "window":
        window = Window(f"{player.name}: ctm-rl enjoy")
        draw = painter(player) if with_thinking else frame_of
        with contextlib.closing(window):
            yield lambda shown: window.show(draw(shown))
    elif screen == "terminal":
        terminal = TerminalScreen(console, player, with_thinking=with_thinking)
        with console.screen(hide_cursor=True):
            yield lambda shown: terminal.show(shown) or not _is_lost(console)
    else:

        def write(shown: Shown) -> bool:
            console.file.write(plain_line(player, shown, with_thinking=with_thinking) + "\n")
            console.file.flush()
            return not _is_lost(console)

        yield write


def _is_lost(console: Console) -> bool:
    """Whether what is written reaches nobody, see ``cli.output.DroppingStream``."""
    return getattr(console.file, "error", None) is not None
