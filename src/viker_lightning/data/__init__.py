"""Records, benchmarks, irrelevant images, packing; no model in here.

``mllmu.MLLMU`` serves a benchmark, ``mini`` writes the embedded one, ``records`` is the vocabulary of both.
"""
