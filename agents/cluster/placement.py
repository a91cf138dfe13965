"""Where environment runners go in a cluster of several nodes; RLlib leaves that to Tune, and to Ray without it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ctm_rl.agents.experiments.settings import Placement
from ctm_rl.agents.rllib import private


@contextlib.contextmanager
def placed(placement: Placement | None) -> Iterator[None]:
    """Places the environment runners of the algorithms that are built inside the body.

    Args:
        placement: pack, spread, or ``None``: as Ray does.
    """
    if placement is None:
        yield
        return
    with private.env_runner_group_class(_PackedGroup if placement == "pack" else _SpreadGroup):
        yield


class _SpreadGroup(EnvRunnerGroup):
    """Environment runners evenly over all nodes; one that is restarted goes wherever there is room."""

    def _setup(self, **kwargs: Any) -> None:
        """Makes the runners; inside a Tune trial they go where Tune has made room."""
        if ray.util.get_current_placement_group() is None:
            private.remote_args_of(self)["scheduling_strategy"] = "SPREAD"
        super()._setup(**kwargs)


class _PackedGroup(EnvRunnerGroup):
    """Environment runners in a placement group, on as few nodes as hold them.

    Runners that die with their node come back together, once there is room for all of them.
    """

    _room: PlacementGroup | None = None

    def _setup(self, *, num_env_runners: int = 0, **kwargs: Any) -> None:
        """Reserves the room, then makes the runners; inside a Tune trial they go where Tune has made room."""
        if num_env_runners and ray.util.get_current_placement_group() is None:
            args = private.remote_args_of(self)
            sizes = {"CPU": args["num_cpus"], "GPU": args["num_gpus"], **(args["resources"] or {})}
            bundle = {name: size for name, size in sizes.items() if size}
            self._room = placement_group([bundle] * num_env_runners, strategy="PACK")
            args["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._room)
        super()._setup(num_env_runners=num_env_runners, **kwargs)

    def stop(self) -> None:
        """Ends the runners and gives the room back."""
        super().stop()
        if self._room is not None:
            remove_placement_group(self._room)
            self._room = None
