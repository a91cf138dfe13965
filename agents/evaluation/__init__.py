"""Evaluates trained models: returns of episodes, accuracy on held-out samples, accuracy against ticks.

Imports ``run_directory``, ``supervised`` and ``rllib``; does not import ``runs``.
"""
