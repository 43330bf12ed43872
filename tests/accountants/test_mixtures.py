"""Gaussians under a random shift: exact profiles, however far apart the shifts are."""

import math
from typing import Any

import numpy as np
import pytest
from dp_accounting import dp_event

from dpkit.accountants import delta_of, epsilon
from dpkit.accountants.events import repeat
from dpkit.accountants.pairs import noise as profiles

FAR = (0.0, 1.0, 1e6), (0.9, 0.09, 0.01)


def _upper(event, delta) -> Any:
    return epsilon(event, delta, relation="add_remove").upper


def test_mixtures_of_gaussians():
    # dp-accounting 0.6.0, pessimistic: 11.63798 for five Bernoulli(0.01) shifts.
    weights = [math.comb(5, k) * 0.01**k * 0.99 ** (5 - k) for k in range(6)]
    event = dp_event.MixtureOfGaussiansDpEvent(1.0, tuple(range(6)), tuple(weights))
    assert _upper(repeat(event, 1000), 1e-5) == pytest.approx(11.638, rel=2e-5)
    still = dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0,), (1.0,))
    assert _upper(still, 1e-6) == 0.0


def test_a_two_point_mixture_is_poisson_sampling():
    mixture = profiles.mixture_gaussian(0.8, (0.0, 1.0), (0.9, 0.1))
    sampled = profiles.poisson_gaussian(0.8, 0.1)
    losses = np.concatenate([[0.0], np.geomspace(1e-4, 8, 60)])
    np.testing.assert_allclose(
        mixture.forward(losses), sampled.forward(losses), atol=1e-15, rtol=1e-9
    )
    np.testing.assert_allclose(
        mixture.backward(losses), sampled.backward(losses), atol=1e-15, rtol=1e-9
    )


def _truth(shifts, weights, e, *, removed=False) -> float:
    """D at noise 1: the half-line beyond the point where the ratio passes e^(+-e)."""
    pairs = list(zip(shifts, weights, strict=True))

    def loss(x):
        terms = [math.log(w) + c * (x - c / 2) for c, w in pairs]
        top = max(terms)
        return top + math.log(math.fsum(math.exp(t - top) for t in terms))

    low, high = -60.0, max(shifts) + 60.0
    for _ in range(120):
        x = (low + high) / 2
        low, high = (low, x) if loss(x) > (-e if removed else e) else (x, high)
    if removed:
        p = math.fsum(w * _cdf(low - c) for c, w in pairs)
        return max(_cdf(low) - math.exp(e) * p, 0.0)
    p = math.fsum(w * _cdf(c - low) for c, w in pairs)
    return max(p - math.exp(e) * _cdf(-low), 0.0)


def _cdf(x):
    """Of the standard normal."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize("seed", range(40))
def test_profiles_of_shifts_that_are_far_apart(seed):
    """Up to eight decades apart, with and without a shift of 0."""
    rng = np.random.default_rng(seed)
    noise = float(np.exp(rng.uniform(-2, 2)))
    shifts = np.exp(rng.uniform(-2, math.log(1e8), size=rng.integers(0, 4)))
    shifts = np.append(shifts, rng.uniform(0.1, 2.0))
    shifts = np.append(shifts, 0.0) if seed % 2 else shifts
    weights = rng.dirichlet(np.full(len(shifts), rng.uniform(0.2, 1.0))) + 1e-9
    weights /= weights.sum()
    profile = profiles.mixture_gaussian(noise, tuple(shifts * noise), weights)
    losses = np.array([0.0, 1e-6, 0.1, 0.9, 1.1, 6.0, 40.0])
    truth = [_truth(shifts, weights, e) for e in losses]
    np.testing.assert_allclose(profile.forward(losses), truth, rtol=1e-12, atol=2e-15)
    truth = [_truth(shifts, weights, e, removed=True) for e in losses]
    np.testing.assert_allclose(profile.backward(losses), truth, rtol=1e-12, atol=2e-15)


def test_one_shift_is_a_gaussian_at_losses_where_little_is_left():
    """Nothing stays at 0, so removing leaks at every loss."""
    losses = np.linspace(0.0, 80.0, 81)
    one, known = profiles.mixture_gaussian(0.1, (1.0,), (1.0,)), profiles.gaussian(0.1)
    for curve in (one.forward, one.backward):
        np.testing.assert_allclose(curve(losses), known.forward(losses), rtol=1e-9)


@pytest.mark.slow
def test_a_rare_shift_far_away_hides_no_loss_of_the_near_one():
    event = dp_event.MixtureOfGaussiansDpEvent(1.0, *FAR)
    truth = _truth(*FAR, 0.0)
    # 0.9 N(0) + 0.09 N(1) + 0.01 N(1e6), scipy.optimize.brentq and scipy.stats.norm.
    assert truth == pytest.approx(0.04156, rel=1e-4)
    for e in (0.0, 0.1, 1.0):
        found: Any = delta_of(event, e, relation="add_remove").upper
        assert _truth(*FAR, e) <= found <= _truth(*FAR, e) * 1.001 + 1e-9
    for delta in (0.02, 0.03, 0.04):
        assert _truth(*FAR, _upper(event, delta)) <= delta * (1 + 1e-9)
