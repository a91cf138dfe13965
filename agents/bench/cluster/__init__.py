"""Predicts the cost of clusters of many env runners and learners: measured parts added up, and a simulation.

Imports ``agents.bench``, never the other way round.
"""
