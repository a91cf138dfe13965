"""A player of an untrained policy, and videos read back."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from small_policy import SMALL

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.agents.video.player import Player, PlayerOptions, make_player
from ctm_rl.inference.policy import Policy
from ctm_rl.models.actor_critic import ActorCritic

COUNTING = EnvConfig(id="counting_env:helpers/Counting-v0", kwargs={"length": 4})
"""Frames of 8 x 12 pixels that are the number of the step."""


def player_for(config: EnvConfig, model: Any = SMALL, **options: Any) -> Player:
    """A player of an untrained policy."""
    with contextlib.closing(make_env(config)) as env:
        torch.manual_seed(8)
        fitted = fit(model, env.observation_space, env.action_space)
    policy = Policy(ActorCritic(fitted.config, fitted.layout, fitted.actions), iteration=7)
    return make_player(policy, config, "small", PlayerOptions(**options))


def frames_of(file: Path) -> tuple[list[np.ndarray], float]:
    """The frames of a video, [H, W, 3] each, and how many seconds it lasts."""
    if file.suffix == ".mp4":
        import av

        with av.open(str(file)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            rate = container.streams.video[0].average_rate
        assert rate is not None
        return frames, len(frames) / float(rate)
    frames, milliseconds = [], 0
    with Image.open(file) as image:
        for place in range(getattr(image, "n_frames", 1)):
            image.seek(place)
            frames.append(np.asarray(image.convert("RGB")))
            milliseconds += image.info["duration"]
    return frames, milliseconds / 1000
