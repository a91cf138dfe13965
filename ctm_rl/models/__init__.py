"""Whole networks: a model that answers, an actor-critic, a feed-forward baseline, and their losses.

Imports ``machine``, ``engine``, ``encoders`` and ``spaces``; imported by ``checkpoints``, ``inference`` and ``agents``.
"""
