"""The sections on a policy: what the figures show is what happened in the episodes that are evaluated."""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
import torch
from counting_env import Counting
from PIL import Image
from small_policy import SMALL

from ctm_rl.agents.evaluation.names import name_actions
from ctm_rl.agents.evaluation.play import PlayOptions, play_all, seeds_of_episodes
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.report import acting_decisions, acting_episodes
from ctm_rl.agents.report.acting import acting_sections, value_scale
from ctm_rl.agents.report.acting_decisions import Steps, fit_scale, mean_over_episodes, steps_of, value_figures
from ctm_rl.agents.report.acting_episodes import Episode, choose_episodes, compress, compress_frames, play_episodes
from ctm_rl.agents.report.acting_player import Player, following_rewards, probabilities_of
from ctm_rl.agents.report.document import (
    Bars,
    Document,
    Figure,
    Images,
    Lines,
    Picture,
    Readout,
    Sample,
    Section,
    Table,
    to_plain,
)
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.inference.policy import Policy
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Choices

COUNTING = EnvConfig(id="counting_env:helpers/Counting-v0", kwargs={"length": 4})


def policy_for(experiment: ActingExperiment) -> Policy:
    """An untrained policy whose actions depend on what it sees."""
    env = make_env(experiment.env)
    torch.manual_seed(8)
    fitted = fit(experiment.model, env.observation_space, env.action_space)
    env.close()
    agent = ActorCritic(fitted.config, fitted.layout, fitted.actions)
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            if not name.endswith("rate"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return Policy(agent, iteration=3)


def experiment_for(env: EnvConfig = COUNTING, **changes: Any) -> ActingExperiment:
    return ActingExperiment(name="test", env=env, model=dataclasses.replace(SMALL, **changes))


def sections_of(experiment: ActingExperiment, num_episodes: int = 3) -> tuple[Section, Section, list[str]]:
    """Both sections and the notes; both can be written."""
    sections, notes = acting_sections(policy_for(experiment), experiment, num_episodes=num_episodes, seed=4)
    to_plain(Document(title="test", sections=sections))
    episodes, decisions = sections
    return episodes, decisions, notes


def titled(figures: Any, title: str) -> Any:
    """The figure of a title."""
    return next(figure for figure in figures if figure.title == title)


def pixel(images: Images, place: int) -> int:
    """The colour of a grey image."""
    with Image.open(io.BytesIO(images.files[place])) as image:
        return int(np.asarray(image.convert("RGB"))[0, 0, 0])


def check_times(sample: Sample) -> None:
    """What moves has a place for each tick of each step."""
    for figure in sample.figures:
        if isinstance(figure, Picture):
            assert figure.shown is not None
            assert len(figure.shown) == sample.num_places
        if isinstance(figure, Readout):
            assert all(len(texts) == sample.num_places for texts in figure.values)
        if isinstance(figure, Bars):
            assert np.shape(figure.values) == (sample.num_places, len(figure.labels))


def test_every_place_of_the_player_shows_its_step() -> None:
    experiment = experiment_for()
    episodes, decisions, notes = sections_of(experiment)
    assert notes == []
    assert len(episodes.samples) == 3
    for sample in episodes.samples:
        check_times(sample)
        num_steps = sample.num_places // SMALL.num_ticks
        assert list(sample.steps) == [step for step in range(num_steps) for _ in range(SMALL.num_ticks)]
        frames, readout = titled(sample.figures, "What happens"), titled(sample.figures, "This step")
        values = dict(zip(readout.names, readout.values, strict=True))
        seen, total = titled(sample.figures, "What it sees"), 0.0
        numbers = {line.name: line.y for line in seen.lines}
        for place, step in enumerate(sample.steps):
            assert round(pixel(frames.images, frames.shown[place]) / 20) == step
            assert numbers["number 0"][step] == step
            action = int(values["action taken"][place].removeprefix("action "))
            assert float(values["reward"][place]) == step + 1 + action
            if step + 1 < num_steps:
                assert numbers["number 1"][step + 1] == action
            total += float(values["reward"][place]) / SMALL.num_ticks
            assert values["ticks used"][place] == str(SMALL.num_ticks)
        assert f"return {total:.4g}," in sample.name
        assert float(values["return so far"][-1]) == pytest.approx(total)
        probabilities = titled(sample.figures, "Action probabilities").values
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
        last = values["action taken"][-1] == "action 0"
        assert sample.verdict == ("wrong" if last else "right")
    shares = titled(decisions.figures, "Actions")
    assert sum(shares.values) == pytest.approx(1)


def test_values_have_what_followed_beside_them_where_their_unit_is_not_known() -> None:
    experiment = experiment_for()
    normalised = dataclasses.replace(experiment, ppo=PPOSettings(gamma=experiment.ppo.gamma, normalize_rewards=True))
    (known, _, _), (fitted, decisions, _) = sections_of(experiment), sections_of(normalised)
    factor = titled(decisions.figures, "Calibration of values").caption.partition("rewards times ")[2].split(",")[0]
    scale = 1 - experiment.ppo.gamma
    for one, other in zip(known.samples, fitted.samples, strict=True):
        chart, fit = (titled(sample.figures, "Value") for sample in (one, other))
        (_, followed), (_, found) = chart.lines, fit.lines
        np.testing.assert_allclose(found.y / float(factor), followed.y / scale, rtol=1e-3)
        assert f"that followed, times {factor}, which fits best" in fit.caption
        assert "in the same units" in chart.caption


def test_the_returns_are_those_that_evaluate_prints() -> None:
    experiment = experiment_for()
    policy = policy_for(experiment)
    _, decisions, _ = sections_of(experiment)
    expected = play_all(policy, COUNTING, seeds_of_episodes(4, 16), PlayOptions(False, 4, None, None, 100))
    low, high = expected["episode_return_interval"]
    rows = dict(titled(decisions.figures, "Returns").rows)
    assert rows["mean return"] == f"{expected['episode_return_mean']:.6g} [{low:.6g}, {high:.6g}]"
    assert rows["success rate"].startswith(f"{100 * expected['success_rate']:.1f} %")
    bars = titled(decisions.figures, "Return of each episode")
    assert np.mean(bars.values) == pytest.approx(expected["episode_return_mean"])


def played_episode(
    rewards: list[float], values: list[float], number: int = 0, *, is_terminated: bool = True
) -> Episode:
    """An episode of steps of one tick."""
    episode = Episode(number, seed=number, rewards=rewards, is_terminated=is_terminated, is_over=True)
    episode.values = [np.array([value], np.float32) for value in values]
    return episode


def player_with(gamma: float, scale: float | None) -> Player:
    policy = policy_for(experiment_for())
    return Player(policy, "test", [["a", "b", "c"]], gamma, is_minigrid=False, scale=scale)


def test_right_values_are_on_the_line() -> None:
    player, episodes, random = player_with(0.5, 0.1), [], np.random.default_rng(2)
    for number in range(20):
        rewards = random.normal(size=12).round(1).tolist()
        right = [0.1 * sum(0.5**i * later for i, later in enumerate(rewards[step:])) for step in range(12)]
        episodes.append(played_episode(rewards, right, number))
    chart, table = value_figures(player, episodes)
    assert isinstance(chart, Lines)
    followed, diagonal = chart.lines
    np.testing.assert_allclose(followed.y, diagonal.y, atol=1e-6)
    np.testing.assert_allclose(followed.y, chart.x, atol=1e-6)
    assert isinstance(table, Table)
    assert table.rows[0][:2] == ("240", "1.000")
    # values that are too high by one half lie beside it
    for episode in episodes:
        episode.values = [value + 0.5 for value in episode.values]
    chart, table = value_figures(player, episodes)
    assert isinstance(chart, Lines)
    np.testing.assert_allclose(chart.lines[0].y, np.asarray(chart.x) - 0.5, atol=1e-6)
    assert table.rows[0][2].startswith("0.5 [0.5, 0.5]")  # pyright: ignore[reportAttributeAccessIssue]
    # where the unit is not known, the one that fits best is found
    for episode in episodes:
        episode.values = [(value - 0.5) * 70 for value in episode.values]
    chart, _ = value_figures(dataclasses.replace(player, scale=None, fitted_scale=fit_scale(0.5, episodes)), episodes)
    assert isinstance(chart, Lines)
    np.testing.assert_allclose(chart.lines[0].y, chart.x, atol=1e-4)
    assert "rewards times 7, which fits best" in chart.caption


def test_what_would_have_followed_a_truncation_is_not_made_up() -> None:
    episode = played_episode([1.0] * 10, [0.0] * 10, is_terminated=False)
    followed = following_rewards(episode, 0.5)
    assert np.isnan(followed).tolist() == [False] * 6 + [True] * 4  # 0.5^5 < 0.05 < 0.5^4
    assert followed[0] == pytest.approx(2 - 0.5**9)
    assert np.isfinite(following_rewards(played_episode([1.0] * 10, [0.0] * 10), 0.5)).all()
    assert value_figures(player_with(1.0, 1.0), [episode]) == []


def test_intervals_are_over_episodes() -> None:
    episodes = np.repeat(np.arange(50), 10)
    values = np.repeat(np.random.default_rng(3).normal(size=50), 10)
    found = mean_over_episodes(values, episodes)
    expected = 1.96 * values[::10].std(ddof=1) / np.sqrt(50)
    assert found.high - found.mean == pytest.approx(expected, rel=1e-3)
    assert np.isnan(mean_over_episodes(values[:10], episodes[:10]).low)


def test_units_of_values_follow_the_experiment() -> None:
    experiment = experiment_for()
    policy = policy_for(experiment)
    scales = {
        None: PPOSettings(gamma=0.9), 2.0: PPOSettings(reward_scale=2.0), "?": PPOSettings(normalize_rewards=True)
    }  # fmt: skip
    found = [value_scale(policy, dataclasses.replace(experiment, ppo=ppo)) for ppo in scales.values()]
    assert found == [pytest.approx(0.1), 2.0, None]
    policy.iteration = 0  # imported
    assert value_scale(policy, experiment) is None


def test_long_episodes_keep_their_first_and_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting_episodes, "MAX_SHOWN_STEPS", 9)
    monkeypatch.setattr(acting_episodes, "MAX_STEPS", 30)
    experiment = experiment_for(dataclasses.replace(COUNTING, kwargs={"length": 29}))
    policy = policy_for(experiment)
    episodes, notes = play_episodes(policy, experiment.env, seed=1, num_played=4, num_shown=2)
    assert {len(episode.rewards) for episode in episodes} == {29, 30}
    for episode in episodes:
        last = len(episode.rewards)
        assert list(episode.shown) == [*range(6), *range(last - 3, last)]
        assert len(episode.observations) == len(episode.values) == last
        assert (episode.is_cut, episode.is_over) == (False, True)
    assert notes == []
    longer = dataclasses.replace(COUNTING, kwargs={"length": 90})
    episodes, notes = play_episodes(policy, longer, seed=1, num_played=2, num_shown=2)
    assert notes[0].startswith("2 of 2 episodes were cut after 31 steps")
    monkeypatch.setattr(acting_episodes, "PLAY_SECONDS", 0.0)
    episodes, notes = play_episodes(policy, longer, seed=1, num_played=2, num_shown=2)
    assert notes[0].startswith("2 of 2 episodes were cut after 1 steps")


