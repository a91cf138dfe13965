"""How a policy decides, over many episodes: what its values are worth, what its ticks change, where it would halt."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ctm_rl.agents.evaluation.play import PlayOptions, play_all, summarise
from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.report.acting_episodes import MAX_STEPS, Episode
from ctm_rl.agents.report.acting_player import MAX_LINES, MAX_OPTIONS, Player, following_rewards, gaussian_of
from ctm_rl.agents.report.document import Bars, Figure, Line, Lines, Table
from ctm_rl.spaces.actions import Choices, Numbers

NUM_BINS = 10
"""Bins of the calibration of values, of equal width."""
MIN_IN_BIN = 5
"""Steps in a bin, at least."""
HALT_AT = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, None)
"""Certainties at which a policy halts in the curve; ``None``: all ticks."""
HALT_SECONDS = 12.0
"""Seconds of this process after which no further point of the curve is played."""
SURE = 0.9
"""The certainty at which a policy counts as decided."""
_NORMAL = 1.959963984540054
_NUM_BARS = 20
"""Bars of a histogram of numbers."""


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    """NaN where there is a single episode."""
    high: float

    def __str__(self) -> str:
        """The text for tables."""
        return f"{self.mean:.4g}" + (f" [{self.low:.4g}, {self.high:.4g}]" if np.isfinite(self.low) else "")


def mean_over_episodes(values: np.ndarray, episodes: np.ndarray) -> Interval:
    """Mean of values of steps; steps of one episode depend on each other, so that episodes are what varies.

    The standard error is that of a ratio of sums over episodes, ``sqrt(E / (E - 1) sum_e (sum_t (x_t - mean))^2) / n``.

    Args:
        values: of n steps.
        episodes: which of the E episodes each belongs to, [n].
    """
    mean = float(values.mean())
    deviations = np.bincount(episodes, values - mean)[np.unique(episodes)]
    count = len(deviations)
    if count < 2:
        return Interval(mean, np.nan, np.nan)
    half = _NORMAL * float(np.sqrt(count / (count - 1) * np.square(deviations).sum())) / len(values)
    return Interval(mean, mean - half, mean + half)


def _line(name: str, intervals: Sequence[Interval]) -> Line:
    """Means and their intervals as a line."""
    mean, low, high = (np.array(column) for column in zip(*intervals, strict=True))
    return Line(name=name, y=mean, low=low, high=high)


def _bins(values: np.ndarray) -> list[np.ndarray]:
    """Indices of the values in each of some bins of equal width, in ascending order; bins of few values are left out.

    Args:
        values: [n].
    """
    edges = np.linspace(values.min(), values.max(), NUM_BINS + 1)
    places = np.searchsorted(edges[1:-1], values, side="right")
    bins = [np.flatnonzero(places == place) for place in range(NUM_BINS)]
    return [one for one in bins if len(one) >= MIN_IN_BIN]


class Steps(NamedTuple):
    """The steps of all episodes in a row, T of them; all have K ticks."""

    episode: np.ndarray
    """Which episode each belongs to, [T]."""
    logits: np.ndarray
    """[T, K, A]."""
    values: np.ndarray
    """[T, K]."""
    certainty: np.ndarray
    """[T, K]."""


def steps_of(episodes: Sequence[Episode]) -> Steps:
    """All steps of some episodes, of a policy that takes equally many ticks in each."""
    numbers = np.repeat(np.arange(len(episodes)), [len(episode.rewards) for episode in episodes])
    return Steps(
        numbers,
        np.stack([one for episode in episodes for one in episode.logits]),
        np.stack([one for episode in episodes for one in episode.values]),
        np.stack([one for episode in episodes for one in episode.certainties]),
    )


def decision_figures(player: Player, episodes: Sequence[Episode]) -> list[Figure]:
    """Returns, values, what ticks change, and what is done how often.

    Args:
        player: the policy and its units.
        episodes: which it has played.
    """
    steps = steps_of(episodes)
    return [
        returns_table(episodes),
        returns_figure(episodes),
        *value_figures(player, episodes),
        *_tick_figures(player, steps),
        *_frequency_figures(player, episodes),
    ]


def returns_table(episodes: Sequence[Episode]) -> Figure:
    """Returns of the episodes as ``evaluate`` prints them."""
    found = summarise([episode.finished for episode in episodes])
    low, high = found["episode_return_interval"]
    rows = [
        ("episodes", str(found["episodes"])),
        ("mean return", f"{found['episode_return_mean']:.6g} [{low:.6g}, {high:.6g}]"),
        ("standard deviation", f"{found['episode_return_std']:.4g}"),
        ("from, to", f"{found['episode_return_min']:.6g}, {found['episode_return_max']:.6g}"),
        ("mean length", f"{found['episode_length_mean']:.4g} steps"),
    ]
    if "success_rate" in found:
        low, high = found["success_rate_interval"]
        rows.append(("success rate", f"{100 * found['success_rate']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"))
    return Table(
        title="Returns",
        caption="Of the episodes played for this page, with sampled actions; in brackets 95 % intervals.",
        columns=("", "value"),
        rows=rows,
    )


def returns_figure(episodes: Sequence[Episode]) -> Figure:
    """The return of each episode."""
    return Bars(
        title="Return of each episode",
        caption="Sum of its rewards; episodes in the order of their seeds, as the player names them.",
        labels=[str(episode.number + 1) for episode in episodes],
        values=np.array([episode.episode_return for episode in episodes]),
        x_label="episode",
        y_label="return",
    )


def value_figures(player: Player, episodes: Sequence[Episode]) -> list[Figure]:
    """How well values predict the rewards that follow.

    Args:
        player: the discount, and the factor of rewards, known or fitted.
        episodes: with values of every step.
    """
    values, followed, numbers = _known_returns(player.gamma, episodes)
    scale, unit = player.value_factor, "in the units of values: rewards times {scale:.4g}"
    if not len(values) or np.isnan(values).any() or scale is None:
        return []
    if player.scale is None:
        unit = (
            "in the units of values, which are not known (rewards were normalised while learning, or the policy was "
            "trained elsewhere): rewards times {scale:.4g}, which fits best"
        )
    followed = scale * followed
    left_out = sum(len(episode.rewards) for episode in episodes) - len(values)
    caption = (
        f"Mean of the discounted rewards that followed (gamma {player.gamma:g}), {unit.format(scale=scale)}, for steps "
        f"with about equal values; {len(values)} steps of {len(np.unique(numbers))} episodes, 95 % intervals over "
        "episodes."
    )
    if left_out:
        caption += f" {left_out} steps are left out that come shortly before an episode was truncated."
    bins = _bins(values)
    predicted = np.array([values[part].mean() for part in bins])
    found = [mean_over_episodes(followed[part], numbers[part]) for part in bins]
    errors = followed - values
    figures: list[Figure] = []
    if len(bins) > 1:
        figures.append(
            Lines(
                title="Calibration of values",
                caption=caption,
                x=predicted,
                lines=[_line("what followed", found), Line(name="right values", y=predicted)],
                x_label="value",
                y_label="what followed",
            )
        )
    variance = float(followed.var())
    explained = f"{1 - float(errors.var()) / variance:.3f}" if variance > 1e-12 else "returns do not vary"
    bias = mean_over_episodes(-errors, numbers)
    figures.append(
        Table(
            title="What values are worth",
            caption="Explained variance: 1 minus the variance of the error, relative to that of what followed; 1 is "
            "best, 0 as good as a constant. Too high: the mean of value minus what followed, with its 95 % interval.",
            columns=("steps", "explained variance", "too high by", "mean of what followed"),
            rows=[(str(len(values)), explained, str(bias), str(mean_over_episodes(followed, numbers)))],
        )
    )
    return figures


def fit_scale(gamma: float, episodes: Sequence[Episode]) -> float | None:
    """Returns the factor of rewards that brings what followed nearest to the values, by least squares.

    Args:
        gamma: discount for each step.
        episodes: with values of every step.

    Returns:
        The factor; ``None``: nothing followed whose end is known, or there are no values.
    """
    values, followed, _ = _known_returns(gamma, episodes)
    if np.isnan(values).any() or not followed.any():
        return None
    return float((values * followed).sum()) / float(np.square(followed).sum())


def _known_returns(gamma: float, episodes: Sequence[Episode]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of steps whose future is known, what followed (unscaled), and which episode they belong to, [n] each."""
    parts = []
    for number, episode in enumerate(episodes):
        followed = following_rewards(episode, gamma)
        is_known = ~np.isnan(followed)
        values = np.array([each[-1] for each in episode.values], np.float64)
        parts.append((values[is_known], followed[is_known], np.full(int(is_known.sum()), number)))
    values, followed, numbers = (np.concatenate(column) for column in zip(*parts, strict=True))
    return values, followed, numbers


