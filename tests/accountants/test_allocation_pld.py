"""Random allocation through the loss distributions, against proven intervals."""

from typing import Any

import pytest

from dpkit.accountants import epsilon
from dpkit.accountants.answers.errors import UnsupportedRelation
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.composition.rounds import Rounds
from dpkit.accountants.events import repeat, sequential
from dpkit.accountants.events.allocation import RandomAllocationDpEvent
from dpkit.accountants.readings import pld
from tests.accountants import worked_runs
from tests.accountants.worked_runs import gaussian, poisson

# (noise, steps, epochs, delta, remove low, high, add low, high): certified at a grid
# twice as fine, by independent code; the first seven agree with adaptive quadrature and
# the next seven with importance-sampled Monte Carlo.
ROWS = [
    (1, 2, 1, 1e-5, 3.697361, 3.697395, 3.079716, 3.079743),
    (0.6, 2, 1, 1e-5, 7.310829, 7.310886, 5.756144, 5.756210),
    (2, 2, 1, 1e-8, 2.089233, 2.089245, 1.895719, 1.895730),
    (1, 3, 1, 1e-5, 3.305081, 3.305112, 2.508397, 2.508427),
    (0.5, 3, 1, 1e-6, 9.898551, 9.898599, 6.657855, 6.657999),
    (1, 2, 2, 1e-5, 5.310723, 5.310771, 4.618089, 4.618132),
    (2, 2, 2, 1e-6, 2.400796, 2.400825, 2.297008, 2.297028),
    (1, 29, 1, 1e-5, 1.329702, 1.329725, 0.795395, 0.795415),
    (1, 29, 10, 1e-5, 3.435550, 3.435663, 2.989854, 2.989973),
    (0.7, 100, 10, 1e-5, 4.274625, 4.274834, 2.896552, 2.896725),
    (1, 100, 40, 1e-5, 3.585002, 3.585197, 3.416473, 3.416678),
    (0.6, 29, 4, 1e-4, 6.336524, 6.336775, 3.519196, 3.519435),
    (1.5, 1000, 1, 1e-6, 0.085754, 0.085757, 0.084290, 0.084293),
    (2, 29, 40, 1e-5, 2.563582, 2.563704, 2.547672, 2.547795),
    (1, 1000, 10, 1e-5, 0.464445, 0.464469, 0.451269, 0.451293),
    (1, 10000, 10, 1e-6, 0.155603, 0.155613, 0.154130, 0.154140),
    (1, 29, 10, 1e-30, 13.925684, 13.925899, 7.960093, 7.960308),
    (5, 29, 40, 1e-5, 0.874453, 0.874500, 0.874183, 0.874226),
    (0.4, 29, 1, 1e-5, 9.839392, 9.839519, 3.290571, 3.290999),
]


def allocated(noise, steps, **options) -> Any:
    return RandomAllocationDpEvent(float(noise), steps, **options)


def bound(event, delta=1e-5, lower=True) -> Any:
    return pld.epsilon(event, delta, relation="add_remove", lower=lower)


def upper(event) -> Any:
    return bound(event, lower=False).upper


def each_way(event, delta=1e-5):
    rounds = Rounds(event, Relation.ADD_REMOVE, delta=delta)
    return worked_runs.each_way(rounds, delta)


@pytest.mark.parametrize("row", [ROWS[5], ROWS[8]], ids=str)
def test_the_table(row):
    check_row(*row)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS[:5] + ROWS[6:8] + ROWS[9:], ids=str)
def test_the_rest_of_the_table(row):
    check_row(*row)


def check_row(noise, steps, epochs, delta, low, high, add_low, add_high):
    event = allocated(noise, steps, epochs=epochs)
    remove, add = each_way(event, delta)
    assert low <= remove <= high * (1 + 2e-4)
    assert add_low <= add <= add_high * (1 + 3e-4)
    found = bound(event, delta)
    assert found.certified
    assert found.upper == max(remove, add)
    assert low * (1 - 4e-4) <= found.lower <= high


def test_other_forms():
    # First steps of an epoch, whole and started epochs, company, several of many.
    for event, remove, add in [
        (allocated(1, 29, epochs=0, last_steps=10), 1.13776, 0.27453),
        (allocated(1, 29, epochs=9, last_steps=10), 3.33043, 2.86344),
        (
            sequential([allocated(1, 29, epochs=10), repeat(gaussian(10), 5)]),
            3.56988,
            3.15602,
        ),
    ]:
        assert each_way(event) == pytest.approx([remove, add], rel=2e-4)
    several = allocated(1, 10, selected=3)
    assert each_way(several) == pytest.approx([5.47860, 4.56682], rel=2e-4)
    found = bound(several)
    assert found.lower == 0
    assert "lower bound not available" in found.warnings[0]


def test_a_started_epoch_of_one_step_is_a_poisson_step():
    one = each_way(allocated(1, 100, epochs=0, last_steps=1))
    assert one == pytest.approx(each_way(poisson(1, 0.01)), rel=2e-4)
    assert one == pytest.approx([0.19945, 0.009054], rel=2e-4)


def test_degenerate_forms_are_gaussians():
    for event, same in [
        (allocated(1, 1, epochs=3), repeat(gaussian(1), 3)),
        (allocated(2, 4, selected=4, epochs=2), repeat(gaussian(2), 8)),
        (allocated(3, 29, epochs=10, partition="kept"), allocated(3 / 10**0.5, 29)),
    ]:
        assert upper(event) == pytest.approx(upper(same), rel=1e-9)


@pytest.mark.slow
def test_it_is_never_worse_than_a_gaussian_and_monotone():
    uppers = [bound(allocated(1, t, epochs=2)).upper for t in (2, 5, 20)]
    assert uppers == sorted(uppers, reverse=True)
    assert uppers[0] < bound(repeat(gaussian(1), 2)).upper
    assert bound(allocated(1.1, 5, epochs=2)).upper < uppers[1]
    assert bound(allocated(1, 5, epochs=3)).upper > uppers[1]


def test_noise_that_no_grid_holds_is_a_gaussian():
    for noise in (0.05, 1e5):
        found = upper(allocated(noise, 29))
        assert found == pytest.approx(upper(gaussian(noise)), rel=1e-6)


def test_best_is_the_loss_distribution_and_replacement_is_refused():
    event = allocated(1, 29, epochs=10)
    found: Any = epsilon(event, 1e-5, relation="zero_out", lower=False)
    assert found.method_upper == "pld"
    with pytest.raises(UnsupportedRelation):
        pld.epsilon(allocated(1, 29), 1e-5, relation="replace_one")


@pytest.mark.slow
def test_a_tiny_delta_is_an_answer():
    event = allocated(2.7, 100)
    for e in (10.0, 100.0):
        found: Any = pld.delta_of(event, e, relation="zero_out")
        assert 0 < found.upper < 1e-60
    assert bound(event, 1e-250).upper > 0
