"""Videos: agents on film, with their thinking beside the frame; files, windows and terminals that show them.

Imports ``experiments``, ``rllib``, ``run_directory``, ``evaluation``, ``loggers`` and the core; imported by ``runs``
and ``cli``.
"""
