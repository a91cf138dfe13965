"""The same experiment with several seeds: one run and one process for each, and what they have in common.

Imports the run directory, evaluation, and of the cluster what counts cores and catches signals; loads neither torch nor
Ray while the runs train. The command line alone imports it.
"""
