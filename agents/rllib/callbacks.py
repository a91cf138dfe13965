"""Which of RLlib's callbacks a configuration has."""

from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils import force_list

EPISODE_CALLBACKS = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")
"""Those that get an episode, in the order in which they are called."""
SAMPLE_CALLBACK = "on_sample_end"
"""The one that gets a list of episodes, which none of our environment runners returns."""


def is_given(config: Any, name: str) -> bool:
    """Whether RLlib's configuration has a callback of a name: as a method of a class, or as a function."""
    kinds = force_list(config.callbacks_class)
    return bool(getattr(config, f"callbacks_{name}", None)) or any(
        getattr(kind, name) is not getattr(RLlibCallback, name) for kind in kinds
    )
