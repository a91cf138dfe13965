"""The groups of metrics in TensorBoard, W&B and MLflow: ``rollout/episode_return_mean``, ``train/lr``."""

GROUPS: dict[str, tuple[str, ...]] = {
    "rollout": (
        *("episode_return_mean", "episode_length_mean", "num_episodes", "success_rate", "reward_mean", "env_faults"),
    ),
    "train": (
        *("total_loss", "policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "explained_variance"),
        *("gradient_norm", "lr"),
    ),
    "eval": ("accuracy", "accuracy_whole", "held_out_loss"),
    "time": ("iteration", "env_steps", "seconds", "env_steps_per_second", "memory_mb"),
}
"""The metrics of each group, by their keys in ``metrics.jsonl``."""
OTHER = "other"
"""The group of metrics that no rule puts elsewhere, as those of a callback."""
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


def tag_of(name: str) -> str:
    """Returns a metric's name with its group.

    Metrics that ``GROUPS`` does not list: one with a slash keeps its name; one that begins with a group's name, as
    ``eval_return_mean``, is in that group (``eval/return_mean``); any other is in ``other``.
    """
    if "/" in name:
        return name
    if name in _GROUP_OF:
        return f"{_GROUP_OF[name]}/{name}"
    prefix, _, rest = name.partition("_")
    return f"{prefix}/{rest}" if rest and prefix in GROUPS else f"{OTHER}/{name}"
