"""The thinking beside the frame: numbers are those of the step, and everything is drawn."""

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete
from small_player import COUNTING, player_for

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.video.player import Player, Shown
from ctm_rl.agents.video.thinking import ThinkingPanel, action_text, bars_of, likeliest

PENDULUM = EnvConfig(id="Pendulum-v1", wrappers=("time-limit=3",))


def shown_by(player: Player, *, render: bool = True) -> list[Shown]:
    """All steps."""
    return list(player.play(render=render))


def probabilities_of(shown: Shown) -> np.ndarray:
    """The softmax of a step's last logits."""
    logits = np.exp(shown.recorded.ticks.logits[-1].astype(np.float64))
    return logits / logits.sum()


def test_bars_are_the_probabilities_after_the_last_tick() -> None:
    player, names = player_for(COUNTING), ("left", "right", "wait")
    steps = shown_by(player)
    for shown in steps:
        bars = bars_of(player.policy.actions, names, shown)
        assert [bar.name for bar in bars] == [*names]
        np.testing.assert_allclose([bar.value for bar in bars], probabilities_of(shown), atol=1e-6)
        assert [bar.is_chosen for bar in bars] == [shown.recorded.action == index for index in range(3)]
        assert action_text(player.policy.actions, names, shown) == names[shown.recorded.action]
    unnamed = bars_of(player.policy.actions, (), steps[0])
    assert [bar.name for bar in unnamed] == ["action 0", "action 1", "action 2"]


@pytest.mark.parametrize("space", [MultiDiscrete([2, 4]), Discrete(40, start=5)])
def test_bars_of_several_choices_and_of_many_options(space: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from counting_env import Counting

    monkeypatch.setattr(Counting, "action_space", space)
    player = player_for(COUNTING)
    shown = shown_by(player)[0]
    bars = bars_of(player.policy.actions, (), shown)
    if isinstance(space, MultiDiscrete):
        assert [bar.name for bar in bars] == [f"choice {i}: {value}" for i, value in enumerate(shown.recorded.action)]
        assert all(0 < bar.value < 1 and bar.is_chosen for bar in bars)
    else:
        assert sum(bar.value for bar in bars) == pytest.approx(1)
        (chosen,) = (bar for bar in bars if bar.is_chosen)
        assert chosen.name == f"action {shown.recorded.action}"
        kept = likeliest(bars, 16)
        assert len(kept) == 16
        assert chosen in kept
        assert kept == [bar for bar in bars if bar in kept]
    assert ThinkingPanel(player.policy.actions, (), "many").draw(shown).shape == (720, 1280, 3)


def test_a_number_is_shown_between_its_bounds() -> None:
    player = player_for(PENDULUM)
    for shown in shown_by(player, render=False):
        (bar,) = bars_of(player.policy.actions, (), shown)
        assert bar.value == pytest.approx((float(shown.recorded.action[0]) + 2) / 4, abs=1e-6)
        assert bar.span is not None
        assert 0 <= bar.span[0] < bar.span[1] <= 1
        assert bar.text == f"{shown.recorded.action[0]:+.2f}"


def test_a_panel_shows_the_frame_and_fills_its_curves() -> None:
    player = player_for(COUNTING, episodes=2)
    panel = ThinkingPanel(player.policy.actions, player.action_names, "small", "iteration 7")
    steps = shown_by(player)
    drawn = [panel.draw(shown) for shown in steps]
    for shown, picture in zip(steps, drawn, strict=True):
        assert picture.shape == (720, 1280, 3)
        assert (picture[338, 340] == 20 * (shown.step - 1)).all()  # the middle of the frame
    coloured = [(np.ptp(picture[300:, 700:].astype(int), -1) > 60).sum() for picture in drawn]
    first = steps.index(next(shown for shown in steps if shown.episode == 2))
    assert coloured[first] < coloured[first - 1]  # curves begin again with an episode
    assert coloured[0] > 0
    without_frames = panel.draw(shown_by(player, render=False)[0])
    assert (without_frames[338, 340] != 0).any()
