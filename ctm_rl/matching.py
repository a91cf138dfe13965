"""Baselines of as many parameters as the machine they are compared with."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from ctm_rl.config import ModelKind, ThinkerConfig
from ctm_rl.models import build_model


def count_parameters(build: Callable[[], nn.Module]) -> int:
    """Counts what a network learns; no random generator moves.

    Args:
        build: makes the network.

    Returns:
        How many numbers are learned.
    """
    with torch.random.fork_rng(devices=[]):
        network = build()
    return sum(parameter.numel() for parameter in network.parameters())


def nearest_width(size: Callable[[int], int], target: int) -> int:
    """Finds the width whose size is nearest to a target.

    Args:
        size: of a width from 1 on; must rise with it.
        target: the size that is wanted.

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


def matched_thinker(config: ThinkerConfig, kind: ModelKind) -> ThinkerConfig:
    """Makes a baseline of a model that answers.

    Args:
        config: with the machine, fitted to its task; its ``baseline_dim`` does not matter.
        kind: ``lstm``, or ``ff`` where the encoder is a ResNet.

    Returns:
        The baseline, with the ``baseline_dim`` whose number of parameters is nearest to the machine's.
    """

    def size(config: ThinkerConfig) -> int:
        with torch.device("meta"):  # its numbers are not needed
            return count_parameters(lambda: build_model(config))

    width = nearest_width(
        lambda width: size(replace(config, kind=kind, baseline_dim=width)), size(replace(config, kind="ctm"))
    )
    return replace(config, kind=kind, baseline_dim=width)
