"""The Continuous Thought Machine as the paper writes it: one idea per file, slow and readable.

A tick takes a typed state and returns a new one: ``state``, ``pairing``, ``synchronisation``, ``synapse``,
``neuron_models``, ``attention``, ``core`` (one tick, one loop), ``certainty``, ``halting``, ``heads``.
Imports PyTorch, NumPy and ``ctm_rl.config``; everything else of the package may import it.
"""
