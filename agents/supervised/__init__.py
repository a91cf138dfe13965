"""Supervised learning as an RLlib algorithm: environment runners make labelled samples, learners minimise a loss.

Imports ``agents.rllib``, ``agents.experiments`` and the core.
"""
