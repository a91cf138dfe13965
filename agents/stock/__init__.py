"""RLlib's own PPO, APPO and IMPALA with a Continuous Thought Machine as their module.

Imports ``agents.rllib``, ``agents.experiments`` and the core.
"""
