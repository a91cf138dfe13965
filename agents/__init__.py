"""Ray: how the machine acts and learns."""

from typing import TYPE_CHECKING

from ctm_rl._lazy import lazy_exports

if TYPE_CHECKING:
    from ctm_rl.agents.evaluation.episodes import evaluate as evaluate
    from ctm_rl.agents.experiments.acting import Experiment as Experiment
    from ctm_rl.agents.experiments.answering import HeldOutSettings as HeldOutSettings
    from ctm_rl.agents.experiments.answering import LearningSettings as LearningSettings
    from ctm_rl.agents.experiments.answering import SupervisedExperiment as SupervisedExperiment
    from ctm_rl.agents.ppo.algorithm import RecurrentPPO as RecurrentPPO
    from ctm_rl.agents.ppo.config import RecurrentPPOConfig as RecurrentPPOConfig
    from ctm_rl.agents.rllib.module import CTMModule as CTMModule
    from ctm_rl.agents.runs.train import resume as resume
    from ctm_rl.agents.runs.train import train as train
    from ctm_rl.agents.supervised.algorithm import Supervised as Supervised
    from ctm_rl.agents.supervised.config import SupervisedConfig as SupervisedConfig
    from ctm_rl.agents.supervised.module import ThinkerModule as ThinkerModule

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "CTMModule": "ctm_rl.agents.rllib.module",
        "Experiment": "ctm_rl.agents.experiments.acting",
        "RecurrentPPO": "ctm_rl.agents.ppo.algorithm",
        "HeldOutSettings": "ctm_rl.agents.experiments.answering",
        "LearningSettings": "ctm_rl.agents.experiments.answering",
        "RecurrentPPOConfig": "ctm_rl.agents.ppo.config",
        "Supervised": "ctm_rl.agents.supervised.algorithm",
        "SupervisedConfig": "ctm_rl.agents.supervised.config",
        "SupervisedExperiment": "ctm_rl.agents.experiments.answering",
        "ThinkerModule": "ctm_rl.agents.supervised.module",
        "evaluate": "ctm_rl.agents.evaluation.episodes",
        "resume": "ctm_rl.agents.runs.train",
        "train": "ctm_rl.agents.runs.train",
    },
)
