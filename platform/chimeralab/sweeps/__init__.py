"""Sweeps: many runs that differ in a few fields. Knows runs and stacks; no Ray, no SQL, no web.

A sweep's members are ordinary runs. This room says which runs they are, which of them are worth going on with
(`halving`), and what to try next (`search`); the store keeps them and the dispatcher starts them.
"""

from chimeralab.sweeps.spec import Halving, Member, Search, SweepSpec, read_sweep

__all__ = ["Halving", "Member", "Search", "SweepSpec", "read_sweep"]