def test_good_and_bad_episodes_are_chosen() -> None:
    returns = [5.0, 5, 1, 5, 3, 5, 2, 5]
    episodes = [played_episode([total], [0.0], number) for number, total in enumerate(returns)]
    chosen = [(episode.number, rank) for episode, rank in choose_episodes(episodes, 3)]
    assert chosen == [(0, "best"), (6, "rank 7"), (2, "worst")]
    assert [episode.number for episode, _ in choose_episodes(episodes, 6)] == [0, 1, 3, 4, 6, 2]
    assert [rank for _, rank in choose_episodes(episodes[:2], 5)] == ["", ""]
    assert len(choose_episodes(episodes, 20)) == 8


def test_a_success_is_better_than_a_failure_with_the_same_or_a_higher_return() -> None:
    episodes = [played_episode([total], [0.0], number) for number, total in enumerate([1.0, 5, 1])]
    for episode in episodes:
        episode.is_success = episode.number == 2
    chosen = [(episode.number, rank) for episode, rank in choose_episodes(episodes, 3)]
    assert chosen == [(2, "best"), (1, "rank 2"), (0, "worst")]


def test_frames_are_compressed_and_equal_ones_kept_once() -> None:
    random = np.random.default_rng(4)
    noise = random.integers(0, 256, (200, 300, 3), np.uint8)
    flat = np.full((200, 300, 3), 77, np.uint8)
    found = compress([flat, noise, flat])
    assert found.places.tolist() == [0, 1, 0]
    assert pixel(found.images, 0) == 77
    small = compress_frames([noise, flat[:100]], 5_000)
    assert small.side == 100
    for file in small.images.files:
        with Image.open(io.BytesIO(file)) as image:
            assert image.size == (100, 67)


