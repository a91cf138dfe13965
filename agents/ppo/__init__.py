"""Our recurrent PPO as an RLlib algorithm: rollouts are columns, minibatches are whole environments.

Imports ``agents.rllib``, ``agents.experiments`` and the core.
"""
