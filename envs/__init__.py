"""Gymnasium: what the machine acts on. Importing this package makes its environments known by name."""

from typing import TYPE_CHECKING

from ctm_rl._lazy import lazy_exports
from ctm_rl.envs.registry import register_all

if TYPE_CHECKING:
    from ctm_rl.envs.control import HideVelocity as HideVelocity
    from ctm_rl.envs.frame_skip import FrameSkip as FrameSkip
    from ctm_rl.envs.grids import TightGrid as TightGrid
    from ctm_rl.envs.guard import EnvGuard as EnvGuard
    from ctm_rl.envs.stagger import StaggeredStart as StaggeredStart
    from ctm_rl.envs.wrappers import wrap as wrap

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "EnvGuard": "ctm_rl.envs.guard",
        "FrameSkip": "ctm_rl.envs.frame_skip",
        "HideVelocity": "ctm_rl.envs.control",
        "StaggeredStart": "ctm_rl.envs.stagger",
        "TightGrid": "ctm_rl.envs.grids",
        "wrap": "ctm_rl.envs.wrappers",
    },
)

register_all()
