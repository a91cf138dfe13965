"""What all algorithms share: the RLModule, environments and their loop, distributions, episodes, faults, private RLlib.

Imports ``agents.experiments`` and the core; every algorithm imports it.
"""
