"""What clusters of many env runners and learners cost: measured parts added up, and a simulation.

Imports ``agents.bench``, never the other way round.
"""
