"""Rényi curves of random allocation against enumeration, quadrature and its laws."""

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent

from dpkit.accountants.events import RandomAllocationDpEvent, repeat, sequential
from dpkit.accountants.pairs.allocation import law as allocation_law
from dpkit.accountants.pairs.allocation import renyi
from dpkit.accountants.readings import rdp
from tests.accountants.worked_runs import thinned
from tests.oracles import allocation as oracle
from tests.oracles import renyi_curves

# sigma, t, order, R when removing, R when adding: integers by power series and the
# integral of E[e^(-uA)], agreeing with discrete laws above and below.
TABLE = [
    (1.0, 29, 2, 0.0575621466657, 0.05432168738),
    (1.0, 29, 8, 0.675983670449, 0.2027066766),
    (1.0, 29, 32, 12.63270417, 0.716221859),
    (0.6, 100, 2, 0.140485512466, 0.09926996909),
    (0.6, 100, 8, 6.50594133159, 0.3122938873),
    (2.0, 1000, 2, 2.83985089e-4, 2.83962250e-4),
    (2.0, 1000, 16, 2.27273832e-3, 2.27085021e-3),
    (2.0, 1000, 64, 1.09239155, 9.072010297e-3),
    (0.8, 3, 2, 0.813997091058, 0.6726093082),
    (0.8, 3, 8, 5.15142841, 2.392281282),
]


def upper(event, delta=1e-5) -> Any:
    return rdp.epsilon(event, delta, relation="add_remove").upper


def curve(event, orders, relation="add_remove"):
    return rdp.rdp_curve(event, orders, relation=relation)


@pytest.mark.parametrize(("noise", "steps", "order", "remove", "add"), TABLE)
def test_known_values(noise, steps, order, remove, add):
    orders = renyi.orders(noise, steps)
    assert orders[order - 2] == order
    found = renyi.remove(noise, steps, steps, orders)[order - 2]
    assert found == pytest.approx(remove, rel=1e-8)
    found = renyi.add(noise, steps, steps, orders)[order - 2]
    assert found == pytest.approx(add, rel=1e-8)
    event = RandomAllocationDpEvent(noise, steps)
    assert curve(event, [order])[0] == pytest.approx(max(remove, add), rel=1e-8)


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("steps", "order"), [(2, 5), (3, 4), (5, 3), (7, 2)])
def test_moments_by_enumeration(noise, steps, order):
    exact = float(mpmath.log(oracle.moment(noise, steps, order)) / (order - 1))
    found = renyi.remove(noise, steps, steps, np.arange(2.0, order + 1))[-1]
    assert exact <= found <= exact * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("noise", [0.4, 1.0, 4.0])
@pytest.mark.parametrize("order", [2, 3, 20, 63])
def test_inverse_moments_by_quadrature(noise, order):
    exact = oracle.log_inverse_moment(noise, order - 1) / (order - 1)
    found = renyi.add(noise, 2, 2, np.array([float(order)]))[0]
    assert exact * (1 - 1e-11) <= found
    if noise < 1 and order > 3:
        assert found == math.inf  # the mass lies where the integral doesn't look
    else:
        assert found <= exact * (1 + 1e-9) + 1e-11


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "steps"), [(1.0, 29), (0.6, 100), (5.0, 1000)])
def test_adding_lies_between_the_two_laws(noise, steps):
    """The laws above and below bracket the moments of order 1 - a."""
    orders = np.array([2.0, 5.0, 16.0])
    found = renyi.add(noise, steps, steps, orders)
    for order, value in zip(orders, found, strict=True):
        low, high = (
            math.log(float(law.q @ np.exp((1 - order) * law.loss))) / (order - 1)
            for law in (
                allocation_law.lower(noise, steps),
                allocation_law.upper(noise, steps),
            )
        )
        assert low * (1 - 1e-9) <= value <= high * (1 + 1e-9) + 1e-11
        assert high <= 1.01 * low


@pytest.mark.parametrize("noise", [0.3, 1.0, 10.0])
def test_one_step_is_a_gaussian(noise):
    orders = np.array([2.0, 3.0, 10.0, 60.0])
    exact = orders / (2 * noise**2)
    for direction in (renyi.remove, renyi.add):
        found = direction(noise, 1, 1, np.arange(2.0, 61.0))[[0, 1, 8, 58]]
        assert np.all(found >= exact * (1 - 1e-12))
        finite = np.isfinite(found)
        np.testing.assert_allclose(found[finite], exact[finite], rtol=1e-8)
        assert finite[0]


def test_the_first_step_of_an_epoch_is_one_poisson_sample():
    orders = renyi.orders(1.0, 100)
    for order in (2, 8):
        for direction, add in ((renyi.remove, False), (renyi.add, 1)):
            found = direction(1.0, 100, 1, orders)[order - 2]
            exact = renyi_curves.sampled_gaussian(0.01, 1.0, order, add=bool(add))
            assert exact <= found <= exact * (1 + 1e-7)


