"""Random allocation to batches that can overflow: what every accountant makes of it."""

import itertools
import math

import numpy as np
import pytest

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events import repeat, sequential
from dpkit.accountants.events.allocation import (
    RandomAllocationDpEvent,
    TruncatedAllocationDpEvent,
)
from dpkit.accountants.readings import (
    best,
    edgeworth,
    gdp,
    pld,
    pure,
    rdp,
    truncation,
    zcdp,
)
from tests.accountants.worked_runs import gaussian
from tests.oracles import binomial

ROUND = TruncatedAllocationDpEvent(2.0, 29, 60_000, 2388, epochs=10)


@pytest.mark.slow
def test_a_batch_that_is_hardly_ever_full_costs_hardly_more():
    # N=60000, t=29, E=10, eps=3: B=2388 keeps E t (1 + e^eps) Psi below 1e-8.
    slip = 290 * binomial.upper_tail(60_000, 1 / 29, 2388)
    assert slip * (1 + math.exp(3)) == pytest.approx(8.66e-9, rel=1e-2)
    plain = pld.delta_of(ROUND.plain, 3.0, relation="add_remove", lower=False).upper
    found = pld.delta_of(ROUND, 3.0, relation="add_remove", lower=False).upper
    assert plain is not None and found is not None
    assert found - plain == pytest.approx(slip * (1 + math.exp(3)), rel=1e-6)


@pytest.mark.parametrize(
    ("module", "size"),
    [pytest.param(pld, 2345, marks=pytest.mark.slow), (rdp, 2345), (zcdp, 2390)],
)
def test_the_epsilon_is_the_one_whose_delta_has_room_for_the_overflow(module, size):
    tight = TruncatedAllocationDpEvent(2.0, 29, 60_000, size, epochs=10)
    epsilon = module.epsilon(tight, 1e-5, relation="add_remove").upper
    assert epsilon > module.epsilon(tight.plain, 1e-5, relation="add_remove").upper
    slip = 290 * binomial.upper_tail(60_000, 1 / 29, size) * (1 + math.exp(epsilon))
    assert 1e-7 < slip < 1e-5  # it matters
    plain = module.delta_of(tight.plain, epsilon, relation="add_remove").upper
    assert plain + slip == pytest.approx(1e-5, rel=1e-3)
    assert plain + slip <= 1e-5 * (1 + 1e-4)  # searches for an order stop at 1e-3


@pytest.mark.slow
def test_overflow_adds_up_over_a_composition():
    whole = sequential([repeat(ROUND, 3), gaussian(5.0)])
    kept, slip = truncation.plain(
        [(ROUND, 3), (gaussian(5.0), 1)], Relation.ADD_REMOVE, "curve"
    )
    assert kept == [(RandomAllocationDpEvent(2.0, 29), 30), (gaussian(5.0), 1)]
    assert slip == pytest.approx(870 * binomial.upper_tail(60_000, 1 / 29, 2388))
    plain = sequential([repeat(ROUND.plain, 3), gaussian(5.0)])
    least = best.epsilon(plain, 1e-5, relation="zero_out").upper
    found = best.epsilon(whole, 1e-5, relation="zero_out").upper
    assert least is not None and found is not None
    assert least < found < least * 1.001
    curve = best.epsilon_curve(ROUND, [3], 1e-5, relation="zero_out")[0].upper
    alone = best.epsilon(repeat(ROUND, 3), 1e-5, relation="zero_out").upper
    assert curve == alone


@pytest.mark.slow
def test_a_batch_that_holds_everyone_is_plain():
    event = TruncatedAllocationDpEvent(1.0, 2, 100, 100)
    for relation in ("add_remove", "zero_out"):
        found = pld.epsilon(event, 1e-5, relation=relation)
        plain = pld.epsilon(event.plain, 1e-5, relation=relation)
        assert found.upper == plain.upper
        assert found.lower is not None and found.lower > 0


def test_who_has_no_proof_says_so():
    for module in (edgeworth, gdp, pure):
        assert not module.supports(ROUND, "add_remove")
        with pytest.raises(UnsupportedEvent):
            module.epsilon(ROUND, 1e-5, relation="add_remove")
    for module in (pld, rdp, zcdp):
        assert not module.supports(ROUND, "replace_one")
        with pytest.raises(UnsupportedRelation):
            module.epsilon(ROUND, 1e-5, relation="replace_one")
    with pytest.raises(UnsupportedEvent):
        rdp.rdp_curve(ROUND, [2.0], relation="add_remove")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"max_batch_size": 11}, "max_batch_size"),
        ({"dataset_size": 0}, "dataset_size"),
        ({"epochs": 0}, "epochs"),
        ({"last_steps": 4}, "last_steps"),
        ({"max_batch_size": True}, "max_batch_size"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change, name):
    good = {
        "noise_multiplier": 1.0,
        "steps_per_epoch": 4,
        "dataset_size": 10,
        "max_batch_size": 5,
    }
    with pytest.raises((ValueError, TypeError), match=name):
        TruncatedAllocationDpEvent(**(good | change))


@pytest.mark.parametrize("rival", [-1.0, 1.0])
def test_the_claim_covers_every_law_with_few_steps_and_records(rival):
    # Two steps, eight records, seven slots: all batches listed, both sums in the plane.
    event = TruncatedAllocationDpEvent(0.8, 2, 8, 7)
    for others in (3, 7):
        without = _law((rival,) * others, 7, 0.8)
        with_it = _law((rival,) * others + (1.0,), 7, 0.8)
        for epsilon in (0.0, 1.0, 2.0):
            claimed = pld.delta_of(
                event, epsilon, relation="add_remove", lower=False
            ).upper
            growth = math.exp(epsilon)
            for one, other in ((with_it, without), (without, with_it)):
                true = float(np.maximum(one - growth * other, 0.0).sum())
                assert claimed is not None and true <= claimed + 1e-6


def _law(values, size, noise):
    """Masses of (sum 1, sum 2) + noise on a fine grid, by listing the choices."""
    grid = np.arange(-12.0, 12.0, 0.2)
    weights = {}
    for steps in itertools.product((0, 1), repeat=len(values)):
        places = [
            [v for v, s in zip(values, steps, strict=True) if s == k] for k in (0, 1)
        ]
        kept = [list(itertools.combinations(p, min(size, len(p)))) for p in places]
        for pair in itertools.product(*kept):
            total = tuple(sum(part) for part in pair)
            chance = 0.5 ** len(values) / (len(kept[0]) * len(kept[1]))
            weights[total] = weights.get(total, 0.0) + chance
    masses = np.zeros((len(grid), len(grid)))
    for total, weight in weights.items():
        lines = [
            np.exp(-0.5 * ((grid - t) / noise) ** 2) / (noise * math.sqrt(2 * math.pi))
            for t in total
        ]
        masses += weight * np.outer(*lines) * 0.2**2
    return masses
