"""Wrappers of environments, by name for the command line: hidden velocities, frame skip, MiniGrid's views, envpool.

Imports no other folder.
"""
