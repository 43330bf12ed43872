"""The search for a table that has given statistics. Public values only.

Rows are changed one cell at a time, each change being the best one for its row; see
`search`. What it reads and returns was released before, or is public: nothing here is
a release.
"""

from dpkit.synthetic.engine.evolving import evolve
from dpkit.synthetic.engine.families import HalfSpace, Marginal, Prefix
from dpkit.synthetic.engine.searching import memory, search
from dpkit.synthetic.engine.targets import Found, Target

__all__ = [
    "Found",
    "HalfSpace",
    "Marginal",
    "Prefix",
    "Target",
    "evolve",
    "memory",
    "search",
]
