"""Training runs: building the algorithm, iterating, writing checkpoints, resuming.

Imports the algorithms, ``evaluation``, ``run_directory``, ``callbacks``, ``loggers`` and ``cluster``; imported by
``tuning`` and ``bench``.
"""
