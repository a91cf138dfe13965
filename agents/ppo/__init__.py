"""Our recurrent PPO as an RLlib algorithm: rollouts as columns, and one pass of the learner over whole sequences.

Imports ``agents.rllib``, ``agents.experiments`` and the core.
"""
