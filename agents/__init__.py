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
    from ctm_rl.agents.supervised import Supervised as Supervised
    from ctm_rl.agents.supervised_config import SupervisedConfig as SupervisedConfig
    from ctm_rl.agents.supervised_experiment import HeldOutSettings as HeldOutSettings
    from ctm_rl.agents.supervised_experiment import LearningSettings as LearningSettings
    from ctm_rl.agents.supervised_experiment import SupervisedExperiment as SupervisedExperiment
    from ctm_rl.agents.thinker_module import ThinkerModule as ThinkerModule

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "CTMModule": "ctm_rl.agents.module",
        "Experiment": "ctm_rl.agents.experiment",
        "RecurrentPPO": "ctm_rl.agents.ppo",
        "HeldOutSettings": "ctm_rl.agents.supervised_experiment",
        "LearningSettings": "ctm_rl.agents.supervised_experiment",
        "RecurrentPPOConfig": "ctm_rl.agents.ppo_config",
        "Supervised": "ctm_rl.agents.supervised",
        "SupervisedConfig": "ctm_rl.agents.supervised_config",
        "SupervisedExperiment": "ctm_rl.agents.supervised_experiment",
        "ThinkerModule": "ctm_rl.agents.thinker_module",
        "evaluate": "ctm_rl.agents.evaluation",
        "resume": "ctm_rl.agents.run",
        "train": "ctm_rl.agents.run",
    },
)
