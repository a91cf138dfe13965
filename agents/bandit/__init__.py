"""Learning to answer from the reward alone, as contextual bandits.

Imports ``agents.ppo`` and ``agents.supervised``, whose parts it combines.
"""
