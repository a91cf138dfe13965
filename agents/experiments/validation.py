"""Checks shared by the settings of experiments and the configurations of algorithms; loads neither torch nor ray."""

import math
from typing import Any


def check_number(
    name: str,
    value: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raises ValueError, naming the limits, unless ``value`` is finite and within them; NaN never is."""
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
    """Refuses environments that cannot be divided equally among learners and minibatches.

    Args:
        num_env_runners: processes that run the environments; 0: one, the training process.
        num_envs_per_env_runner: environments in each of them.
        num_learners: processes that compute the updates; 0: one, the training process.
        num_minibatches: minibatches of each learner.
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
        f"({runners} x {num_envs_per_env_runner}), since minibatches are whole environments; the nearest "
        f"num_envs_per_env_runner that work: {nearest}."
    )


def check_api_stack(config: Any) -> None:
    """Refuses RLlib's old API stack.

    Args:
        config: RLlib's configuration of an algorithm.

    Raises:
        ValueError: one line with the way out.
    """
    if not (config.enable_rl_module_and_learner and config.enable_env_runner_and_connector_v2):
        raise ValueError(f"{type(config).__name__} needs RLlib's new API stack; leave api_stack(...) out.")


def check_ahead(*, collect_ahead: bool, num_env_runners: int, prefix: str = "") -> None:
    """Refuses ``collect_ahead`` without a separate process that runs the environments.

    Raises:
        ValueError: one line naming what is needed.
    """
    if collect_ahead and num_env_runners < 1:
        raise ValueError(
            f"{prefix}collect_ahead needs num_env_runners of at least 1, got {num_env_runners}: the training "
            "process cannot collect steps while it computes updates."
        )


def scale_of_rewards(scale: float | None, gamma: float, *, is_normalised: bool) -> float:
    """Returns the factor of the rewards; by default 1 - gamma, so that a value is a mean of rewards, not their sum.

    Args:
        scale: the configured factor; ``None``: the default.
        gamma: discount.
        is_normalised: whether rewards are normalised already; the default is then 1.
    """
    if scale is not None:
        return scale
    return 1.0 if is_normalised or gamma >= 1.0 else 1.0 - gamma
