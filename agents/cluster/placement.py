"""Places environment runners on the nodes of a cluster, which RLlib leaves to Tune, or to Ray without Tune."""

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
def placed_env_runners(placement: Placement | None) -> Iterator[None]:
    """Places the environment runners of the algorithms that are built inside the body.

    Args:
        placement: pack, spread, or ``None``: Ray decides.
    """
    if placement is None:
        yield
        return
    with private.env_runner_group_class(_PackedGroup if placement == "pack" else _SpreadGroup):
        yield


class _SpreadGroup(EnvRunnerGroup):
    """Environment runners spread evenly over all nodes; a restarted one goes wherever there is room."""

    def _setup(self, **kwargs: Any) -> None:
        """Makes the runners; inside a Tune trial they go where Tune has reserved resources."""
        if ray.util.get_current_placement_group() is None:
            private.remote_args_of(self)["scheduling_strategy"] = "SPREAD"
        super()._setup(**kwargs)


class _PackedGroup(EnvRunnerGroup):
    """Environment runners in a placement group, on as few nodes as possible.

    Runners that die with their node are restarted together, once there is room for all of them.
    """

    _placement_group: PlacementGroup | None = None

    def _setup(self, *, num_env_runners: int = 0, **kwargs: Any) -> None:
        """Reserves resources, then makes the runners; inside a Tune trial they go where Tune has reserved resources."""
        if num_env_runners and ray.util.get_current_placement_group() is None:
            args = private.remote_args_of(self)
            sizes = {"CPU": args["num_cpus"], "GPU": args["num_gpus"], **(args["resources"] or {})}
            bundle = {name: size for name, size in sizes.items() if size}
            self._placement_group = placement_group([bundle] * num_env_runners, strategy="PACK")
            args["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._placement_group)
        super()._setup(num_env_runners=num_env_runners, **kwargs)

    def stop(self) -> None:
        """Stops the runners and releases their resources."""
        super().stop()
        if self._placement_group is not None:
            remove_placement_group(self._placement_group)
            self._placement_group = None