def _tick_figures(player: Player, steps: Steps) -> Iterator[Figure]:
    """What changes from tick to tick within a step."""
    num_ticks = steps.values.shape[1]
    entropy = entropies(player, steps.logits)
    has_certainty = not np.isnan(steps.certainty).any()
    measures = {"entropy, nats": entropy} | ({"certainty": steps.certainty} if has_certainty else {})
    if num_ticks == 1:
        yield Table(
            title="How certain it is",
            caption="Mean over all steps, with 95 % intervals over episodes. There is one tick in a step.",
            columns=tuple(measures),
            rows=[tuple(str(mean_over_episodes(found[:, 0], steps.episode)) for found in measures.values())],
        )
        return
    for name, found in measures.items():
        title = "Certainty by tick" if name == "certainty" else "Entropy by tick"
        text = "1 minus the normalised entropy of the policy" if name == "certainty" else "Entropy of the policy"
        yield _by_tick(title, f"{text} after each tick of a step", name, found, steps.episode)
    actions = player.policy.actions
    if isinstance(actions, Choices):
        same = _agreement(actions, steps.logits)
        share = 100 * float(same[:, 0].mean())
        yield _by_tick(
            "Decided already",
            "Share of steps whose likeliest action after a tick is that after the last tick; after the first tick it "
            f"is in {share:.1f} % of steps",
            "share of steps",
            same,
            steps.episode,
        )
    else:
        middle = gaussian_of(actions, steps.logits.reshape(-1, steps.logits.shape[-1]))[0]
        middle = middle.reshape(*steps.logits.shape[:2], -1)
        distance = np.abs(middle - middle[:, -1:]).mean(-1)
        yield _by_tick(
            "Distance to the final action",
            "Mean absolute difference between the middle of the distribution after a tick and after the last tick, as "
            "the environment takes it",
            "distance",
            distance,
            steps.episode,
        )
    if has_certainty:
        yield from _stopping_figures(steps.certainty)


