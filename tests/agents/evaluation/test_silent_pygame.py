"""The variables by which pygame is kept silent: set inside the body alone, and never over those of the user."""

import os

import pytest

from ctm_rl.agents.evaluation.silent_pygame import silent_pygame

NAMES = ("SDL_AUDIODRIVER", "SDL_VIDEODRIVER", "PYGAME_HIDE_SUPPORT_PROMPT")


@pytest.mark.parametrize("has_window", [False, True])
def test_variables_are_set_inside_alone_and_those_of_the_user_stay(
    has_window: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SDL_AUDIODRIVER", "alsa")
    with silent_pygame(has_window=has_window):
        found = [os.environ.get(name) for name in NAMES]
    assert found == ["alsa", None if has_window else "dummy", "1"]
    assert [os.environ.get(name) for name in NAMES] == ["alsa", None, None]
