"""Callbacks of training runs: the base class, how they are found and called, and the early stops that come along.

Imports ``experiments``, ``rllib`` and ``run_directory``; imported by ``runs`` and ``tuning``.
"""