def entropies(player: Player, logits: np.ndarray) -> np.ndarray:
    """Entropies of a policy in nats, [...]; of numbers those of the squashed ones between -1 and 1."""
    actions, outputs = player.policy.actions, torch.from_numpy(logits)
    if isinstance(actions, Numbers):
        return actions.score(outputs, torch.zeros_like(outputs.chunk(2, -1)[0])).entropy.numpy()
    logp = actions.grouped(outputs).log_softmax(-1)
    return -(logp.exp() * logp).sum((-2, -1)).numpy()


def _agreement(actions: Choices, logits: np.ndarray) -> np.ndarray:
    """Whether the likeliest action after each tick is that after the last tick, [T, K] of 0 and 1."""
    likeliest = actions.grouped(torch.from_numpy(logits)).argmax(-1)  # [T, K, N]
    return (likeliest == likeliest[:, -1:]).all(-1).numpy().astype(np.float64)


def _by_tick(title: str, caption: str, name: str, found: np.ndarray, episode: np.ndarray) -> Figure:
    """A mean over steps after each tick, with its interval."""
    means = [mean_over_episodes(found[:, tick], episode) for tick in range(found.shape[1])]
    return Lines(
        title=title,
        caption=f"{caption}; mean over {len(found)} steps, with 95 % intervals over episodes.",
        x=np.arange(1, found.shape[1] + 1, dtype=np.float64),
        lines=[_line(name, means)],
        x_label="tick",
        y_label=name,
        cursor="tick",
    )


def _stopping_figures(certainty: np.ndarray) -> Iterator[Figure]:
    """The tick at which a step is decided, and the most certain one."""
    num_ticks = certainty.shape[1]
    is_sure = certainty >= SURE
    first = np.where(is_sure.any(1), is_sure.argmax(1), num_ticks)
    yield Bars(
        title="Where it is sure",
        caption=f"Share of steps by the first tick after which certainty is at least {SURE:g}; of a policy that was "
        f"trained with random ticks, --halt-certainty {SURE:g} ends the step there.",
        labels=[*(str(tick) for tick in range(1, num_ticks + 1)), "never"],
        values=np.bincount(first, minlength=num_ticks + 1) / len(first),
        x_label="tick",
        y_label="share of steps",
    )
    yield Bars(
        title="Most certain tick",
        caption="Share of steps by the tick after which the policy is most certain.",
        labels=[str(tick) for tick in range(1, num_ticks + 1)],
        values=np.bincount(certainty.argmax(1), minlength=num_ticks) / len(certainty),
        x_label="tick",
        y_label="share of steps",
    )


