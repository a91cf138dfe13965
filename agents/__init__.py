"""Ray: how the machine acts and learns."""

from typing import TYPE_CHECKING

from ctm_rl._lazy import lazy_exports

if TYPE_CHECKING:
    from ctm_rl.agents.evaluation import evaluate as evaluate
    from ctm_rl.agents.experiment import Experiment as Experiment
    from ctm_rl.agents.module import CTMModule as CTMModule
    from ctm_rl.agents.ppo import RecurrentPPO as RecurrentPPO
    from ctm_rl.agents.ppo_config import RecurrentPPOConfig as RecurrentPPOConfig
    from ctm_rl.agents.run import resume as resume
    from ctm_rl.agents.run import train as train

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "CTMModule": "ctm_rl.agents.module",
        "Experiment": "ctm_rl.agents.experiment",
        "RecurrentPPO": "ctm_rl.agents.ppo",
        "RecurrentPPOConfig": "ctm_rl.agents.ppo_config",
        "evaluate": "ctm_rl.agents.evaluation",
        "resume": "ctm_rl.agents.run",
        "train": "ctm_rl.agents.run",
    },
)
