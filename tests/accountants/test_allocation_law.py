"""The laws of random allocation against quadrature, closed forms and each other."""

import functools
import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest

from dpkit.accountants.pairs.allocation import atoms as allocation_atoms
from dpkit.accountants.pairs.allocation import law as allocation_law
from dpkit.accountants.pairs.allocation import lognormal
from dpkit.accountants.pairs.allocation.atoms import Atoms
from dpkit.accountants.pairs.allocation.law import AllocationLaw
from tests.accountants.worked_runs import thinned
from tests.oracles import allocation as oracle

TAIL = 1e-16
UNTYPED: Any = allocation_law.upper
upper = functools.cache(allocation_law.upper)
lower = functools.cache(allocation_law.lower)


def removed(law: AllocationLaw, e: float) -> float:
    """D(P || Q)(e)."""
    return float(np.maximum(law.p - math.exp(e) * law.q, 0).sum()) + law.infinite_p


def added(law: AllocationLaw, e: float) -> float:
    """D(Q || P)(e)."""
    return float(np.maximum(law.q - math.exp(e) * law.p, 0).sum()) + law.infinite_q


# Quadrature of the definition: sigma, delta, epsilon when removing and when adding.
TWO_STEPS = [
    (1.0, 1e-5, 3.69738521, 3.07973259),
    (0.6, 1e-5, 7.31088129, 5.75616936),
    (2.0, 1e-8, 2.08924010, 1.89572752),
]


@pytest.mark.parametrize(("noise", "delta", "remove", "add"), TWO_STEPS)
def test_two_steps_against_quadrature(noise, delta, remove, add):
    assert oracle.two_steps(noise, remove)[0] == pytest.approx(delta, rel=3e-7)
    assert oracle.two_steps(noise, add)[1] == pytest.approx(delta, rel=3e-7)
    above, below = upper(noise, 2), lower(noise, 2)
    for e in (0.0, 0.3, 1.0, remove, add):
        truth = oracle.two_steps(noise, e)
        for profile, exact in zip((removed, added), truth, strict=True):
            low, high = profile(below, e), profile(above, e)
            assert low <= exact * (1 + 1e-12) + 1e-17
            assert exact * (1 - 1e-12) <= high <= exact * 1.02 + TAIL


# One epoch, sigma = 1, t = 29: certified intervals at fineness 1/200, checked by Monte
# Carlo with importance sampling.
PROFILE = [
    (0.0, (0.0931439, 0.0931457), (0.0931439, 0.0931457)),
    (0.5, (3.374782e-3, 3.375075e-3), (1.194883e-3, 1.195075e-3)),
    (1.0, (8.03041e-5, 8.03130e-5), (1.16300e-7, 1.16364e-7)),
    (2.0, (1.916721e-7, 1.917009e-7), (0.0, 1.43e-23)),
]


@pytest.mark.parametrize(("e", "remove", "add"), PROFILE)
@pytest.mark.parametrize("fineness", [1 / 25, 1 / 50, 1 / 100])
def test_one_epoch_of_29_steps(e, remove, add, fineness):
    above, below = upper(1.0, 29, fineness), lower(1.0, 29, fineness)
    assert removed(below, e) <= remove[1] <= removed(above, e) * 1.0001
    assert remove[0] <= removed(above, e) <= remove[1] * (1 + 5 * fineness**2)
    assert added(below, e) <= add[1] * 1.0001
    assert add[0] <= added(above, e) <= add[1] * (1 + 25 * fineness**2) + 0.1 * TAIL