@pytest.mark.parametrize(
    ("noise", "steps"),
    thinned(
        itertools.product([0.05, 1.0, 1e4, 0.2, 10.0], [2, 29, 2**20]),
        (1, 3, 4, 5, 8),
    ),
)
def test_the_variance_is_the_curve_at_order_two(noise, steps):
    """And no order is above that of a known step."""
    orders = renyi.orders(noise, steps)
    values = renyi.values(noise, steps, steps)
    assert np.all(values <= orders / (2 * noise**2))
    assert np.all(np.diff((orders - 1) * values) > 0)
    exact = float(mpmath.log1p(mpmath.expm1(mpmath.mpf(noise) ** -2) / steps))
    assert exact <= values[0] * (1 + 1e-12)
    assert values[0] <= exact * (1 + 1e-6) + 1e-11 or noise < 0.1


# sigma, t, E, delta: epsilon by the best order (remove).
EPSILONS = [
    (1.0, 29, 10, 1e-5, 3.8783),
    (0.7, 100, 10, 1e-5, 5.0383),
    (2.0, 29, 40, 1e-5, 2.7822),
    (1.0, 1000, 10, 1e-5, 0.7844),
    (1.0, 29, 10, 1e-30, 14.475),
]


@pytest.mark.parametrize(("noise", "steps", "epochs", "delta", "known"), EPSILONS)
def test_epsilon_by_renyi(noise, steps, epochs, delta, known):
    event = RandomAllocationDpEvent(noise, steps, epochs=epochs)
    assert upper(event, delta) == pytest.approx(known, rel=2e-4)
    same = repeat(RandomAllocationDpEvent(noise, steps), epochs)
    assert upper(same, delta) == upper(event, delta)


def test_more_noise_and_steps_cost_less_and_more_epochs_cost_more():
    def cost(noise=1.0, steps=29, **rest):
        return upper(RandomAllocationDpEvent(noise, steps, **rest))

    assert cost(0.5) > cost(1.0) > cost(2.0) > cost(8.0) > 0
    assert cost(steps=2) > cost(steps=3) > cost(steps=29) > cost(steps=1000)
    assert cost(epochs=1) < cost(epochs=2) < cost(epochs=40)
    assert cost(epochs=1) < cost(last_steps=10) < cost(epochs=2)
    assert cost(selected=2) > cost(selected=1)
    assert cost(epochs=10, partition="kept") > 2 * cost(epochs=10)


@pytest.mark.parametrize("selected", [1, 2, 3, 10, 28, 29])
def test_never_worse_than_steps_that_are_known(selected):
    event = RandomAllocationDpEvent(0.7, 29, selected, epochs=3)
    known = GaussianDpEvent(0.7 / math.sqrt(3 * selected))
    orders = [1.01, 1.5, 2.0, 3.7, 30.0, 1e4]
    assert np.all(curve(event, orders) <= curve(known, orders) * (1 + 1e-9))


def test_several_steps_of_an_epoch_are_several_blocks():
    event = RandomAllocationDpEvent(1.0, 10, 3, epochs=2)
    blocks = sequential(
        [
            RandomAllocationDpEvent(1.0, 4, epochs=2),
            RandomAllocationDpEvent(1.0, 3, epochs=4),
        ]
    )
    orders = [1.2, 2.0, 5.5, 40.0]
    np.testing.assert_allclose(curve(event, orders), curve(blocks, orders))
    # The exact second moment of 3 of 10: sum over how many steps two draws share.
    shared = [
        math.comb(3, j) * math.comb(7, 3 - j) / math.comb(10, 3) for j in range(4)
    ]
    exact = math.log(sum(w * math.exp(j) for j, w in enumerate(shared)))
    assert exact < curve(RandomAllocationDpEvent(1.0, 10, 3), [2.0])[0] < 1.2 * exact


def test_a_kept_partition_is_one_epoch_with_less_noise():
    kept = RandomAllocationDpEvent(3.0, 29, epochs=10, partition="kept")
    once = RandomAllocationDpEvent(3.0 / math.sqrt(10), 29)
    orders = [2.0, 4.0, 9.0]
    np.testing.assert_allclose(curve(kept, orders), curve(once, orders), rtol=1e-12)


def test_few_large_epochs_are_below_poisson_sampling():
    event = RandomAllocationDpEvent(1.0, 10)
    sampled = repeat(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0)), 10)
    assert upper(event) < upper(sampled)


def test_between_orders_and_beyond_them():
    event = RandomAllocationDpEvent(1.0, 29)
    two, mid, three = curve(event, [2.0, 2.5, 3.0])
    assert 1.5 * mid == pytest.approx((two + 2 * three) / 2, rel=1e-9)
    assert curve(event, [1.5])[0] == pytest.approx(two, rel=1e-9)
    far = curve(event, [1e5])[0]
    assert far == pytest.approx(1e5 / 2, rel=1e-8)
