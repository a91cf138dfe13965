"""Continuous Thought Machines in plain PyTorch; training and evaluation on Ray are in ``ctm_rl.agents``.

What can be imported from here stands in ``__init__.pyi``.
"""

from ctm_rl._lazy import lazy_exports

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_exports(
    __name__, __file__, renamed={"ThinkerConfig": "AnswerConfig", "load_thinker": "load_model"}
)
