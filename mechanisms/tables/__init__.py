"""Noisy tables of counts, and private choices among them."""

from dpkit.mechanisms.tables.embedding import MeanEmbedding
from dpkit.mechanisms.tables.marginals import Marginals, PureMarginals
from dpkit.mechanisms.tables.selection import Selection
from dpkit.mechanisms.tables.stable import StableHistogram

__all__ = [
    "Marginals",
    "MeanEmbedding",
    "PureMarginals",
    "Selection",
    "StableHistogram",
]
