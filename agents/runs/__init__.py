"""Training runs: building the algorithm, iterating, writing checkpoints, resuming.

Imports the algorithms, ``run_directory``, ``callbacks`` and ``cluster``; imported by ``tuning`` and ``bench``.
"""
