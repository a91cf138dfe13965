"""A run's Ray: a local one or a cluster, its capacity, placement, signals, and this package on its nodes.

Imports ``agents.experiments``; does not import ``runs``, which uses it.
"""
