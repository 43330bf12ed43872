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
    check_leaves,
    check_sharding,
    check_transformations,
    one_per_mechanism,
)


def is_slow(row):
    """The long rows, and what zero_out repeats of add_remove."""
    again = row.relation == "zero_out" and any(
        (other.mechanism, other.sampler, other.relation)
        == (row.mechanism, row.sampler, "add_remove")
        for other in ROWS
    )
    long = ("truncated", "clip", "adaptive-replace", "adaptive_")
    return again or row.name.startswith(long)


def repeats_a_clip(row):
    """A clip's row beside its first, that of add_remove."""
    return row.name.startswith("clip") and row.relation != "add_remove"


def row_checks():
    """Every row with every check; audits and laws are slow, some of them guards."""
    for row in ROWS:
        for check in ROW_CHECKS:
            slow = is_slow(row) or check is check_exact
            slow |= check is check_audit
            slow |= check is check_law
            often = check is check_audit and not repeats_a_clip(row)
            often |= check is check_law and row.name == "gaussian_sum-replace_one"
            marks = [pytest.mark.slow] if slow else []
            marks += [pytest.mark.guard] if often else []
            yield pytest.param(row, check, marks=marks, id=f"{row}-{check.__name__}")


@pytest.mark.parametrize(("row", "check"), list(row_checks()))
def test_row(row, check):
    check(row)


def mechanisms():
    """One row of every mechanism; of the clips, all, but most checks are slow."""
    yield from one_per_mechanism(ROWS)
    clips = (row for row in ROWS if row.name.startswith("clip"))
    yield from (row for row in clips if not repeats_a_clip(row))


def mechanism_checks():
    """Every mechanism with every check; what a GaussianSum has shown is slow."""
    for row in mechanisms():
        clip = row.name.startswith("clip")
        for check in MECHANISM_CHECKS:
            if clip and check is check_sharding:
                continue  # which is for sums that are exact in any order
            slow = check in (check_sharding, check_transformations)
            slow |= clip and not (check is check_bound and "per_group" in row.name)
            slow |= row.name.startswith("adaptive") and check is not check_bound
            often = check is check_leaves and not slow
            marks = [pytest.mark.slow] if slow or often else []
            marks += [pytest.mark.guard] if often else []
            yield pytest.param(row, check, marks=marks, id=f"{row}-{check.__name__}")


@pytest.mark.parametrize(("row", "check"), list(mechanism_checks()))
def test_mechanism(row, check):
    check(row)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [row for row in ROWS if not repeats_a_clip(row)], ids=lambda row: row.name
)
@pytest.mark.parametrize("check", [check_audit, check_law], ids=lambda c: c.__name__)
def test_row_with_many_draws(row, check):
    check(row, draws=1_000_000)
