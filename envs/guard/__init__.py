"""Environments that fail: errors, timeouts and values outside their space are detected, reported or survived.

Imports ``spaces``.
"""
