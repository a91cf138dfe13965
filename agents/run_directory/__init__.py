"""What a run leaves on disk: directory, metrics, progress, and copies in a remote storage.

Imports ``agents.experiments`` and checkpoints; imports neither ``runs`` nor ``evaluation``, which both use it.
"""
