"""Runs whose epsilon is known, shared by the tests of several accountants."""

from collections.abc import Collection, Iterable
from typing import Any

import dp_accounting as dp
import pytest
from dp_accounting import dp_event

from dpkit.accountants.events import (
    ApproxDpEvent,
    DiscreteGaussianDpEvent,
    ParallelDpEvent,
    PmfPairDpEvent,
    PureDpEvent,
    RdpCurveDpEvent,
    repeat,
    sequential,
)


def gaussian(noise):
    return dp.GaussianDpEvent(float(noise))


def poisson(noise, rate):
    return dp.PoissonSampledDpEvent(rate, gaussian(noise))


def truncated(noise, rate, records, batch):
    return dp.TruncatedSubsampledGaussianDpEvent(records, rate, batch, float(noise))


def without_replacement(noise, batch, records):
    return dp.SampledWithoutReplacementDpEvent(records, batch, gaussian(noise))


def poisson_laplace(scale, rate):
    return dp.PoissonSampledDpEvent(rate, dp.LaplaceDpEvent(float(scale)))


def pmf_pair(p, q, relation="add_remove", *, certified=True):
    return PmfPairDpEvent(p, q, relation, "toy pair", "by hand", certified)


def rdp_curve(orders, values, relation="add_remove", *, certified=True, contributors=1):
    return RdpCurveDpEvent(
        orders, values, relation, "toy curve", "by hand", certified, contributors
    )


# (noise multiplier, rate, steps, delta, epsilon when removing, epsilon when adding).
# By numerical inversion of the moment generating function, which agrees with the
# analytic Gaussian to 1e-13 (tests/oracles/compositions.py repeats some of them).
DP_SGD = [
    (4, 0.01, 10_000, 1e-5, 0.9468668, 0.9370364),
    (8, 0.01, 10_000, 1e-5, 0.4372489, 0.4351860),
    (2, 0.01, 10_000, 1e-5, 2.1627046, 2.1078215),
    (1.1, 250 / 60_000, 3_600, 1e-5, 1.1184582, 1.0041269),
    (1.12, 256 / 60_000, 14_063, 1e-5, 2.3101841, 2.1818094),
    (1.3, 250 / 60_000, 3_600, 1e-5, 0.8529795, 0.7914820),
    (3, 0.1, 512, 1e-6, 3.7696838, 3.5053777),
    (9.66, 0.1, 512, 1e-6, 1.0001987, 0.9815697),
    (3, 0.1, 155, 1e-6, 1.9962616, 1.7687673),
    (4, 0.01, 1_000, 1e-5, 0.2721361, 0.2642257),
    (0.8, 0.005, 1_000, 1e-6, 2.0041063, 1.0539436),
    (1, 0.01, 1_000, 1e-5, 1.8282367, 1.4166619),
    (1, 0.01, 300, 1e-5, 1.0680911, 0.6807984),
    (1, 0.01, 10_000, 1e-5, 6.1877124, 5.6115086),
    (1, 0.01, 10_000, 1e-8, 8.1851230, 7.2381315),
    (1, 0.01, 100_000, 1e-5, 25.5731070, 24.3917222),
    (0.5, 0.001, 1_000, 1e-5, 3.2388781, 0.3842088),
    (0.6, 0.005, 3_920, 1e-5, 6.9335979, 3.7658660),
    (2, 0.001, 10_000, 1e-6, 0.2049313, 0.2001420),
    (8, 0.1, 10_000, 1e-6, 6.3535709, 6.3117124),
    (1, 0.5, 100, 1e-5, 39.9750026, 26.7722492),
    (5, 0.9, 50, 1e-5, 5.8392919, 5.7506916),
    (10, 0.001, 100_000, 1e-7, 0.1330978, 0.1329107),
]

# (noise multiplier, delta, epsilon): analytic Gaussian, Balle & Wang 2018
# (arXiv:1805.06530), 40-digit mpmath.
ANALYTIC_GAUSSIAN = [
    (1, 1e-5, 4.37717809568),
    (2, 1e-6, 2.25408465022),
    (0.5, 1e-5, 9.99725614643),
    (10, 1e-5, 0.340669364684),
    (0.3, 1e-8, 23.6776697253),
    (1, 1e-15, 8.1655796955),
    (1, 1e-100, 21.6275080936),
    (50, 1e-3, 0.02523174915),
]

# (epsilon of each, how many, delta, epsilon): the optimal composition theorem's
# binomial (Kairouz, Oh, Viswanath 2015, arXiv:1311.0776), 40-digit mpmath.
PURE = [
    (1.0986122886681098, 20, 1e-6, 21.9719303868),
    (0.1, 100, 1e-6, 4.77456758811),
    (1.0, 10, 1e-5, 9.99977063453),
    (0.5, 30, 1e-9, 14.9984968687),
    (0.01, 10_000, 1e-5, 4.37638450926),
]


def thinned(rows: Iterable[Any], kept: Collection[int]) -> list[Any]:
    """A test's table, slow but for the `kept` rows: all go the same way."""
    return [
        row if n in kept else pytest.param(*row, marks=pytest.mark.slow)
        for n, row in enumerate(rows)
    ]


ALL = ("add_remove", "replace_one", "zero_out")
DIRECTED = ("add_remove", "zero_out")

# One short run of every event that both accountants read, with its relations.
BOTH_READ = [
    (repeat(gaussian(1), 10), ALL),
    (repeat(poisson(1, 0.02), 200), DIRECTED),
    (repeat(truncated(1, 0.1, 1_000, 190), 50), DIRECTED),
    (repeat(without_replacement(2, 10, 1_000), 200), ("replace_one",)),
    (repeat(dp.LaplaceDpEvent(2.0), 10), ALL),
    (repeat(poisson_laplace(1, 0.05), 100), DIRECTED),
    (repeat(DiscreteGaussianDpEvent(2.0, 1), 10), ALL),
    (repeat(dp_event.DiscreteLaplaceDpEvent(0.5, 2), 10), ALL),
    (repeat(dp.RandomizedResponseDpEvent(0.5, 4), 10), ("replace_one", "zero_out")),
    (
        repeat(
            dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0, 2.0), (0.9, 0.08, 0.02)),
            50,
        ),
        DIRECTED,
    ),
    (
        repeat(pmf_pair((0.5, 0.3, 0.15, 0.05), (0.35, 0.35, 0.2, 0.1)), 20),
        DIRECTED[:1],
    ),
    (repeat(PureDpEvent(0.2), 30), ALL),
    (repeat(ApproxDpEvent(0.2, 0.0), 30), ALL),
    (
        ParallelDpEvent([poisson(1, 0.1), sequential([gaussian(3), gaussian(4)])]),
        DIRECTED,
    ),
    (ParallelDpEvent([gaussian(2), dp.LaplaceDpEvent(1.0)], index_based=True), ALL),
]


def each_way(rounds, delta):
    """Upper bounds of one round's directions, forward first; one if they are equal."""
    return [
        chain.composed(1, chain.tilt_for_delta(1, delta)).epsilon(delta, 1)
        for chain in rounds._chains
    ]
