"""Ray: how the machine acts and learns."""

from typing import TYPE_CHECKING

from ctm_rl._lazy import lazy_exports

if TYPE_CHECKING:
    from ctm_rl.agents.evaluation import evaluate as evaluate
    from ctm_rl.agents.experiment import Experiment as Experiment
    from ctm_rl.agents.module import CTMModule as CTMModule
    from ctm_rl.agents.run import resume as resume
    from ctm_rl.agents.run import train as train

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "CTMModule": "ctm_rl.agents.module",
        "Experiment": "ctm_rl.agents.experiment",
        "evaluate": "ctm_rl.agents.evaluation",
        "resume": "ctm_rl.agents.run",
        "train": "ctm_rl.agents.run",
    },
)
