"""Ours beside the peers: the same engine, the same durability, in turn.

`model` says what a contender is, ``sqlite``, ``redis`` and so on which there
are on each engine, `load` what they do, `measure` when, `page` what is
written about it.
"""
