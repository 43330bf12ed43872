"""Neighbouring relations: which change of the data a guarantee is about.

A `noise_multiplier` is noise divided by the contribution radius of one record, the same
number in every relation; the accountants know that replacing a record moves a sum by
twice the radius, while adding, removing or zeroing one moves it by the radius.
"""

from enum import StrEnum

from dpkit.accountants.answers import checks


class Relation(StrEnum):
    """Neighbouring relation of a guarantee.

    Attributes:
      ADD_REMOVE: one record is added or removed; the number of records is private.
      REPLACE_ONE: one record is replaced by any other; the number is public.
      ZERO_OUT: one record is replaced by a null record; the number is public.

    Example:
      >>> Relation.ADD_REMOVE == "add_remove", str(Relation.ZERO_OUT)
      (True, 'zero_out')
    """

    ADD_REMOVE = "add_remove"
    REPLACE_ONE = "replace_one"
    ZERO_OUT = "zero_out"


def as_relation(relation: object) -> Relation:
    """The relation that an enum member or its exact string names.

    Args:
      relation: a `Relation`, or "add_remove", "replace_one" or "zero_out".

    Returns:
      The enum member.

    Raises:
      ValueError: another string.
      TypeError: no string at all.

    Example:
      >>> as_relation("replace_one")
      <Relation.REPLACE_ONE: 'replace_one'>
    """
    return Relation(checks.one_of([str(r) for r in Relation], relation=relation))


def shift(relation: Relation) -> int:
    """How far one changed record moves a sum, in contribution radii (1 or 2)."""
    return 2 if relation == Relation.REPLACE_ONE else 1
