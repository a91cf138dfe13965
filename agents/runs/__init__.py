"""Training runs: building the algorithm, iterating, writing checkpoints, resuming.

Imports the algorithms, ``evaluation``, ``run_directory`` and ``cluster``; imported by ``tuning`` and ``bench``.
"""
