"""The command line, ``ctm-rl``: the only part of ``ctm_rl/`` that imports ``agents``, ``envs`` and ``configs``."""
