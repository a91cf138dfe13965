"""What all our algorithms share with RLlib: the module, environments, distributions, episodes, faults.

Imports ``agents.experiments`` and the core; every algorithm imports it.
"""
