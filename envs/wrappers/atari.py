"""Atari games as they are usually played: every fourth frame, small and grey, four of them at a time."""

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from ctm_rl.errors import UserError

NUM_FRAMES = 4


def preprocess(env: gym.Env) -> gym.Env:
    """Wraps an Atari game in Gymnasium's ``AtariPreprocessing``, and stacks four frames: [4, 84, 84], uint8.

    An episode begins with up to 30 idle actions, and losing a life does not end it.

    Args:
        env: a game of ``ale-py`` that skips no frames itself (``frameskip=1``).

    Raises:
        UserError: this is no such game, or OpenCV is missing.
    """
    if not hasattr(env.unwrapped, "ale"):
        raise UserError(f"wrapper atari is for the games of ale-py, such as ALE/Pong-v5, not for {env}.")
    try:
        return FrameStackObservation(AtariPreprocessing(env), NUM_FRAMES)
    except gym.error.DependencyNotInstalled as error:
        raise UserError('wrapper atari needs OpenCV: pip install "ctm-rl[atari]".') from error
    except (ValueError, AssertionError) as error:
        raise UserError(f"wrapper atari does not fit {env}: {error}") from error
