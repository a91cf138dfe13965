"""Weights on disk: our own checkpoints (safetensors and JSON), and published ones, read and written.

Loading a file never executes code from it. Imports ``models`` and all below it, and ``zoo``.
"""
