"""The paper's supervised experiments as single-step environments: parity, sorting, images, questions, mazes.

Imports ``envs.data``; registered by ``envs.registry``.
"""
