"""The law of each kind of release: a file for each family of kinds."""

from dpkit.accountants.pairs.laws import allocation, finite, nested, noise, stated
from dpkit.accountants.pairs.laws.base import Law, curve_of, law_of
from dpkit.accountants.pairs.laws.nested import composed_curve, composed_guarantee

FAMILIES = allocation, finite, nested, noise, stated
__all__ = ["Law", "composed_curve", "composed_guarantee", "curve_of", "law_of"]
