"""Whole networks: models that answer, actor-critics, feed-forward baselines, and the losses of answers.

Imports ``machine``, ``engine``, ``encoders``, ``metrics`` and ``spaces``; imported by ``checkpoints``, ``inference``
and ``agents``.
"""
