"""The law of each kind of release: a file for each family of kinds."""

from dpkit.accountants.pairs.laws import (
    allocation,
    finite,
    gaussian,
    laplace,
    nested,
    stated,
)
from dpkit.accountants.pairs.laws.base import Law, curve_of, law_of
from dpkit.accountants.pairs.laws.nested import composed_curve, composed_guarantee

__all__ = [
    "Law",
    "allocation",
    "composed_curve",
    "composed_guarantee",
    "curve_of",
    "finite",
    "gaussian",
    "laplace",
    "law_of",
    "nested",
    "stated",
]
