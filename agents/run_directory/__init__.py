"""A run's directory: configuration, metrics, progress, and copies of its checkpoints in a storage.

Imports ``agents.experiments``, checkpoints and ``zoo``; imports neither ``runs`` nor ``evaluation``, which both use it.
"""
