"""Continuous Thought Machines in plain PyTorch; how they act and learn on Ray is in ``ctm_rl.agents``."""

from pathlib import Path
from typing import TYPE_CHECKING

from ctm_rl._lazy import lazy_exports

if TYPE_CHECKING:
    from ctm_rl.agent import ActorCritic as ActorCritic
    from ctm_rl.config import CoreConfig as CoreConfig
    from ctm_rl.config import PolicyConfig as PolicyConfig
    from ctm_rl.config import ThinkerConfig as ThinkerConfig
    from ctm_rl.interop import load_official as load_official
    from ctm_rl.models import ContinuousThoughtMachine as ContinuousThoughtMachine
    from ctm_rl.policy import Policy as Policy
    from ctm_rl.thinker import load_thinker as load_thinker

__version__ = "0.1.0"

_CHECKOUT = Path(__file__).parents[1]
if all((_CHECKOUT / part).is_file() for part in ("pyproject.toml", "agents/__init__.py", "envs/__init__.py")):
    # In a checkout the rooms lie beside this folder, not in it. Where the checkout's root is on the path (it is the
    # working directory, as for Ray's workers), this folder hides the installed package and would miss them.
    __path__.append(str(_CHECKOUT))

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ActorCritic": "ctm_rl.agent",
        "ContinuousThoughtMachine": "ctm_rl.models",
        "CoreConfig": "ctm_rl.config",
        "Policy": "ctm_rl.policy",
        "PolicyConfig": "ctm_rl.config",
        "ThinkerConfig": "ctm_rl.config",
        "load_official": "ctm_rl.interop",
        "load_thinker": "ctm_rl.thinker",
    },
)
