"""How good a trained model is: episodes played, held-out samples answered, accuracy against ticks.

Imports ``run_directory``, ``supervised`` and ``rllib``; does not import ``runs``.
"""
