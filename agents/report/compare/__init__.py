"""Compares runs: their curves, results and speed, each run or group of seeds as one line of every chart.

Imports ``report``, never the other way round; of ``agents`` also ``seeds``, whose directories it takes.
"""
