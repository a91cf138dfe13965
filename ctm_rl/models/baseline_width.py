"""The width at which a baseline has as many parameters as the machine it is compared with."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from ctm_rl.config import AnswerConfig, PolicyConfig

Config = TypeVar("Config", PolicyConfig, AnswerConfig)


def nearest_width(size: Callable[[int], int], target: int) -> int:
    """Finds the width whose size is nearest to a target.

    Args:
        size: maps a width, from 1 on, to a size that increases with it.
        target: the wanted size.

    Returns:
        The width; the smaller one of two that are equally near.
    """
    above = 1
    while size(above) < target:
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if size(middle) < target else (below, middle)
    return above if below < 1 or target - size(below) > size(above) - target else below


def settle_width(config: Config, build: Callable[[Config], nn.Module]) -> Config:
    """Sets the width of a baseline that has none so that its number of parameters is nearest to the machine's.

    The number of parameters is a polynomial of second degree in the width: three widths determine it.

    Args:
        config: fitted to its task.
        build: makes the whole network of a configuration.

    Returns:
        The configuration with ``baseline_dim`` set; that of the machine, which needs none, unchanged.
    """
    if config.kind == "ctm" or config.baseline_dim is not None:
        return config

    def count(other: Config) -> int:
        # the parameter values are not needed, and random generators stay as they are
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return sum(parameter.numel() for parameter in build(other).parameters())

    one, two, three = (count(replace(config, baseline_dim=width)) for width in (1, 2, 3))
    bend = three - 2 * two + one

    def size(width: int) -> int:
        return one + (width - 1) * (two - one) + (width - 1) * (width - 2) // 2 * bend

    return replace(config, baseline_dim=nearest_width(size, count(replace(config, kind="ctm"))))
