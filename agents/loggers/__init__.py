"""Where a run's metrics go beside ``metrics.jsonl``: TensorBoard, CSV, W&B, MLflow, and loggers of users by name.

Imports ``agents.experiments`` and ``run_directory``; imported by ``runs`` and ``tuning``.
"""
