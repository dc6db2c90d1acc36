"""Benchmarks, which write what they measured into ``docs/``.

``python -m bench`` (``make bench``) compares, ``python -m bench.soak`` (``make
soak``) proves at length.
"""
