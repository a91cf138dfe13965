"""Frame stack: the last observations as one, so that a single one shows how things move."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import FrameStackObservation, TransformObservation

from ctm_rl.describe_space import describe_space
from ctm_rl.errors import UserError


def stack_frames(env: gym.Env, num_frames: int) -> gym.Env:
    """Shows the last observations together, the newest last; an episode begins with copies of its first one.

    Vectors become one long vector. The channels of images stand side by side: [H, W] becomes [H, W, N], [H, W, C]
    becomes [H, W, N x C], and [C, H, W] becomes [N x C, H, W].

    Args:
        env: an environment that observes a vector or an image, a Box.
        num_frames: how many, N.

    Raises:
        UserError: it observes something else, or there would be as many channels as an image is wide or high.
    """
    space = env.observation_space
    if not isinstance(space, Box) or len(space.shape) not in (1, 2, 3):
        order = "; give it before the wrapper that makes one" if isinstance(space, Dict) else ""
        raise UserError(
            f"wrapper frame-stack stacks vectors and images, a Box of 1 to 3 axes; the observation is "
            f"{describe_space(space)}{order}."
        )
    shape: tuple[int, ...] = space.shape
    is_channels_first = len(shape) == 3 and shape[0] < shape[2]
    if len(shape) > 1:
        _check_channels(num_frames, shape, is_channels_first=is_channels_first)

    def join(frames: np.ndarray) -> np.ndarray:
        if frames.ndim == 2 or is_channels_first:
            return np.concatenate(frames)
        return np.moveaxis(frames, 0, 2).reshape(*shape[:2], -1)

    low, high = (join(np.stack([bound] * num_frames)) for bound in (space.low, space.high))
    stacked = Box(low, high, dtype=low.dtype.type)
    return TransformObservation(FrameStackObservation(env, num_frames), join, stacked)


def _check_channels(num_frames: int, shape: tuple[int, ...], *, is_channels_first: bool) -> None:
    """Refuses images with more channels than places: encoders would take them for sides.

    Raises:
        UserError: there are too many.
    """
    height, width = shape[1:] if is_channels_first else shape[:2]
    channels = num_frames * (1 if len(shape) == 2 else min(shape[0], shape[2]))
    if channels >= min(height, width):
        raise UserError(
            f"wrapper frame-stack={num_frames} would make {channels} channels of an image of {height} x {width}, which "
            "must have fewer than its sides are long; stack fewer frames."
        )