def test_actions_and_observations_of_any_kind_are_shown() -> None:
    env = EnvConfig(id="counting_env:Many", kwargs={"length": 4, "fault": "none"})
    episodes, decisions, notes = sections_of(experiment_for(env), num_episodes=1)
    assert notes == [
        "The episodes have no frames: counting_env:Many cannot be rendered: render() returned None with render_mode "
        "rgb_array."
    ]
    (sample,) = episodes.samples
    check_times(sample)
    camera = titled(sample.figures, "What it sees: camera")
    readout = titled(sample.figures, "This step")
    kinds = dict(zip(readout.names, readout.values, strict=True))["kind"]
    for place, step in enumerate(sample.steps):
        assert round(pixel(camera.images, camera.shown[place]) / 20) == step
        assert kinds[place] == str(step % 4)
    assert titled(sample.figures, "What it sees: many").values.shape == (12, sample.num_places // SMALL.num_ticks)
    actions = titled(sample.figures, "Actions")
    assert [line.name for line in actions.lines] == ["steer", "gas"]
    steer = actions.lines[0]
    assert (np.asarray(steer.low) < steer.y).all()
    assert np.abs([steer.low, steer.high]).max() <= 2
    assert "certainty" not in readout.names
    assert not [figure for figure in decisions.figures if "ertain" in figure.title]
    assert titled(decisions.figures, "Distance to the final action").lines[0].y[-1] == 0


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
def test_baselines_have_what_there_is(kind: str) -> None:
    episodes, decisions, _ = sections_of(experiment_for(kind=kind), num_episodes=1)
    titles = [figure.title for figure in (*episodes.samples[0].figures, *decisions.figures)]
    assert "Hidden units" in titles
    assert not [title for title in titles if "synchronisation" in title]
    assert ("Certainty by tick" in titles) == (kind == "lstm")
    assert ("How certain it is" in titles) == (kind == "mlp")


def test_policies_of_random_ticks_have_a_halting_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting_decisions, "HALT_AT", (0.0, None))
    experiment = experiment_for(train_random_ticks=True)
    _, decisions, notes = sections_of(experiment, num_episodes=1)
    assert notes == []
    table = titled(decisions.figures, "Halting")
    assert [row[0] for row in table.rows] == ["0", "never"]
    assert [row[1] for row in table.rows] == ["1.00", f"{SMALL.num_ticks}.00"]
    monkeypatch.setattr(acting_decisions, "HALT_SECONDS", -1.0)
    _, decisions, notes = sections_of(experiment, num_episodes=1)
    assert notes == ["1 points of the halting curve are left out: they take too long."]
    assert [row[0] for row in titled(decisions.figures, "Halting").rows] == ["never"]


