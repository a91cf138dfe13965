from ctm_rl.envs.guard.env_guard import EnvGuard as EnvGuard
from ctm_rl.envs.wrappers.by_name import wrap as wrap
from ctm_rl.envs.wrappers.frame_skip import FrameSkip as FrameSkip
from ctm_rl.envs.wrappers.hide_velocity import HideVelocity as HideVelocity
from ctm_rl.envs.wrappers.minigrid_views import TightGrid as TightGrid
from ctm_rl.envs.wrappers.staggered_start import StaggeredStart as StaggeredStart
