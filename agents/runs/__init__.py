"""Training from start to stop: building the algorithm, iterating, checkpoints, resuming.

Imports the algorithms, ``run_directory`` and ``cluster``; imported by ``tuning`` and ``bench``.
"""