# sigma, t, E, delta: certified intervals (remove, add) at fineness 1/200; all but the
# last two agree with Monte Carlo by importance sampling within two standard errors.
COMPOSED = [
    (1.0, 2, 2, 1e-5, (5.310723, 5.310771), (4.618089, 4.618132)),
    (0.5, 3, 1, 1e-6, (9.898551, 9.898599), (6.657855, 6.657999)),
    (1.0, 10, 4, 1e-5, (3.8462, 3.84681), (3.0521, 3.05269)),  # as of 4 of 40
    (1.0, 29, 10, 1e-5, (3.435550, 3.435663), (2.989854, 2.989973)),
    (0.7, 100, 10, 1e-5, (4.274625, 4.274834), (2.896552, 2.896725)),
    (0.6, 29, 4, 1e-4, (6.336524, 6.336775), (3.519196, 3.519435)),
    (1.5, 1000, 1, 1e-6, (0.085754, 0.085757), (0.084290, 0.084293)),
    (2.0, 29, 40, 1e-5, (2.563582, 2.563704), (2.547672, 2.547795)),
    (1.0, 1000, 10, 1e-5, (0.464445, 0.464469), (0.451269, 0.451293)),
    (1.0, 29, 10, 1e-30, (13.925684, 13.925899), (7.960093, 7.960308)),
    (5.0, 29, 40, 1e-5, (0.874453, 0.874500), (0.874183, 0.874226)),
    (0.4, 29, 1, 1e-5, (9.839392, 9.839519), (3.290571, 3.290999)),
]


@pytest.mark.parametrize(
    ("noise", "steps", "epochs", "delta", "remove", "add"),
    thinned(COMPOSED, (0, 3, 6, 9, 11)),
)
def test_composed_epochs(noise, steps, epochs, delta, remove, add):
    law = upper(noise, steps, tail=min(1e-16, 1e-9 * delta / epochs))
    for known, loss, mass, infinite in (
        (remove, law.loss, law.p, law.infinite_p),
        (add, -law.loss[::-1], law.q[::-1], law.infinite_q),
    ):
        tilt = 0.75 * math.log(1 / delta) / known[1]
        found = oracle.root(
            oracle.composed(loss, mass, infinite, epochs, tilt), delta, 2 * known[1]
        )
        assert known[0] <= found <= known[1] * (1 + 1.5e-3)


def test_a_composed_lower_law():
    """Row (1, 29, 10) above: losses rounded down to an even grid."""
    law, epochs, delta = lower(1.0, 29), 10, 1e-5
    for known, loss, mass in (
        ((3.435550, 3.435663), law.loss, law.p),
        ((2.989854, 2.989973), -law.loss, law.q),
    ):
        step = law.step / 32
        places = np.floor(loss / step).astype(int)
        first = int(places.min())
        even = np.bincount(places - first, mass)
        grid = (first + np.arange(len(even))) * step
        tilt = 0.75 * math.log(1 / delta) / known[1]
        found = oracle.root(oracle.composed(grid, even, 0.0, epochs, tilt), delta, 6.0)
        assert known[0] * (1 - 8e-4) <= found <= known[1]


# Laws of 29 steps are doubled and added as those of 3 and 7 are.
@pytest.mark.parametrize(
    ("noise", "steps"),
    thinned(
        itertools.product([0.1, 0.5, 1.0, 1e4], [1, 2, 29, 1000, 3, 7]),
        (0, 1, 2, 12, 13, 14, 15, 18, 20),
    ),
)
def test_both_laws_are_what_they_must_be(noise, steps):
    """Sums of one, little infinite loss, and the variance of A between theirs."""
    above, below = upper(noise, steps), lower(noise, steps)
    for law in (above, below):
        assert math.fsum(law.p) + law.infinite_p == pytest.approx(1, abs=1e-11)
        assert math.fsum(law.q) + law.infinite_q == pytest.approx(1, abs=1e-11)
        assert np.all(np.diff(law.loss) > 0)
        np.testing.assert_allclose(np.log(law.p / law.q), law.loss, atol=1e-12)
    assert 0 <= above.infinite_p <= 20 * TAIL
    assert 0 <= above.infinite_q <= 0.1 * TAIL
    assert below.infinite_p == below.infinite_q == 0
    assert 0 < max(above.rounding, below.rounding) < 1e-11 * steps
    if noise < 0.5:
        return  # the variance is that of losses that never happen
    truth = lognormal.variance(noise) / steps
    spread = [float(np.expm1(law.loss) ** 2 @ law.q) for law in (below, above)]
    assert spread[0] <= truth * (1 + 1e-9)
    assert spread[1] >= truth * (1 - 1e-3) - 2 * TAIL


