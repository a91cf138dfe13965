"""Gymnasium environments. Importing this package registers them.

``tasks`` (the paper's experiments as single-step environments), ``wrappers``, ``guard`` (environments that fail) and
``data`` (images). Imports neither PyTorch nor Ray. The exported names are listed in ``__init__.pyi``.
"""

from ctm_rl._lazy import lazy_exports
from ctm_rl.envs.registry import register_all

__getattr__, __dir__ = lazy_exports(__name__, __file__)

register_all()
