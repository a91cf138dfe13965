"""Wrappers of environments, most by name for the command line: hidden velocities, frame skip, MiniGrid's views, masks.

Imports ``guard`` and ``spaces``.
"""
