"""Discovery: thresholds, what survives them, bins, bounds."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest
from scipy import special

from dpkit.accountants import delta_of
from dpkit.mechanisms.density import Gaussian, Laplace, Radial
from dpkit.mechanisms.tables import BoundsHistogram, StableHistogram
from tests.oracles.tables import discrete_laplace_tail

NOISES = [Laplace(1.0), Laplace(0.1), Gaussian(5.0), Gaussian(1.0)]


# tau = 1 + ln(1 / (2 delta)) / epsilon, and 1 + sigma Phi^-1(1 - delta).
@pytest.mark.parametrize(
    ("noise", "delta", "tau"),
    [
        (Laplace(1.0), 1e-6, 14.12236),
        (Laplace(0.1), 1e-8, 178.27534),
        (Gaussian(5.0), 1e-6, 24.76712),
    ],
)
def test_thresholds_are_the_textbook_s_on_a_grid(noise, delta, tau):
    """Up to two steps above it, since noise on a grid reaches it a little oftener."""
    own = StableHistogram(noise=noise, delta=delta)
    assert tau - 1e-5 <= own.threshold <= tau + 2 * own.step + 1e-5
    assert own.threshold % own.step == 0


def law(own, count):
    """The exact law of a noisy count on its grid, from 60 deviations below to above."""
    steps = np.arange(-60 * own.stddev // own.step, 60 * own.stddev // own.step + 1)
    if isinstance(own.noise, Laplace):
        masses = np.exp(-np.abs(steps) * own.step * own.noise.epsilon / own.reach)
        masses /= masses.sum()
    else:
        edges = np.array([steps - 0.5, steps + 0.5]) * own.step / own.stddev
        below, above = special.ndtr(np.where(steps > 0, -edges[::-1], edges))
        masses = above - below
    return count + steps * own.step, masses


def kept(own, count):
    """The chance that a value with this count is kept."""
    at, masses = law(own, count)
    return masses[at >= own.threshold].sum()


@pytest.mark.parametrize("noise", NOISES, ids=str)
@pytest.mark.parametrize("delta", [1e-8, 1e-4, 0.1])
def test_a_value_of_one_row_alone_survives_as_often_as_delta_says(noise, delta):
    own = StableHistogram(noise=noise, delta=delta)
    assert 0.95 * delta < kept(own, 1) <= delta * (1 + 1e-9)


@pytest.mark.parametrize("noise", NOISES, ids=str)
@pytest.mark.parametrize("values", [(3,), (2, 1), (1, 1, 1)])
def test_values_of_one_unit_alone_survive_less_than_delta_says(noise, values):
    own = StableHistogram(noise=noise, delta=1e-4, reach=3)
    assert 1 - math.prod(1 - kept(own, count) for count in values) <= 1e-4


@pytest.mark.parametrize("noise", NOISES[::3], ids=str)
@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
def test_the_event_covers_exact_laws(noise, relation):
    """A unit of two rows: one of a value of its own, one of a value that others have.

    Where it is replaced, the other has a value of its own too, and takes its second row
    from another common value. A value of one side alone tells, if it is kept; if it is
    not, the common counts remain.
    """
    own = StableHistogram(noise=noise, delta=0.01, reach=2)
    _, masses = law(own, 0)
    moved = round(1 / own.step)
    few, more = np.pad(masses, (0, moved)), np.pad(masses, (moved, 0))
    chance, event = kept(own, 1), own.event(relation)
    replaced = relation == "replace_one"
    lost = 1 - chance if replaced else 1.0  # of the small side: its value is not kept
    for epsilon in (0.0, 1.0):
        if replaced:  # the two common counts together, by one of them: a lower bound
            gained = (few * lost, more * (1 - chance))
        else:
            gained = (few, more * (1 - chance))
        claim: Any = delta_of(event, epsilon, relation=relation).upper
        ways = [(gained[1], gained[0], chance), (*gained, chance if replaced else 0.0)]
        for first, second, alone in ways:
            excess = np.maximum(first - math.exp(epsilon) * second, 0).sum()
            assert alone + excess <= claim + 1e-9


def test_what_is_kept_is_in_order_and_on_the_grid():
    own = StableHistogram(noise=Laplace(1.0), delta=1e-6)
    counts = {"b": 900, "a": 800, "": 700, "rare": 1}
    found = own.privatize(jax.random.key(0), counts)
    assert list(found) == ["", "a", "b"]
    assert all(value % own.step == 0 for value in found.values())
    assert own.privatize(jax.random.key(0), dict(reversed(counts.items()))) == found
    assert own.privatize(jax.random.key(0), {}) == {}
    assert own.total(["a", None, "b", "a"]) == {"a": 2, "b": 1}


def test_what_the_stable_histogram_refuses():
    own = StableHistogram(noise=Gaussian(2.0), delta=1e-6)
    for bad in ({"noise": Radial(1.0)}, {"noise": 1.0}, {"noise": Laplace(1e9)}):
        with pytest.raises((TypeError, ValueError), match="noise"):
            dataclasses.replace(own, **bad)
    with pytest.raises(ValueError, match=r"delta=0.2: needed at most 0.1"):
        dataclasses.replace(own, delta=0.2)
    with pytest.raises(TypeError, match="needed texts") as error:
        own.privatize(jax.random.key(0), {1234567: 3})
    assert "1234567" not in str(error.value)
    with pytest.raises(TypeError, match="counts=float64"):
        own.privatize(jax.random.key(0), {"a": 1.5})


def bin_of(x):
    """Slowly: -122 .. 122, 0 for 0, by comparing powers of two."""
    if x == 0:
        return 0
    size = sum(abs(x) >= 2.0**e for e in range(-60, 60)) + 1
    return size if x > 0 else -size


def test_bins_are_powers_of_two():
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [
            [0.0, -0.0, 1.0, -1.0, 2.0, 1.9999, 5e-324, -5e-324, 1e300, -1e300],
            [math.inf, -math.inf, 2.0**60, 2.0**-60, 2.0**-61, -(2.0**59)],
            rng.normal(size=300) * 10.0 ** rng.uniform(-25, 25, 300),
        ]
    )
    own = BoundsHistogram(epsilon=1.0)
    expected = np.zeros(243, int)
    for value in values:
        expected[121 + bin_of(value)] += 1
    assert (own.total(values) == expected).all()
    assert own.total([math.nan, 1.0]).sum() == 1
    assert own.total(np.array([3, -3])).nonzero()[0].tolist() == [121 - 63, 121 + 63]
    with pytest.raises(TypeError, match="values=<U1"):
        own.total(["a"])


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        ([0.0], (0.0, 0.0)),
        ([3.0, 5.0], (2.0, 8.0)),
        ([-3.0, 5.0], (-4.0, 8.0)),
        ([-3.0, -5.0], (-8.0, -2.0)),
        ([0.0, 1e-300], (0.0, 2.0**-60)),
        ([-1e-300], (-(2.0**-60), 0.0)),
        ([-math.inf, 1e300], (-(2.0**60), 2.0**60)),
        ([2.0**60, -1.0], (-2.0, 2.0**60)),
    ],
)
def test_bounds_are_the_edges_of_what_stands_out(values, bounds):
    own = BoundsHistogram(epsilon=1.0)
    noisy = own.privatize(jax.random.key(0), own.total(np.repeat(values, 200)))
    assert own.bounds(noisy) == bounds
    assert own.bounds(own.privatize(jax.random.key(0), own.total([]))) is None


@pytest.mark.parametrize("chance", [0.3, 0.01])
def test_empty_bins_stand_out_as_rarely_as_said(chance):
    """At the least step of the grid at which 243 of them do by at most that chance."""
    own = BoundsHistogram(epsilon=0.5)
    step = 2.0**-9
    noisy, least, most = np.zeros(243), 0, 2**20
    while least < most:
        noisy[7] = step * (middle := (least + most) // 2)
        if own.bounds(noisy, false_positives=chance) is None:
            least = middle + 1
        else:
            most = middle
    above, below = (
        243 * discrete_laplace_tail(2.0, step, step * at) for at in (least, least - 1)
    )
    assert above <= chance < below


def test_what_bounds_cost():
    own = BoundsHistogram(epsilon=0.3, reach=4)
    assert own.event("add_remove").epsilon == 0.3
    assert own.event("replace_one").epsilon == 0.6
    for relation in ("add_remove", "replace_one"):
        stacked = own.histogram.event(relation).epsilon
        assert stacked == pytest.approx(own.event(relation).epsilon, rel=1e-15)
    with pytest.raises(ValueError, match="false_positives"):
        own.bounds(np.zeros(243), false_positives=0.0)
