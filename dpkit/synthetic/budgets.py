"""How much noise a budget allows: one Gaussian, or so much zCDP to be split."""

from __future__ import annotations

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


def only_add_remove(relation: Relation, recipe: str) -> None:
    """Refuses a relation for which the scores of a recipe have no proof.

    Raises:
      UnsupportedRelation: another than add_remove.
    """
    if relation is not Relation.ADD_REMOVE:
        raise UnsupportedRelation(recipe, relation, "its scores", ["add_remove"])
