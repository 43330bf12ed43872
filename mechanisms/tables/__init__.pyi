"""The public names, each written once, and where `__init__` finds them."""

from .marginals import Marginals as Marginals, PureMarginals as PureMarginals
from .selection import Selection as Selection

__all__: list[str]
