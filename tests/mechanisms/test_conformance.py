"""Every mechanism of the list passes every common check."""

import pytest

from tests.conformance import (
    MECHANISM_CHECKS,
    ROW_CHECKS,
    ROWS,
    check_audit,
    check_bound,
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
        slow = again or row.name.startswith(
            ("truncated", "clip", "adaptive-replace", "adaptive_")
        )
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


def mechanisms():
    """One row of every mechanism; of the clips, all, but most checks are slow."""
    yield from one_per_mechanism(ROWS)
    yield from (row for row in ROWS if row.name.startswith("clip"))


def mechanism_checks():
    """Every mechanism with every check; what a GaussianSum has shown is slow."""
    for row in mechanisms():
        clip = row.name.startswith("clip")
        for check in MECHANISM_CHECKS:
            if clip and check is check_sharding:
                continue  # which is for sums that are exact in any order
            slow = check is check_sharding
            slow |= clip and not (check is check_bound and "per_group" in row.name)
            slow |= row.name.startswith("adaptive") and check is not check_bound
            marks = pytest.mark.slow if slow else ()
            yield pytest.param(row, check, marks=marks, id=f"{row}-{check.__name__}")


@pytest.mark.parametrize(("row", "check"), list(mechanism_checks()))
def test_mechanism(row, check):
    check(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("check", [check_audit, check_law], ids=lambda c: c.__name__)
def test_row_with_many_draws(row, check):
    check(row, draws=1_000_000)
