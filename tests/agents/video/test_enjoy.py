"""Where a policy is shown, and how that ends."""

import io
import sys
from typing import Any

import pytest
from rich.console import Console
from small_player import COUNTING, player_for

from ctm_rl.agents.video import enjoy as enjoying
from ctm_rl.agents.video import window
from ctm_rl.agents.video.enjoy import choose_screen, enjoy
from ctm_rl.errors import UserError


class Written(io.StringIO):
    """What is written, and who lost it."""

    error: OSError | None = None


def plain() -> Console:
    """A file."""
    return Console(file=Written())


def terminal(color_system: Any = "truecolor") -> Console:
    """A terminal of 40 x 12 characters."""
    return Console(file=Written(), force_terminal=True, color_system=color_system, width=40, height=12)


def text_of(console: Console) -> str:
    """What was written."""
    assert isinstance(console.file, Written)
    return console.file.getvalue()


@pytest.fixture(autouse=True)
def nothing_to_see_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(window, "_HAS_DISPLAY", False)


def test_without_a_display_it_is_the_terminal_or_lines() -> None:
    assert choose_screen("auto", terminal()) == ("terminal", None)
    assert choose_screen("auto", terminal("256")) == ("terminal", None)
    assert choose_screen("auto", terminal(None)) == ("lines", None)
    assert choose_screen("auto", plain()) == ("lines", None)
    assert choose_screen("lines", terminal()) == ("lines", None)


def test_what_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--screen window cannot be used: there is no display; take --screen terminal"):
        choose_screen("window", terminal())
    with pytest.raises(UserError, match="--screen terminal cannot be used: standard output is not a terminal"):
        choose_screen("terminal", plain())
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(UserError, match=r"--screen window cannot be used: pygame is not installed: pip install"):
        choose_screen("window", terminal())
    note = "shown in the terminal, since pygame is not installed: pip install pygame-ce."
    assert choose_screen("auto", terminal()) == ("terminal", note)


def test_a_window_shows_frames_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    pygame = pytest.importorskip("pygame")
    assert choose_screen("auto", plain()) == ("window", None)
    player = player_for(COUNTING, episodes=9, fps=1000.0)
    seen = []
    show = window.Window.show

    def spy(self: window.Window, frame: Any) -> bool:
        is_open = show(self, frame)
        if is_open:
            screen = pygame.display.get_surface()
            seen.append((frame.shape, screen.get_size(), tuple(screen.get_at((9, 9)))[:3]))
            if len(seen) == 6:
                pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q))
        return is_open

    monkeypatch.setattr(window.Window, "show", spy)
    returns = enjoy(player, "window", plain(), with_thinking=False)
    assert len(seen) == 6
    assert seen[0] == ((256, 384, 3), (768, 512), (0, 0, 0))
    assert seen[2][2] == (40, 40, 40)
    assert 1 <= len(returns) <= 2
    assert not pygame.display.get_init()


def test_ctrl_c_ends_it_and_the_terminal_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    player, console = player_for(COUNTING, episodes=9, fps=1000.0), terminal()
    show = enjoying.TerminalScreen.show

    def interrupted(self: enjoying.TerminalScreen, shown: Any) -> None:
        show(self, shown)
        if shown.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(enjoying.TerminalScreen, "show", interrupted)
    assert len(enjoy(player, "terminal", console, with_thinking=True)) == 1
    written = text_of(console)
    assert "\x1b[?1049h" in written
    assert "step 3" in written
    assert "step 4" not in written
    assert written.rstrip().endswith("\x1b[?1049l\x1b[?25h")


def test_lines_need_no_frames_and_end_with_their_reader() -> None:
    player, console = player_for(COUNTING, episodes=2), plain()
    assert len(enjoy(player, "lines", console, with_thinking=False)) == 2
    assert text_of(console).splitlines()[-1].startswith("episode 2  step ")
    assert isinstance(console.file, Written)
    console.file.error = OSError("nobody reads")
    assert len(enjoy(player, "lines", console, with_thinking=False)) == 1
