"""The same machine, fast: equal to ``machine`` in value and gradient, which tests prove.

``episode*`` runs many environment steps of ticks at once, for learning from rollouts; ``answering*`` runs all ticks
about one input. Both use ``unrolled_*`` and have hand-written backward passes. Imports ``machine`` alone.
"""
