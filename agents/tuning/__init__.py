"""Hyperparameter search with Ray Tune: ``ctm-rl tune``.

Imports ``runs``, ``callbacks``, ``run_directory`` and ``cluster``.
"""
