"""Compares how well contenders learn at equal environment steps: ``ctm-rl bench learning``.

Imports ``agents.bench``, never the other way round; of ``agents`` also the processes of several seeds, run directories
and what makes environments. What the parent of a study loads needs neither torch nor Ray while the runs train.
"""
