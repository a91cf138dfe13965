"""The groups of metrics: every metric of the package is in one, and unknown ones follow a rule."""

import pytest
from paths import ROOT

from ctm_rl.agents.loggers.groups import GROUPS, tag_of
from ctm_rl.agents.runs.acting_task import ACTING_METRICS
from ctm_rl.agents.runs.answering_task import ANSWERING_METRICS, BANDIT_METRICS


def test_every_metric_of_a_run_is_listed() -> None:
    listed = [name for names in GROUPS.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert {*ACTING_METRICS, *ANSWERING_METRICS, *BANDIT_METRICS} <= set(listed)


def test_the_documented_groups_are_those_of_the_code() -> None:
    lines = (ROOT / "docs" / "guides" / "logs.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `") and "/` |" in line]
    shown = {group.strip("`/"): tuple(names.replace("`", "").split()) for group, names, *_ in cells if " " in names}
    assert {group: shown[group] for group in GROUPS} == GROUPS


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("episode_return_mean", "rollout/episode_return_mean"),
        ("lr", "train/lr"),
        ("env_steps_per_second", "time/env_steps_per_second"),
        ("accuracy", "eval/accuracy"),
        ("eval_success_rate", "eval/success_rate"),
        ("train_gap", "train/gap"),
        ("mine/gap", "mine/gap"),
        ("gap", "other/gap"),
        ("eval", "other/eval"),
        ("evaluation_gap", "other/evaluation_gap"),
    ],
)
def test_a_metric_has_a_group(name: str, tag: str) -> None:
    assert tag_of(name) == tag
