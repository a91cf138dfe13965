"""Continuous Thought Machines in plain PyTorch; how they act and learn on Ray is in ``ctm_rl.agents``."""

from typing import TYPE_CHECKING

from ctm_rl._lazy import lazy_exports

if TYPE_CHECKING:
    from ctm_rl.checkpoints.published import load_official as load_official
    from ctm_rl.config import CoreConfig as CoreConfig
    from ctm_rl.config import PolicyConfig as PolicyConfig
    from ctm_rl.config import ThinkerConfig as ThinkerConfig
    from ctm_rl.inference.load_model import load_thinker as load_thinker
    from ctm_rl.inference.policy import Policy as Policy
    from ctm_rl.models.actor_critic import ActorCritic as ActorCritic
    from ctm_rl.models.answering import ContinuousThoughtMachine as ContinuousThoughtMachine

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ActorCritic": "ctm_rl.models.actor_critic",
        "ContinuousThoughtMachine": "ctm_rl.models.answering",
        "CoreConfig": "ctm_rl.config",
        "Policy": "ctm_rl.inference.policy",
        "PolicyConfig": "ctm_rl.config",
        "ThinkerConfig": "ctm_rl.config",
        "load_official": "ctm_rl.checkpoints.published",
        "load_thinker": "ctm_rl.inference.load_model",
    },
)
