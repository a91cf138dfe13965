"""The help of an experiment that fits one screen: the fields that matter most, with their values in it."""

import json
from typing import Any

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.fields import fields_of
from ctm_rl.agents.experiments.serialise import AnyExperiment

WIDTH, HEIGHT = 80, 24
"""Columns and lines of the smallest terminal."""
Groups = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
_RUN = (
    ("--seed", "one seed; several: --seeds 1 2 3"),
    ("--budget.env-steps", "steps of all environments together"),
    ("--budget.minutes", "wall time of training"),
    ("--run-dir", "new directory; None: runs/NAME-TIME"),
)
ACTING: Groups = (
    ("run", _RUN),
    (
        "environment",
        (
            ("--env.kwargs", "its arguments, a JSON object"),
            ("--env.wrappers", "wrappers, the first innermost"),
            ("--num-envs-per-env-runner", "environments of each env runner"),
            ("--num-env-runners", "processes; 0: the training process"),
        ),
    ),
    (
        "model",
        (
            ("--model.kind", "ctm, lstm, gru or mlp"),
            ("--model.num-neurons", "neurons of the machine"),
            ("--model.num-ticks", "ticks of thought for each step"),
        ),
    ),
    (
        "learning",
        (
            ("--ppo.lr", "learning rate of Adam"),
            ("--ppo.gamma", "discount of each step"),
            ("--ppo.entropy-coefficient", "weight of the policy's entropy"),
            ("--ppo.num-rollout-steps", "steps of an environment per iteration"),
        ),
    ),
)
ANSWERING: Groups = (
    ("run", (*_RUN[:1], ("--budget.env-steps", "samples to learn from"), *_RUN[2:])),
    (
        "task",
        (
            ("--env.kwargs", "its arguments, a JSON object"),
            ("--held-out.num-samples", "tested on, never learned from"),
        ),
    ),
    (
        "model",
        (
            ("--model.kind", "ctm, lstm, gru or mlp"),
            ("--model.num-neurons", "neurons of the machine"),
            ("--model.num-ticks", "ticks of thought for each sample"),
            ("--model.encoder", "how samples are read"),
        ),
    ),
    (
        "learning",
        (
            ("--signal", "label, or reward alone"),
            ("--learning.lr", "learning rate of AdamW"),
            ("--learning.batch-size", "samples of an optimiser step"),
            ("--learning.schedule", "constant, cosine or multistep"),
            ("--learning.weight-decay", "decoupled weight decay"),
        ),
    ),
)
"""Groups of options, each with what it is in a few words; ``--help-all`` has the whole sentence."""


def short_help(experiment: AnyExperiment, prog: str) -> str:
    """Returns the help of an experiment.

    Args:
        experiment: its values are shown.
        prog: the command with the experiment, as ``ctm-rl train cartpole``.
    """
    groups = ACTING if isinstance(experiment, ActingExperiment) else ANSWERING
    rows = [(option, _shown(experiment, option), words) for _, group in groups for option, words in group]
    option_width = max(len(option) for option, _, _ in rows) + 2
    value_width = min(max(len(value) for _, value, _ in rows), WIDTH - 2 - option_width - 38) + 1
    usages = [f"usage: {prog} {options}" for options in ("[--OPTION VALUE ...]", "[OPTIONS]")]
    lines = [next((usage for usage in usages if len(usage) <= WIDTH), usages[-1])]
    for title, group in groups:
        lines.append(f"{title}:")
        for option, words in group:
            value = _cut(_shown(experiment, option), value_width - 1)
            lines.append(f"  {option:<{option_width}}{value:<{value_width}}{words}".rstrip())
    num_options = len(fields_of(type(experiment)))
    lines.append(f"--help-all describes all {num_options} options, --print-config shows their values as JSON.")
    return "\n".join(lines) + "\n"


def _shown(experiment: Any, option: str) -> str:
    """The value of an option, as it is typed."""
    for name in option[2:].replace("-", "_").split("."):
        experiment = getattr(experiment, name)
    if isinstance(experiment, dict):
        return json.dumps(experiment)
    return " ".join(map(str, experiment)) if isinstance(experiment, tuple) else str(experiment)


def _cut(text: str, width: int) -> str:
    """A text, or its beginning."""
    return text if len(text) <= width else f"{text[: width - 2]}.."
