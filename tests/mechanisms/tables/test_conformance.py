"""Every mechanism of tables passes the common checks, under its relations."""

import dataclasses

import pytest

from dpkit.mechanisms.tables import StableHistogram
from tests.conformance import (
    ROW_CHECKS,
    check_audit,
    check_bound,
    check_event,
    check_isolation,
    check_keys,
    check_law,
    check_leaves,
    check_refusals,
)
from tests.tables import EMBEDDING_ROWS, GIVEN_ROWS, MARGINAL_ROWS

ROWS = [*MARGINAL_ROWS, *GIVEN_ROWS, *EMBEDDING_ROWS]


def marks(row, check):
    """Audits and laws are of many draws; one audit is a guard."""
    if check not in (check_audit, check_law):
        return []
    often = row is MARGINAL_ROWS[0] and check is check_audit
    return [pytest.mark.slow, *([pytest.mark.guard] if often else [])]


@pytest.mark.parametrize(
    ("row", "check"),
    [
        pytest.param(
            row,
            check,
            marks=marks(row, check),
            id=f"{row}-{check.__name__}",
        )
        for row in ROWS
        for check in ROW_CHECKS
        if check is not check_refusals or row.relation == "add_remove"
    ],
)
def test_row(row, check):
    if check is check_event and isinstance(row.mechanism, StableHistogram):
        # A delta that an audit can see is none that a ledger grants.
        rare = dataclasses.replace(row.mechanism, delta=1e-6)
        row = dataclasses.replace(row, mechanism=rare)
    check(row)


@pytest.mark.parametrize(
    "check", [check_bound, check_keys, check_isolation, check_leaves]
)
@pytest.mark.parametrize(
    "row",
    [r for r in MARGINAL_ROWS + EMBEDDING_ROWS if r.relation == "add_remove"],
    ids=repr,
)
def test_sum(row, check):
    check(row)
