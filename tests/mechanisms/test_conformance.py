"""Every mechanism of the list passes every common check."""

import pytest

from tests.conformance import (
    MECHANISM_CHECKS,
    ROW_CHECKS,
    ROWS,
    check_audit,
    check_exact,
    check_law,
    check_sharding,
    one_per_mechanism,
)


def rows():
    """Every row; the long ones, and what zero_out repeats of add_remove, are slow."""
    for row in ROWS:
        again = row.relation == "zero_out" and any(
            (other.mechanism, other.sampler, other.relation)
            == (row.mechanism, row.sampler, "add_remove")
            for other in ROWS
        )
        slow = again or row.name.startswith("truncated")
        yield pytest.param(row, marks=pytest.mark.slow if slow else (), id=row.name)


def slow_if(check, long):
    """A check, for the slow run where it is the long one."""
    return pytest.param(check, marks=pytest.mark.slow if check is long else ())


@pytest.mark.parametrize("row", list(rows()))
@pytest.mark.parametrize(
    "check", [slow_if(c, check_exact) for c in ROW_CHECKS], ids=lambda c: c.__name__
)
def test_row(row, check):
    check(row)


@pytest.mark.parametrize("row", one_per_mechanism(ROWS), ids=lambda row: row.name)
@pytest.mark.parametrize(
    "check",
    [slow_if(c, check_sharding) for c in MECHANISM_CHECKS],
    ids=lambda c: c.__name__,
)
def test_mechanism(row, check):
    check(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("check", [check_audit, check_law], ids=lambda c: c.__name__)
def test_row_with_many_draws(row, check):
    check(row, draws=1_000_000)
