"""Scores, areas and differences on cases computed by hand."""

import math

import pytest
from learning_runs import learned, played_randomly

from ctm_rl.agents.bench.learning.scores import (
    Scale,
    count_tasks,
    lowest_share,
    pairs_of,
    scale_of,
    scores_of,
    summarise,
)


def test_a_score_is_0_for_a_random_policy_and_100_for_the_reference() -> None:
    scale = Scale(random=-1200.0, reference=-200.0)
    assert [scale.score(value) for value in (-1200.0, -700.0, -200.0, -100.0)] == [0.0, 50.0, 100.0, 110.0]
    assert scale.score(None) == 0.0


def test_the_area_is_the_mean_of_the_normalised_curve() -> None:
    scale = Scale(random=20.0, reference=120.0)
    run = learned("cartpole", "ctm", 1, [20.0, 70.0], evaluation=120.0)
    assert scores_of(run, scale) == {"area": 25.0, "final": 50.0, "evaluation": 100.0}
    late = learned("cartpole", "ctm", 1, [None, 70.0])
    assert scores_of(late, scale)["area"] == 25.0  # before an episode has ended as a random policy


def test_an_unknown_reference_is_the_best_evaluation_here() -> None:
    runs = [played_randomly("own", 1.0), learned("own", "ctm", 1, [3.0]), learned("own", "lstm", 1, [5.0])]
    assert scale_of("own", runs) == Scale(1.0, 5.0)
    assert scale_of("cartpole", [played_randomly("cartpole", 20.0)]) == Scale(20.0, 500.0)
    assert scale_of("own", runs[1:]) is None  # no random policy
    assert scale_of("own", runs[:1]) is None  # nothing else
    assert scale_of("own", [runs[0], learned("own", "ctm", 1, [1.0])]) is None  # no better than a random one
    assert scale_of("own", [runs[0], learned("own", "ctm", 1, [-9.0])]) is None  # worse than a random one


def study() -> list[dict]:
    """On two tasks: ctm is 10 points above lstm on one, 20 below on the other; seeds differ by 2 points."""
    runs = [played_randomly("minigrid-a", 0.0), played_randomly("minigrid-b", 0.0)]
    for task, ctm, lstm in (("minigrid-a", 0.9, 0.8), ("minigrid-b", 0.3, 0.5)):
        for seed in (1, 2, 3):
            offset = 0.02 * (seed - 2)
            runs += [learned(task, "ctm", seed, [ctm + offset]), learned(task, "lstm", seed, [lstm + offset])]
    return runs


def test_means_differences_and_shares_of_each_task() -> None:
    summary = summarise(study())
    (first, second) = summary["tasks"]
    ctm, lstm = first["contenders"]
    assert (ctm["contender"], ctm["seeds"], ctm["seconds"]) == ("ctm", [1, 2, 3], 60.0)
    assert ctm["area"]["value"] == pytest.approx(90.0)
    assert (lstm["final_return"]["value"], lstm["final"]["value"]) == (pytest.approx(0.8), pytest.approx(80.0))
    # a resample of three seeds has a mean of at most that of the best seed, two points above
    assert 88.0 <= ctm["area"]["low"] < 90.0 < ctm["area"]["high"] <= 92.0
    (difference,) = first["differences"]
    assert (difference["of"], difference["from"]) == ("ctm", "lstm")
    assert difference["area"]["value"] == pytest.approx(10.0)
    assert 6.0 <= difference["area"]["low"] < 10.0 < difference["area"]["high"] <= 14.0
    assert difference["share"]["area"] == pytest.approx(112.5)
    assert second["differences"][0]["final"]["value"] == pytest.approx(-20.0)
    tasks = summary["tasks"]
    assert [count_tasks(tasks, "ctm", "lstm", "area", above) for above in (-30.0, -10.0, 0.0, 20.0)] == [2, 1, 1, 0]
    assert lowest_share(tasks, "ctm", "lstm", "area") == pytest.approx(60.0)


def test_the_aggregate_is_the_interquartile_mean_over_tasks_and_seeds() -> None:
    summary = summarise(study())
    ctm, lstm = summary["aggregate"]
    # of six scores each, 28 30 32 88 90 92, one is left out at each end
    assert ctm["area"]["value"] == pytest.approx((30 + 32 + 88 + 90) / 4)
    assert lstm["area"]["value"] == pytest.approx((50 + 52 + 78 + 80) / 4)
    (difference,) = summary["differences"]
    assert difference["num_tasks"] == 2
    assert difference["area"]["value"] == pytest.approx(-5.0)
    assert difference["area"]["low"] < -5.0 < difference["area"]["high"]


def test_equal_seeds_have_intervals_without_width_and_one_seed_none() -> None:
    equal = [learned("cartpole", "ctm", seed, [500.0]) for seed in (1, 2, 3)]
    (task,) = summarise([played_randomly("cartpole", 20.0), *equal])["tasks"]
    assert task["contenders"][0]["area"] == {"value": 100.0, "low": 100.0, "high": 100.0}
    summary = summarise([played_randomly("cartpole", 20.0), equal[0]])
    assert summary["tasks"][0]["contenders"][0]["area"] == {"value": 100.0, "low": None, "high": None}
    assert not math.isnan(summary["aggregate"][0]["area"]["value"])


def test_differences_of_aggregates_are_over_the_tasks_that_both_have() -> None:
    runs = [run for run in study() if (run["task"], run["contender"]) != ("minigrid-b", "lstm")]
    summary = summarise(runs)
    assert [(one["contender"], one["num_tasks"]) for one in summary["aggregate"]] == [("ctm", 2), ("lstm", 1)]
    (difference,) = summary["differences"]
    assert (difference["num_tasks"], difference["area"]["value"]) == (1, pytest.approx(10.0))


def test_variants_are_compared_with_what_they_vary() -> None:
    assert pairs_of(["ctm", "ctm:z", "lstm", "sb3"]) == [
        ("ctm", "lstm"),
        ("lstm", "sb3"),
        ("ctm", "sb3"),
        ("ctm:z", "ctm"),
    ]
    assert pairs_of(["ctm:z"]) == []


def test_tasks_without_a_random_policy_and_mixed_settings_are_named() -> None:
    runs = [learned("cartpole", "ctm", 1, [1.0]), learned("cartpole", "ctm", 2, [1.0], settings="b")]
    summary = summarise(runs)
    assert (summary["tasks"], summary["aggregate"], summary["unscaled"]) == ([], [], ["cartpole"])
    summary = summarise([played_randomly("cartpole", 20.0), *runs])
    assert summary["mixed"] == ["ctm on cartpole"]


def test_runs_of_different_steps_are_not_mixed() -> None:
    runs = [played_randomly("cartpole", 20.0), *(learned("cartpole", "ctm", 1, [9.0], env_steps=n) for n in (500, 900))]
    assert [(task["env_steps"], task["contenders"][0]["seeds"]) for task in summarise(runs)["tasks"]] == [
        (500, [1]),
        (900, [1]),
    ]
