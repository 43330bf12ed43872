"""Every similarity structure passes the common checks, under every relation."""

import pytest

from tests.conformance import (
    ROW_CHECKS,
    check_audit,
    check_bound,
    check_isolation,
    check_keys,
    check_law,
    check_leaves,
    check_refusals,
    one_per_mechanism,
)
from tests.structures import STRUCTURE_ROWS

ONE_EACH = one_per_mechanism(STRUCTURE_ROWS)
FIRST = [row for row in STRUCTURE_ROWS if row.relation == "add_remove"]


def row_checks():
    """Exact curves are quick; of audits, and of laws, one a structure is a guard."""
    for row in STRUCTURE_ROWS:
        for check in ROW_CHECKS:
            again = row.relation == "zero_out"
            slow = check in (check_audit, check_law) or again
            slow |= check is check_refusals and row not in ONE_EACH
            often = check is check_audit and not again
            marks = [pytest.mark.slow] if slow else []
            marks += [pytest.mark.guard] if often else []
            yield pytest.param(row, check, marks=marks, id=f"{row}-{check.__name__}")


@pytest.mark.parametrize(("row", "check"), list(row_checks()))
def test_row(row, check):
    check(row)


def structure_checks():
    """Every structure with every check, and noise of every kind with one."""
    for row in FIRST:
        for check in (check_bound, check_keys, check_isolation, check_leaves):
            slow = row not in ONE_EACH and check is not check_leaves
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(row, check, marks=marks, id=f"{row}-{check.__name__}")


@pytest.mark.parametrize(("row", "check"), list(structure_checks()))
def test_structure(row, check):
    check(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", STRUCTURE_ROWS, ids=repr)
def test_row_with_many_draws(row):
    check_audit(row, draws=1_000_000)
    check_law(row, draws=1_000_000)
