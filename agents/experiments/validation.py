"""What settings of a run have to keep to, whoever gives them; without torch or ray."""

import math


def check_number(
    name: str,
    value: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raises ValueError, naming the limits, unless ``value`` is finite and inside them; NaN is inside nothing."""
    is_inside = (
        (isinstance(value, int) or math.isfinite(value))
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
    )
    if is_inside:
        return
    limits = [f"at least {at_least}"] if at_least is not None else []
    limits += [f"above {above}"] if above is not None else []
    limits += [f"at most {at_most}"] if at_most is not None else []
    raise ValueError(f"{name} must be {' and '.join(limits) or 'finite'}, got {value}.")


def check_rows(
    *, num_env_runners: int, num_envs_per_env_runner: int, num_learners: int, num_minibatches: int, prefix: str = ""
) -> None:
    """Refuses environments that cannot be dealt out to learners and minibatches in equal parts.

    Args:
        num_env_runners: processes that play; 0: one, the training process.
        num_envs_per_env_runner: environments in each.
        num_learners: processes that learn; 0: one, the training process.
        num_minibatches: of each learner.
        prefix: put before ``num_minibatches`` in the message.

    Raises:
        ValueError: one line naming the nearest numbers that work.
    """
    runners, learners = max(1, num_env_runners), max(1, num_learners)
    unit = learners * num_minibatches
    num_envs = runners * num_envs_per_env_runner
    if num_envs % unit == 0:
        return
    step = unit // math.gcd(unit, runners)
    below, above = num_envs_per_env_runner // step * step, (num_envs_per_env_runner // step + 1) * step
    nearest = f"{below} or {above}" if below else f"{above}"
    raise ValueError(
        f"{prefix}num_minibatches {num_minibatches} x {learners} learners must divide the {num_envs} environments "
        f"({runners} x {num_envs_per_env_runner}), for minibatches are whole environments; the nearest "
        f"num_envs_per_env_runner that work: {nearest}."
    )


def check_ahead(*, collect_ahead: bool, num_env_runners: int, prefix: str = "") -> None:
    """Refuses to play ahead where nobody else plays.

    Raises:
        ValueError: one line that says what is needed.
    """
    if collect_ahead and num_env_runners < 1:
        raise ValueError(
            f"{prefix}collect_ahead needs num_env_runners of at least 1, got {num_env_runners}: the process that "
            "learns cannot play meanwhile."
        )


def scale_of_rewards(scale: float | None, gamma: float, *, is_normalised: bool) -> float:
    """The factor of rewards: the one asked for, or the one that makes a value a mean of rewards instead of their sum.

    Args:
        scale: asked for; ``None``: to be chosen.
        gamma: discount.
        is_normalised: whether rewards have been brought to a common size already.

    Returns:
        The factor.
    """
    if scale is not None:
        return scale
    return 1.0 if is_normalised or gamma >= 1.0 else 1.0 - gamma