def _frequency_figures(player: Player, episodes: Sequence[Episode]) -> Iterator[Figure]:
    """What is done how often."""
    actions = player.policy.actions
    taken = np.stack([np.asarray(action).reshape(-1) for episode in episodes for action in episode.actions])
    if isinstance(actions, Choices):
        starts = actions.starts or (0,) * len(actions.sizes)
        shares = np.concatenate(
            [
                np.bincount(taken[:, choice].astype(int) - start, minlength=size) / len(taken)
                for choice, (start, size) in enumerate(zip(starts, actions.sizes, strict=True))
            ]
        )
        names = [name for names in player.action_names for name in names]
        kept = np.sort(np.argsort(-shares, kind="stable")[:MAX_OPTIONS])
        some = f"; the {len(kept)} most frequent of {len(shares)} options" if len(kept) < len(shares) else ""
        yield Bars(
            title="Actions",
            caption=f"Share of {len(taken)} steps in which each was taken{some}.",
            labels=[names[option] for option in kept.tolist()],
            values=shares[kept],
            y_label="share of steps",
        )
        return
    for number, (name,) in enumerate(player.action_names[:MAX_LINES]):
        counts, edges = np.histogram(taken[:, number].astype(np.float64), _NUM_BARS)
        yield Bars(
            title=f"Actions: {name}",
            caption=f"Share of {len(taken)} steps by the number taken.",
            labels=[f"{edge:.2g}" for edge in edges[:-1]],
            values=counts / counts.sum(),
            x_label=f"{name} (from)",
            y_label="share of steps",
        )


def halting_figures(player: Player, config: EnvConfig, seeds: list[int], seed: int) -> tuple[list[Figure], list[str]]:
    """Returns against ticks where a policy that can halt does so, see ``ctm-rl evaluate --halt-curve``.

    Args:
        player: a policy that was trained with random ticks; of others there is no curve.
        config: the environment.
        seeds: of the episodes.
        seed: of sampling.

    Returns:
        The figure, and notes.
    """
    policy = player.policy
    if not policy.agent.config.train_random_ticks or not isinstance(policy.actions, Choices):
        return [], []
    points, started = [], time.process_time()
    for threshold in HALT_AT[::-1]:
        if points and time.process_time() - started > HALT_SECONDS:
            break
        options = PlayOptions(
            deterministic=False, seed=seed, halt_certainty=threshold, num_ticks=None, max_episode_steps=MAX_STEPS + 1
        )
        result = play_all(policy, config, seeds, options)
        ticks = result.get("ticks_mean", float(policy.agent.config.num_ticks))
        points.append((ticks, result["episode_return_mean"], *result["episode_return_interval"], threshold))
    points.sort(key=lambda point: (point[0], point[4] is None))
    ticks, mean, low, high = (np.array(column, float) for column in list(zip(*points, strict=True))[:4])
    kept = np.flatnonzero(np.diff(ticks, prepend=-np.inf) > 0)
    names = [f"{point[4]:g}" if point[4] is not None else "never" for point in points]
    rows = [(names[n], f"{ticks[n]:.2f}", f"{mean[n]:.4g} [{low[n]:.4g}, {high[n]:.4g}]") for n in range(len(points))]
    figures: list[Figure] = [
        Lines(
            title="Halting: return against ticks",
            caption=f"Mean return of the same {len(seeds)} episodes where the policy stops ticking once it is certain "
            "enough, against the mean number of ticks in a step; 95 % intervals.",
            x=ticks[kept],
            lines=[Line(name="return", y=mean[kept], low=low[kept], high=high[kept])],
            x_label="ticks in a step",
            y_label="return",
        ),
        Table(
            title="Halting",
            caption="Where it halts, what that costs and what it saves.",
            columns=("halts at certainty", "ticks", "mean return"),
            rows=rows,
        ),
    ]
    missing = len(HALT_AT) - len(points)
    notes = [f"{missing} points of the halting curve are left out: they take too long."] if missing else []
    return figures, notes
