"""How much noise a budget allows: one Gaussian, or so much zCDP to be split."""

from __future__ import annotations

import math

from dp_accounting import GaussianDpEvent

from dpkit.accountants.answers.errors import UnsupportedRelation
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.readings.calibration import calibrate


def noise_multiplier(epsilon: float, delta: float, relation: Relation) -> float:
    """Of one Gaussian that costs everything, exactly.

    Example:
      >>> round(1 / noise_multiplier(1.0, 1e-6, Relation.ADD_REMOVE), 6)
      0.236704
    """
    return calibrate(
        GaussianDpEvent, epsilon=epsilon, delta=delta, relation=relation
    ).value


def zcdp(epsilon: float, delta: float) -> float:
    """The rho of all releases together, by the tight conversion.

    Example:
      >>> round(zcdp(1.0, 1e-6), 7)
      0.024356

    Reference: Bun and Steinke, 2016, arXiv:1605.02065; the conversion as in Canonne,
    Kamath, Steinke, 2020, arXiv:2004.00010.
    """
    found = calibrate(
        GaussianDpEvent,
        epsilon=epsilon,
        delta=delta,
        relation=Relation.ADD_REMOVE,
        accountant="zcdp",
    )
    return 0.5 / found.value**2


def apart(relation: Relation) -> float:
    """How far a unit moves the stacked counts of families, in L2, to one of add_remove.

    A replaced row moves one count down and one up in each family: by sqrt(2); and L1
    distances of a family's counts from fixed ones by the square of that, 2.

    Example:
      >>> round(apart(Relation.REPLACE_ONE) ** 2, 12)
      2.0
    """
    return math.sqrt(2) if relation is Relation.REPLACE_ONE else 1.0


def sums_and_scores(relation: Relation, recipe: str) -> None:
    """Refuses a relation for which sums and scores have no proof.

    Raises:
      UnsupportedRelation: another than add_remove or replace_one.
    """
    if relation not in (Relation.ADD_REMOVE, Relation.REPLACE_ONE):
        known = ["add_remove", "replace_one"]
        raise UnsupportedRelation(recipe, relation, "its scores", known)


def only_add_remove(relation: Relation, recipe: str) -> None:
    """Refuses a relation for which the scores of a recipe have no proof.

    Raises:
      UnsupportedRelation: another than add_remove.
    """
    if relation is not Relation.ADD_REMOVE:
        raise UnsupportedRelation(recipe, relation, "its scores", ["add_remove"])
