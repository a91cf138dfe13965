"""Where a run computes: a local Ray or a cluster, its capacity, its signals, and this package on its nodes.

Imports ``agents.experiments``; does not import ``runs``, which uses it.
"""