def test_ticks_that_change_their_mind_are_counted() -> None:
    experiment = experiment_for()
    policy = policy_for(experiment)
    episodes, _ = play_episodes(policy, COUNTING, seed=1, num_played=3, num_shown=1)
    steps = steps_of(episodes)
    assert isinstance(steps, Steps)
    probabilities = probabilities_of(policy, steps.logits)
    same = (probabilities.argmax(-1) == probabilities[:, -1:].argmax(-1)).mean(0)
    _, decisions, _ = sections_of(experiment)
    figures: list[Figure] = [titled(decisions.figures, "Decided already")]
    assert isinstance(figures[0], Lines)
    assert len(figures[0].lines[0].y) == len(same) == SMALL.num_ticks
    assert figures[0].lines[0].y[-1] == same[-1] == 1


def test_environments_name_their_actions() -> None:
    with make_env(EnvConfig(id="MiniGrid-Empty-5x5-v0")) as env:
        names = name_actions(env, "MiniGrid-Empty-5x5-v0", Choices(sizes=(7,)))
    assert names == [["left", "right", "forward", "pickup", "drop", "toggle", "done"]]
    counting = Counting()
    for env_id, actions, expected in (
        ("gym:CartPole-v1", Choices(sizes=(2,)), [["push left", "push right"]]),
        ("CartPole-v1", Choices(sizes=(3,), starts=(2,)), [["action 2", "action 3", "action 4"]]),
        ("Own", Choices(sizes=(2, 1), shape=(2,)), [["choice 0: 0", "choice 0: 1"], ["choice 1: 0"]]),
    ):
        assert name_actions(counting, env_id, actions) == expected
