"""Trained runs that are shipped with this package, one folder each: ``zoo:NAME`` wherever a run is named.

An entry has the form of a run's directory, with one checkpoint, fewer lines of metrics, and ``results.json``; it is
only read. ``scripts/make_zoo.py`` writes them. Imports no other folder.
"""
