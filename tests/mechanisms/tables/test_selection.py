"""Selection: the law of what is chosen, its range, and scores that are no numbers."""

import itertools
import math
from typing import Any

import jax
import numpy as np
import pytest

from dpkit.accountants import delta_of, repeat
from dpkit.accountants.events import BoundedRangeDpEvent
from dpkit.mechanisms.tables import Selection, deviations
from tests.oracles.tables import counted, hockey_stick, successive_softmax

DRAWS = 100_000


def picked(own, scores, seed=0):
    """Frequencies of ordered choices."""
    tiled = np.broadcast_to(np.array(scores), (DRAWS, len(scores)))
    chosen = own.privatize(jax.random.key(seed), tiled)
    names, counts = np.unique(chosen, axis=0, return_counts=True)
    return dict(zip(map(tuple, names.tolist()), counts / DRAWS, strict=True))


@pytest.mark.parametrize("picks", [1, 2, 3])
def test_what_is_chosen_follows_the_softmax_of_what_is_left(picks):
    """Each frequency within 6 deviations; at most 24 of them: false alarm 5e-8."""
    own = Selection(epsilon=0.5, sensitivity=2.0, picks=picks)
    scores = [10.0, 3.0, 0.0, 14.0]  # in units of 2 * 2 / 0.5 = 8
    exact = successive_softmax([score / 8 for score in scores], picks)
    found = picked(own, scores)
    for name, probability in exact.items():
        room = 6 * math.sqrt(probability * (1 - probability) / DRAWS)
        assert abs(found.get(name, 0.0) - probability) < room, name


def laws_of_neighbours(epsilon, picks):
    """Exact laws of choices by deviations, of all neighbouring tables of two rows."""
    families, sizes = ((0,), (1,), (0, 1)), (2, 2)
    rows = list(itertools.product(range(2), range(2)))
    shapes, ends = [(2,), (2,), (2, 2)], [2, 4]
    rng = np.random.default_rng(0)
    references = [np.round(rng.uniform(0, 2, shape), 2) for shape in shapes]

    def law(table):
        parts = np.split(counted(table, families, sizes), ends)
        counts = [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]
        scores = deviations(counts, references)
        return successive_softmax(scores * epsilon / 2, picks)

    for count in range(3):
        for table in itertools.combinations_with_replacement(rows, count):
            for row in rows:
                yield law(table), law((*table, row))


def test_log_ratios_of_any_two_candidates_span_at_most_epsilon():
    """By the exact softmax of scores of tables; and some span nearly all of it."""
    spans = []
    for first, second in laws_of_neighbours(0.8, 1):
        ratios = [math.log(second[name] / first[name]) for name in first]
        spans.append(max(ratios) - min(ratios))
    assert max(spans) == pytest.approx(0.8, rel=1e-12)  # up for one, down for another


@pytest.mark.parametrize("picks", [1, 2])
def test_the_event_covers_all_neighbouring_tables(picks):
    event = Selection(epsilon=0.8, sensitivity=1.0, picks=picks).event("add_remove")
    for epsilon in (0.0, 0.2, 0.4, 0.7, 1.0):
        claim: Any = delta_of(event, epsilon, relation="add_remove").upper
        worst = max(
            max(hockey_stick(a, b, epsilon), hockey_stick(b, a, epsilon))
            for a, b in laws_of_neighbours(0.8, picks)
        )
        assert worst <= claim + 1e-12


def test_what_several_picks_cost():
    own = Selection(epsilon=0.3, sensitivity=1.0, picks=5)
    assert own.event("zero_out") == repeat(BoundedRangeDpEvent(0.3), 5)
    assert own.event("replace_one") == repeat(BoundedRangeDpEvent(0.6), 5)
    # Maximal deviations of cells move by 1, whether a record comes or is replaced.
    same = Selection(epsilon=0.3, sensitivity=1.0, replaced_sensitivity=1.0)
    assert same.event("replace_one") == BoundedRangeDpEvent(0.3)


def test_private_gsd_picks_cost_what_its_round_may():
    """Scale sqrt(K) / (sqrt(2 r) n): 45.308771 for r = rho / 100, n b in counts."""
    rho = 0.024355970
    scale = 1 / math.sqrt(2 * rho / 100)
    assert scale == pytest.approx(45.308771, abs=1e-6)
    epsilon = 2 / scale
    event = Selection(epsilon=epsilon, sensitivity=1.0).event("add_remove")
    assert event.epsilon**2 / 8 == pytest.approx(rho / 100, rel=1e-12)


def test_scores_that_are_no_numbers_come_last_and_in_order():
    own = Selection(epsilon=1.0, sensitivity=1.0, picks=4)
    scores = [math.nan, -math.inf, 2.0, math.inf, 1.7e308, -1.7e308]
    for seed in range(20):
        chosen = own.choose(jax.random.key(seed), scores)
        assert chosen[0] == 4
        assert sorted(chosen[1:3]) == [2, 5]
        assert chosen[3] == 0
    nothing = own.choose(jax.random.key(0), [math.nan] * 5)
    assert nothing == (0, 1, 2, 3)


def test_shifts_of_all_scores_change_nothing():
    """As large as they may be: choices depend on differences."""
    own = Selection(epsilon=0.5, sensitivity=1.0, picks=2)
    scores = np.array([3.0, 1.0, 2.0, 0.0])
    for shift in (-(2.0**40), 2.0**40):
        for seed in range(50):
            key = jax.random.key(seed)
            assert own.choose(key, scores) == own.choose(
                jax.random.key(seed), scores + shift
            )


@pytest.mark.parametrize(
    ("scores", "error", "words"),
    [
        ([1.0], ValueError, "needed picks=2 candidates"),
        (3.0, ValueError, r"scores of shape \(\)"),
        ([[1.0, 2.0]], ValueError, r"needed \(candidates,\)"),
        (["a", "b"], TypeError, "scores=<U1: needed real numbers"),
        ([True, False], TypeError, "scores=bool"),
    ],
)
def test_what_are_no_scores(scores, error, words):
    with pytest.raises(error, match=words):
        Selection(epsilon=1.0, sensitivity=1.0, picks=2).choose(
            jax.random.key(0), scores
        )


@pytest.mark.parametrize("far", [2.1, 0.0, math.nan])
def test_a_replaced_record_moves_no_score_more_than_twice(far):
    with pytest.raises(ValueError, match="replaced_sensitivity"):
        Selection(epsilon=1.0, sensitivity=1.0, replaced_sensitivity=far)


def test_one_key_chooses_one_thing():
    own = Selection(epsilon=0.01, sensitivity=1.0)
    scores = np.zeros(1000)
    chosen = [own.choose(jax.random.key(seed), scores) for seed in range(30)]
    assert chosen == [own.choose(jax.random.key(seed), scores) for seed in range(30)]
    assert len(set(chosen)) > 20
    with pytest.raises(TypeError, match="key="):
        own.choose(jax.random.PRNGKey(0), scores)
