"""A soak: a store under clients and faults of every kind, for as long as you like.

Clients are processes that do all that a counter can do, to several counters
at once. Meanwhile their requests are cut off, delayed, made late and lost, the
network is parted, they themselves are killed, stopped, and given wrong clocks,
and the server is killed and started again. Everything that they ask for and
are told is recorded (`truecount.testing.history`). At the end what is unknown
is settled, every counter is read once more, and the checker
(`truecount.testing.checker`) says whether all of that can have been.

    python -m truecount.testing.soak --store redis --minutes 1

`run.soak` is one, and `sites.SITES` has the stores. `controls` has clients that
must be convicted: a harness that convicts nobody proves nothing.
"""
