"""The public names, each written once, and where `__init__` finds them."""

from .deviations import Deviations as Deviations, deviations as deviations
from .discovery import (
    BoundsHistogram as BoundsHistogram,
    StableHistogram as StableHistogram,
)
from .embedding import MeanEmbedding as MeanEmbedding
from .marginals import Marginals as Marginals, PureMarginals as PureMarginals
from .selection import Selection as Selection

__all__: list[str]
