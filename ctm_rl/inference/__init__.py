"""Trained models in use, without Ray: a policy that acts step by step, and a model that answers.

Imports ``models`` and all below it, and ``checkpoints``; imported by ``agents``.
"""
