"""Descriptions of observation and action spaces that need no Gymnasium: sizes, packing, distributions.

Imports no other folder of the package; any may import it.
"""
