"""Broken structures: each fails the common check, or the property, that is for it.

The unbroken ones pass the same checks in test_conformance.py. Keys are fixed; with
others, the audits here miss a mutant with a probability below 1e-3, and flag an honest
structure with a probability of at most 1e-5.
"""

import dataclasses

import jax
import numpy as np
import pytest

from dpkit.mechanisms.density import (
    CdfDistances,
    ClassSums,
    Gaussian,
    HatDistances,
    KernelSketch,
    LandmarkSketch,
    Radial,
    Reach,
    SplineGrid,
    SquaredDistances,
)
from dpkit.mechanisms.protocol import static
from tests.conformance import (
    check_audit,
    check_bound,
    check_exact,
    check_isolation,
    check_keys,
    check_law,
    check_leaves,
)
from tests.structures import STRUCTURE_ROWS, HostRow, host_row

BY_NAME = {row.name: row for row in STRUCTURE_ROWS}


def mutant(cls):
    """A subclass with the same fields, registered."""
    return static(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


def mutated(name: str, cls: type | None = None, **fields) -> HostRow:
    """A row with another class or other fields, and statistics of its own."""
    row = BY_NAME[name]
    own = row.mechanism
    given = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
    changed = (cls or type(own))(**(given | fields))
    pair = row.pairs[0]
    made = host_row(
        name, changed, row.relation, pair.small, pair.large, tight=row.tight
    )
    # What is claimed of the noise is what the row's own mechanism has.
    return dataclasses.replace(made, radius=row.radius)


@dataclasses.dataclass(frozen=True)
class TooQuiet(Gaussian):
    """Noise 10 % too small."""

    def draw(self, generator, shape, reach, step):
        return 0.9 * super().draw(generator, shape, reach, step)


@dataclasses.dataclass(frozen=True)
class ShortRadius(Radial):
    """A length of one degree of freedom less: a density that is too high at 0."""

    def draw(self, generator, shape, reach, step):
        direction = generator.normal(size=shape)
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        length = generator.gamma(shape[-1] - 1, reach.l2 / self.epsilon, shape[:-1])
        return direction * length[..., None]


@mutant
class OppositeForgotten(KernelSketch):
    """A replaced point moves waves as if kernels were never negative."""

    def point_reach(self):
        reach = super().point_reach()
        return reach._replace(l2_replaced=np.sqrt(2) * reach.l2)


@mutant
class OccupiedAlone(SplineGrid):
    """Noise where there are points, none where there are not."""

    def privatize(self, key, total):
        return np.where(total == 0, 0.0, super().privatize(key, total))


@mutant
class NanAtZero(SplineGrid):
    """What is no number counts as a zero."""

    def batch_total(self, points, weights, labels):
        return super().batch_total(np.nan_to_num(points), weights, labels)


@mutant
class OutsideDomain(HatDistances):
    """Points outside the domain, as they are."""

    def placed(self, points):
        low = np.array([[a for a, _ in self.domain]], points.dtype)
        return (points - low) / self.lengths[None].astype(points.dtype)


@mutant
class OutsideBall(SquaredDistances):
    """Points outside the ball, as they are."""

    def placed(self, points):
        return points / self.radius


@mutant
class HeavierThanTold(SplineGrid):
    """A wave's grid with splines of a smaller norm than theirs."""

    def point_reach(self):
        return Reach(*(0.9 * x for x in super().point_reach()))


@mutant
class DisjointWhenReplaced(ClassSums):
    """Classes are disjoint: so a replaced record would cost what one costs."""

    def point_reach(self):
        reach = super().point_reach()
        return reach._replace(l2_replaced=reach.l2)


@mutant
class WhiteAtLandmarks(LandmarkSketch):
    """The same noise at every landmark, whatever their kernel."""

    def shaped(self, noise):
        return noise


@mutant
class HalfTheCells(CdfDistances):
    """The count's weight is forgotten in the reach."""

    def point_reach(self):
        reach = super().point_reach()
        return reach._replace(l2=reach.l2 / np.sqrt(2))


@mutant
class ByChance(SplineGrid):
    """Noise of one key for all releases."""

    def privatize(self, key, total):
        return super().privatize(jax.random.key(0), total)


SPLINE = "spline_gaussian-add_remove"


@pytest.mark.parametrize("row", ["sketch", "landmarks", "cdf", "moments", "classes"])
def test_noise_too_small(row):
    """A likelihood ratio with a law: its curve is seen in 200,000 draws."""
    row = mutated(f"{row}_gaussian-add_remove", noise=TooQuiet(1.25))
    with pytest.raises(AssertionError, match="worst, side 0"):
        check_law(row, draws=50_000)


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
def test_noise_too_small_is_seen_from_outside_too(relation):
    row = mutated(f"moments_gaussian-{relation}", noise=TooQuiet(1.25))
    with pytest.raises(AssertionError, match="Finding"):
        check_audit(row)


@pytest.mark.parametrize("row", ["sketch", "landmarks", "moments", "classes"])
def test_radial_noise_of_a_wrong_length(row):
    with pytest.raises(AssertionError, match="variance ratio 0"):
        check_leaves(mutated(f"{row}_radial-add_remove", noise=ShortRadius(1.0)))


def test_waves_that_can_not_be_opposite():
    row = mutated("sketch_gaussian-replace_one", OppositeForgotten)
    with pytest.raises(AssertionError, match="worst at"):
        check_exact(row)


@pytest.mark.slow
def test_waves_that_can_not_be_opposite_are_seen_from_outside_too():
    row = mutated("sketch_gaussian-replace_one", OppositeForgotten)
    with pytest.raises(AssertionError, match="Finding"):
        check_audit(row)


def test_noise_on_occupied_nodes_alone():
    with pytest.raises(AssertionError, match="without noise"):
        check_keys(mutated(SPLINE, OccupiedAlone))


def test_noise_of_one_key():
    with pytest.raises(AssertionError, match="without noise"):
        check_keys(mutated(SPLINE, ByChance))


def test_nan_that_counts():
    with pytest.raises(AssertionError, match="other bits"):
        check_isolation(mutated(SPLINE, NanAtZero))


@pytest.mark.parametrize(
    ("row", "cls"),
    [
        ("hats_laplace-add_remove", OutsideDomain),
        ("moments_gaussian-add_remove", OutsideBall),
        (SPLINE, HeavierThanTold),
        ("cdf_gaussian-add_remove", HalfTheCells),
    ],
)
def test_contributions_past_the_reach(row, cls):
    with pytest.raises(AssertionError, match=r": .* > "):
        check_bound(mutated(row, cls))


def test_a_table_that_is_disjoint_when_a_record_is_replaced():
    row = mutated("classes_gaussian-replace_one", DisjointWhenReplaced)
    with pytest.raises(AssertionError, match="worst at"):
        check_exact(row)


def test_landmarks_with_white_noise():
    row = mutated("landmarks_gaussian-add_remove", WhiteAtLandmarks)
    with pytest.raises(AssertionError, match="variance ratio"):
        check_leaves(row)
