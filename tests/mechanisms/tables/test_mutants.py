"""Broken mechanisms of tables: each fails the common check that is for it.

The unbroken ones pass the same checks in test_conformance.py.
"""

import dataclasses
import math

import jax
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent

from dpkit.accountants.events import BoundedRangeDpEvent
from dpkit.mechanisms.protocol import static
from dpkit.mechanisms.tables import Deviations, Marginals, PureMarginals, Selection
from tests.conformance import (
    check_audit,
    check_bound,
    check_exact,
    check_isolation,
    check_keys,
    check_law,
    check_leaves,
)
from tests.tables import GIVEN_ROWS, PLAIN, PURE, marginal_rows

BY_NAME = {row.name: row for row in GIVEN_ROWS}


def mutant(cls):
    """A subclass with the same fields, registered."""
    return static(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


def same(cls, own, **fields):
    """Another class with the same fields."""
    return cls(
        **{f.name: getattr(own, f.name) for f in dataclasses.fields(own)} | fields
    )


def marginals(cls, relation="add_remove", reach=1, own=PLAIN):
    return marginal_rows("mutant", same(cls, own, reach=reach), [relation])[0]


@mutant
class TooQuiet(Marginals):
    """Noise 10 % too small."""

    def steps_of_noise(self, generator, spread, shape):
        return super().steps_of_noise(generator, 0.9 * spread, shape)


@mutant
class TwoCellsAreOne(Marginals):
    """A replaced row leaves a cell and enters another: forgotten."""

    def event(self, relation):
        event = super().event(relation)
        if relation != "replace_one":
            return event
        return GaussianDpEvent(event.noise_multiplier * math.sqrt(2))


@mutant
class LargestFamily(Marginals):
    """What the worst family costs, as if they were disjoint."""

    def event(self, relation):
        event = super().event(relation)
        return GaussianDpEvent(event.noise_multiplier * 7 / 6)


@mutant
class RootOfReach(Marginals):
    """As if rows of one unit were never alike."""

    def event(self, relation):
        event = super().event(relation)
        return GaussianDpEvent(event.noise_multiplier * math.sqrt(self.reach))


@mutant
class OccupiedAlone(Marginals):
    """Noise where there are rows, none where there are not."""

    def privatize(self, key, total):
        return np.where(total == 0, 0.0, super().privatize(key, total))


@mutant
class OneNoise(Marginals):
    """Noise of one key for all releases."""

    def privatize(self, key, total):
        return super().privatize(jax.random.key(0), total)


@mutant
class Wrapped(Marginals):
    """A code outside counts from the end, as arrays have it."""

    def total(self, codes):
        return super().total(np.asarray(codes) % np.array(self.sizes))


@mutant
class Double(Marginals):
    """A row counts twice."""

    def contribute(self, key, record):
        return 2 * super().contribute(key, record)


@mutant
class HalfScale(PureMarginals):
    """Half the scale that the event is about."""

    def steps_of_noise(self, generator, spread, shape):
        return super().steps_of_noise(generator, spread / 2, shape)


@mutant
class NoHalf(Selection):
    """Noise as if scores all moved the same way: twice the range."""

    def event(self, relation):
        return BoundedRangeDpEvent(self.epsilon / 2)


@mutant
class OneDeviation(Deviations):
    """All scores at the price of one."""

    def event(self, relation):
        return GaussianDpEvent(self.stddev / self.reach)


@pytest.mark.parametrize(
    ("row", "check", "words"),
    [
        (marginals(TooQuiet), check_law, "worst, side"),
        (marginals(TooQuiet), check_leaves, "variance ratio 0"),
        (marginals(TwoCellsAreOne, "replace_one"), check_exact, "worst at"),
        (marginals(LargestFamily), check_exact, "worst at"),
        (marginals(RootOfReach, reach=3), check_exact, "worst at"),
        (marginals(OccupiedAlone), check_keys, "without noise"),
        (marginals(OneNoise), check_keys, "without noise"),
        (marginals(Wrapped), check_isolation, "other bits"),
        (marginals(Double), check_bound, " > "),
        (marginals(HalfScale, own=PURE), check_leaves, "variance ratio 0"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_mutant(row, check, words):
    fewer = {"draws": 50_000} if check is check_law else {}
    with pytest.raises(AssertionError, match=words):
        check(row, **fewer)


def test_scores_at_the_price_of_one():
    row = BY_NAME["deviations-add_remove"]
    row = dataclasses.replace(row, mechanism=same(OneDeviation, row.mechanism))
    with pytest.raises(AssertionError, match="worst at"):
        check_exact(row)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        marginals(HalfScale, own=PURE),
        dataclasses.replace(
            BY_NAME["selection_1-add_remove"],
            mechanism=NoHalf(epsilon=1.0, sensitivity=2.0),
        ),
    ],
    ids=["pure", "selection"],
)
def test_mutants_that_are_seen_from_outside(row):
    with pytest.raises(AssertionError, match="Finding"):
        check_audit(row)
