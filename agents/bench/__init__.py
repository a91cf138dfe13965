"""Measures the cost of training, beside stock RLlib, an LSTM of equal size and sb3-contrib: ``ctm-rl bench``.

Imports the other folders of ``agents``; none of them imports it.
"""
