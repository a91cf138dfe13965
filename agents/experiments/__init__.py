"""Experiments: typed, checked settings of a run that acts or answers, and their JSON.

Imports the core alone, loads neither PyTorch nor Ray; everything in ``agents`` and ``configs`` may import it.
"""
