"""What all algorithms share: the RLModule, environments and their loop, distributions, episodes, faults, private RLlib.

Imports ``agents.experiments``, the core and ``envs.wrappers``; every algorithm imports it.
"""
