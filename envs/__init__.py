"""Gymnasium: what the machine acts on. Importing this package makes its environments known by name."""

from typing import TYPE_CHECKING

from ctm_rl._lazy import lazy_exports
from ctm_rl.envs.registry import register_all

if TYPE_CHECKING:
    from ctm_rl.envs.control import HideVelocity as HideVelocity

__getattr__, __dir__ = lazy_exports(__name__, {"HideVelocity": "ctm_rl.envs.control"})

register_all()
