"""Training and evaluation of the machine on Ray.

A folder for each algorithm (``ppo``, ``stock``, ``supervised``, ``bandit``) and what they share (``rllib``); runs from
start to stop (``experiments``, ``runs``, ``run_directory``, ``cluster``, ``evaluation``); ``tuning`` and ``bench``.
What can be imported from here stands in ``__init__.pyi``.
"""

from ctm_rl._lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    __file__,
    renamed={
        "Experiment": "ActingExperiment",
        "SupervisedExperiment": "AnsweringExperiment",
        "ThinkerModule": "AnsweringModule",
    },
)
