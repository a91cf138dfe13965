"""Hyperparameter search with Ray Tune: ``ctm-rl tune``.

Imports ``runs``, ``run_directory`` and ``cluster``.
"""