@pytest.mark.parametrize(("noise", "steps"), [(0.7, 100), (2.0, 29), (1.0, 10)])
def test_put_and_call(noise, steps):
    """D_add(e) = 1 - e^e + e^e D_remove(-e), and both are the same at 0."""
    for law in (upper(noise, steps), lower(noise, steps)):
        for e in (0.0, 0.2, 1.0):
            other = 1 - math.exp(e) + math.exp(e) * removed(law, -e)
            assert added(law, e) == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
def test_one_step_is_a_gaussian(noise):
    for e in (0.0, 0.5, 2.0):
        exact = oracle.one_in_a_step(1.0, noise, e)[0]
        for profile in (removed, added):
            assert profile(lower(noise, 1), e) <= exact * (1 + 1e-9)
            assert exact <= profile(upper(noise, 1), e) <= exact * 1.005 + TAIL


def test_the_first_step_of_an_epoch_is_one_poisson_sample():
    above, below = upper(1.0, 100, last_steps=1), lower(1.0, 100, last_steps=1)
    for e in (0.0, 0.005, 0.009, 0.1, 0.5, 1.0):
        truth = oracle.one_in_a_step(0.01, 1.0, e)
        for profile, exact in zip((removed, added), truth, strict=True):
            assert profile(below, e) <= exact * (1 + 1e-9) + 1e-15
            assert exact - 1e-15 <= profile(above, e) <= exact * 1.02 + 1e-15
    assert above.infinite_q == 0
    assert oracle.root(lambda e: removed(above, e), 1e-5) == pytest.approx(
        0.19945, rel=1e-3
    )
    assert oracle.root(lambda e: added(above, e), 1e-5) == pytest.approx(
        0.009054, rel=1e-3
    )


def test_a_started_epoch():
    """First 10 of 29 steps, sigma = 1: 1.13776 / .27453 at fineness 1/200."""
    for fineness, loose in ((1 / 50, 1e-3), (1 / 100, 3e-4)):
        laws = [make(1.0, 29, fineness, last_steps=10) for make in (lower, upper)]
        for profile, known in ((removed, 1.13776), (added, 0.27453)):
            low, high = (
                oracle.root(functools.partial(profile, law), 1e-5) for law in laws
            )
            assert low <= known * (1 + 2e-5)
            assert known * (1 - 2e-5) <= high <= known * (1 + loose)


def test_finer_grids_close_in():
    """The error of both laws falls with the square of the step."""
    finenesses = [1 / 25, 1 / 50, 1 / 100]
    above = [removed(upper(1.0, 29, r), 1.0) for r in finenesses]
    below = [removed(lower(1.0, 29, r), 1.0) for r in finenesses]
    assert below[0] < below[1] < below[2] < above[2] < above[1] < above[0]
    assert above[0] - above[1] == pytest.approx(4 * (above[1] - above[2]), rel=0.2)


def test_more_steps_hide_better():
    """The law of t steps is below that of t' < t in convex order."""
    for e in (0.0, 0.3, 1.0):
        for profile in (removed, added):
            values = [profile(upper(1.0, t), e) for t in (2, 3, 8, 29, 100)]
            assert values == sorted(values, reverse=True)
        values = [removed(upper(s, 29), e) for s in (0.6, 0.8, 1.0, 2.0)]
        assert values == sorted(values, reverse=True)


def test_far_tails_and_many_steps():
    """An answer at delta = 1e-30, and the most steps that an event may have."""
    tail = 1e-40  # 1e-9 of delta, over ten epochs
    for noise, steps in ((1.0, 29), (10.0, 1000), (0.1, 29)):
        law = upper(noise, steps, tail=tail)
        assert law.infinite_p <= 20 * tail
        assert law.infinite_q <= 0.1 * tail
    law = upper(10.0, 2**20 - 1)
    assert law.infinite_p <= 20 * TAIL
    assert float(np.expm1(law.loss) ** 2 @ law.q) * (2**20 - 1) == pytest.approx(
        lognormal.variance(10.0), rel=5e-3
    )


