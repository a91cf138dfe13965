"""Gymnasium: what the machine acts on. Importing this package makes its environments known by name."""

from typing import TYPE_CHECKING

from ctm_rl._lazy import lazy_exports
from ctm_rl.envs.registry import register_all

if TYPE_CHECKING:
    from ctm_rl.envs.guard.single import EnvGuard as EnvGuard
    from ctm_rl.envs.wrappers.by_name import wrap as wrap
    from ctm_rl.envs.wrappers.frame_skip import FrameSkip as FrameSkip
    from ctm_rl.envs.wrappers.hide_velocity import HideVelocity as HideVelocity
    from ctm_rl.envs.wrappers.minigrid_views import TightGrid as TightGrid
    from ctm_rl.envs.wrappers.staggered_start import StaggeredStart as StaggeredStart

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "EnvGuard": "ctm_rl.envs.guard.single",
        "FrameSkip": "ctm_rl.envs.wrappers.frame_skip",
        "HideVelocity": "ctm_rl.envs.wrappers.hide_velocity",
        "StaggeredStart": "ctm_rl.envs.wrappers.staggered_start",
        "TightGrid": "ctm_rl.envs.wrappers.minigrid_views",
        "wrap": "ctm_rl.envs.wrappers.by_name",
    },
)

register_all()
