"""Figures of one image that was classified: attention of every head over it, probabilities, certainty."""

from collections.abc import Sequence

import numpy as np

from ctm_rl.agents.report.document import Figure, Picture
from ctm_rl.agents.report.samples import Shown, answers_readout, probabilities_figure, probability_traces


def is_image(observation: object) -> bool:
    """Whether an observation is an image of bytes, [H, W, C] with one or three channels."""
    return (
        isinstance(observation, np.ndarray)
        and observation.dtype == np.uint8
        and observation.ndim == 3
        and observation.shape[2] in (1, 3)
    )


def image_figures(shown: Shown, names: Sequence[str]) -> list[Figure]:
    """The figures of a sample.

    Args:
        shown: the sample, an image.
        names: of the classes.
    """
    figures: list[Figure] = [image_picture(shown), answers_readout(shown, names)]
    if len(shown.candidate.target) == 1:
        figures += [probabilities_figure(shown, names), *probability_traces(shown, names)]
    return figures


def image_picture(shown: Shown) -> Picture:
    """The image with the attention of every head over it at each tick."""
    image = np.asarray(shown.candidate.observation)
    attention = shown.attention
    has_map = attention is not None and attention.ndim == 4
    return Picture(
        title="What it attends to",
        caption="The image, and the attention of each head over it at this tick, with the path of its centre."
        if has_map
        else "The image.",
        images=(image[..., 0] if image.shape[2] == 1 else image)[None],
        attention=attention if has_map else None,
        is_pixelated=max(image.shape[:2]) <= 64,
    )
