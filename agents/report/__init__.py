"""Reports: what a run has learned and how it thinks, as one page of figures.

Imports ``experiments``, ``rllib``, ``run_directory``, ``evaluation``, ``supervised``, the core and ``envs``.
Imported by ``report.compare``, ``report.watch`` and ``cli``.
"""
