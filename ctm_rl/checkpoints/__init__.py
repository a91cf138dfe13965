"""Weights on disk: our own checkpoints (safetensors and JSON), and the published ones read and written.

Loading executes nothing from a file. Imports ``models`` and all below it.
"""
