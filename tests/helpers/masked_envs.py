"""Environments with illegal actions, which they refuse; imported by their ids, in other processes too."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

SIZES = (2, 4, 3)
"""Of the several choices."""
MASKED_SPACES: dict[str, Space] = {"One": Discrete(5, start=-1), "Several": MultiDiscrete(np.array(SIZES))}
"""Action spaces by the name between ``masked/`` and the form of the mask."""


class Gates(gym.Env):
    """Observes noise; a random set of options is legal, and the others raise an error.

    Episodes have 1 to 6 steps and terminate or are truncated. What their last observation allows is nothing.

    Args:
        form: of the mask: "Dict" (one array), "Tuple" (an array for each choice), "Method" or "None" (all is legal).
        actions: which of ``MASKED_SPACES``.
        fault: "nothing": in the third step of an episode nothing is legal; "shape": the mask lacks an entry.
    """

    def __init__(self, form: str, actions: str, fault: str | None = None) -> None:
        self.form, self.fault = form, fault
        self.action_space = MASKED_SPACES[actions]
        self.sizes = SIZES if actions == "Several" else (5,)
        noise = Box(-np.inf, np.inf, (3,))
        masks = {
            "Dict": Box(0, 1, (sum(self.sizes),), np.float32),
            "Tuple": Tuple([MultiBinary(size) for size in self.sizes]),
        }
        self.observation_space = Dict({"observations": noise, "action_mask": masks[form]}) if form in masks else noise
        if form == "Method":
            self.action_masks = lambda: self.mask

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.num_steps, self.length = 0, int(self.np_random.integers(1, 7))
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        start = getattr(self.action_space, "start", 0)
        chosen = np.atleast_1d(np.asarray(action) - start)
        for place, option in zip(np.cumsum((0, *self.sizes[:-1])), chosen, strict=True):
            if self.form != "None" and not self.mask[place + option]:
                raise ValueError(f"{action} is illegal")
        self.num_steps += 1
        is_over = self.num_steps == self.length
        observation = self.look(is_over=is_over)
        return observation, float(chosen.sum()), is_over and self.length % 2 == 0, is_over and self.length % 2 == 1, {}

    def look(self, *, is_over: bool = False) -> Any:
        parts = [self.np_random.random(size) < 0.4 for size in self.sizes]
        for part in parts:
            part[self.np_random.integers(len(part))] = True
            part &= not is_over
        self.mask = np.concatenate(parts)
        if self.fault == "nothing" and self.num_steps == 2:
            self.mask[-self.sizes[-1] :] = False
        if self.fault == "shape":
            self.mask = self.mask[1:]
        noise = self.np_random.normal(size=3).astype(np.float32)
        if self.form not in ("Dict", "Tuple"):
            return noise
        in_tuple = tuple(part.astype(np.int8) for part in np.split(self.mask, np.cumsum(self.sizes)[:-1]))
        mask = in_tuple if self.form == "Tuple" else self.mask.astype(np.float32)
        return {"observations": noise, "action_mask": mask}


FORMS = ("Dict", "Tuple", "Method", "None")
for form in FORMS:
    for actions in MASKED_SPACES:
        if f"masked/{actions}{form}-v0" not in gym.registry:
            gym.register(
                f"masked/{actions}{form}-v0",
                lambda **kwargs: Gates(**kwargs),
                kwargs={"form": form, "actions": actions},
            )