def test_what_the_law_refuses():
    for noise in (0.09, 1e5):
        with pytest.raises(ArithmeticError, match="another accountant"):
            upper(noise, 29)
    for bad in (math.nan, 0.0, -1.0):
        with pytest.raises(ValueError, match="noise_multiplier"):
            upper(bad, 29)
    with pytest.raises(ValueError, match="steps=0"):
        upper(1.0, 0)
    with pytest.raises(ValueError, match="fineness"):
        upper(1.0, 29, 0.2)
    with pytest.raises(ValueError, match="tail"):
        lower(1.0, 29, tail=1e-3)
    for last in (0, 29):
        with pytest.raises(ValueError, match="last_steps"):
            lower(1.0, 29, last_steps=last)
    with pytest.raises(TypeError, match="steps"):
        UNTYPED(1.0, 29.0)


@pytest.mark.parametrize(
    ("field", "factor", "message"),
    [("zero", 1e-12, "below"), ("lost", 1e-9, "above"), ("mass", 0, "sums")],
)
def test_a_law_that_fails_its_checks_is_no_answer(monkeypatch, field, factor, message):
    """Damage to a law before its last rounding is found."""
    whole = Atoms.plus

    def damaged(self, *args):
        law = whole(self, *args)
        values = vars(law) | {field: factor or law.mass * (1 - 1e-10)}
        return Atoms(**values)

    monkeypatch.setattr(Atoms, "plus", damaged)
    with pytest.raises(ArithmeticError, match=message):
        allocation_law.upper(1.0, 29)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.1, 0.4, 1.0, 10.0])
def test_the_transform_of_a_lognormal(noise):
    """Against the same integral with 20 digits."""
    log_theta = np.array([-20.0, -2.001, -1.999, 1.0, 1 / noise + 4.0])
    found = lognormal.log_laplace(log_theta, noise)
    with mpmath.workdps(20):
        s = mpmath.mpf(noise)
        for u, value in zip(log_theta, found, strict=True):
            theta = mpmath.exp(mpmath.mpf(float(u)))

            def part(z, theta=theta, near_one=u < 0):
                tilt = theta * mpmath.exp(z / s - 1 / (2 * s**2))
                kept = mpmath.expm1(-tilt) if near_one else mpmath.exp(-tilt)
                return mpmath.npdf(z) * kept

            total = mpmath.quad(part, mpmath.linspace(-14, 11 + 1 / s, 24))
            exact = mpmath.log1p(total) if u < 0 else mpmath.log(total)
            assert value == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("ratio", [1, 2, 3, 7])
@pytest.mark.parametrize("shift", [-900, -300, 0, 300, 900])
def test_two_ways_to_add_agree(monkeypatch, ratio, shift):
    """Running sums for atoms that are far apart, and a table of all pairs."""
    rng = np.random.default_rng(ratio)

    def atoms(step, start, size):
        mass = rng.random(size) * 10.0 ** rng.integers(-12, 0, size)
        return Atoms(step, start, mass / mass.sum(), 0.0, 0.0, 0.0)

    one, other = atoms(0.02, shift, 500), atoms(0.02 * ratio, 0, 300)
    found = []
    for cost in (0, math.inf):
        monkeypatch.setattr(allocation_atoms, "_PASS", cost)
        found.append(one.plus(other, -(10**6), 10**6))
    passes, table = found
    assert passes.start == table.start
    np.testing.assert_allclose(passes.mass, table.mass, rtol=1e-12, atol=1e-300)
    exact = math.fsum(one.mass * np.exp(one.log_values)) + math.fsum(
        other.mass * np.exp(other.log_values)
    )
    mean = math.fsum(passes.mass * np.exp(passes.log_values))
    assert mean == pytest.approx(exact, rel=1e-12)
