"""One call: refused before it is charged, charged before it is drawn, charged once."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from dpkit.accountants import (
    Budget,
    BudgetExceeded,
    Incompatible,
    Ledger,
    delta_of,
)
from dpkit.density import Shard, curate, release, release_shards
from dpkit.density.shards import kept_rows
from dpkit.mechanisms.density import Gaussian, Kernel, SplineGrid, Structure
from tests.oracles import density as oracle

RNG = np.random.default_rng(0)
POINTS = RNG.normal(4, 1, (2_000, 1))
RELATIONS = ["add_remove", "replace_one", "zero_out"]
COST: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-6}


def opened(relation="add_remove", budget=(10.0, 1e-4)):
    """A ledger in memory."""
    return Ledger.open(
        None, budget=Budget(*budget), relation=relation, unit="row", dataset="toy"
    )


def kinds(ledger):
    """Of its entries, the first aside."""
    return [entry.kind for entry in ledger.entries()][1:]


def made(ledger=None, points=POINTS, seed=0, **settings):
    """A grid's release."""
    given: dict[str, Any] = {"bandwidth": 1.0, "domain": [(0, 9)], **COST, **settings}
    given.setdefault("key", jax.random.key(seed))
    return release(points, ledger=ledger, **given)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("delta", [1e-6, 0.0])
def test_a_release_is_one_entry_and_queries_are_none(relation, delta):
    ledger = opened(relation)
    out = made(ledger, delta=delta)
    assert kinds(ledger) == ["reserve", "commit"]
    head, spent = ledger.head, ledger.spent().upper
    for _ in range(3):
        out.query([[4.0]]), out.mean([[4.0]]), out.score_samples([[4.0]])
        out.sample(10, seed=0)
    assert (ledger.head, ledger.spent().upper) == (head, spent)
    assert out.facts["ledger_head"] == head
    assert out.facts["ledger"] == ledger.id
    assert 0.99 < out.facts["epsilon"] <= 1.0 + 1e-9
    # What it says is what the event says at this delta, under the ledger's relation.
    event = out.structure.event(relation)
    claimed = delta_of(event, 1.0, relation=relation).upper
    assert claimed is not None and claimed <= delta * (1 + 1e-6) + 1e-12
    made(ledger, delta=delta, seed=1)
    assert kinds(ledger) == ["reserve", "commit"] * 2


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("kernel", ["gaussian", "l1", "l2", "l2_squared"])
def test_noise_is_calibrated_to_what_a_record_moves(relation, kernel):
    """By the Gaussian's curve, with the reach of the relation: not looser by 1 %."""
    more = {"bandwidth": None} if kernel != "gaussian" else {}
    out = made(opened(relation), kernel=kernel, **more)
    reach, own = out.structure.reach, out.structure
    moved = reach.l2_replaced if relation == "replace_one" else reach.l2
    delta = oracle.gaussian_delta(own.stddev / moved, 1.0)
    assert 0.95e-6 < delta <= 1e-6 * (1 + 1e-6)


# What is refused, and the name that the message has.
REFUSED = [
    ({"epsilon": 0.0}, "epsilon"),
    ({"epsilon": -1.0}, "epsilon"),
    ({"epsilon": math.nan}, "epsilon"),
    ({"epsilon": math.inf}, "epsilon"),
    ({"epsilon": "1"}, "epsilon"),
    ({"delta": 1.0}, "delta"),
    ({"delta": -1e-9}, "delta"),
    ({"delta": math.nan}, "delta"),
    ({"epsilon": 1e-16, "delta": 0.0}, "noise"),
    ({"bandwidth": 0.0}, "bandwidth"),
    ({"bandwidth": -1.0}, "bandwidth"),
    ({"bandwidth": math.inf}, "bandwidth"),
    ({"bandwidth": math.nan}, "bandwidth"),
    ({"bandwidth": None}, "bandwidth is missing"),
    ({"bandwidth": "scott"}, "would be computed from the private points"),
    ({"bandwidth": "Silverman"}, "would be computed from the private points"),
    ({"bandwidth": "median"}, "would be computed from the private points"),
    ({"bandwidth": "1.0"}, "not text"),
    ({"domain": "auto"}, "would be computed from the private points"),
    ({"domain": "minmax"}, "would be computed from the private points"),
    ({"domain": [(9, 0)]}, "domain"),
    ({"domain": [(0, 0)]}, "domain"),
    ({"domain": [(0, math.inf)]}, "domain"),
    ({"domain": [(math.nan, 1)]}, "domain"),
    ({"domain": [(-1e308, 1e308)]}, "domain"),
    ({"domain": [(0, 9), (0, 9)]}, "domain has 2 axes"),
    ({"domain": [0, 9]}, "domain"),
    ({"domain": None, "structure": "spline"}, "domain is missing"),
    ({"domain": None, "kernel": "l1", "bandwidth": None}, "domain is missing"),
    ({"structure": "spline", "bandwidth": 1e-7}, "nodes"),
    ({"structure": "tree"}, "structure"),
    ({"kernel": "tricube"}, "kernel"),
    ({"kernel": "lp", "bandwidth": None}, "power"),
    ({"kernel": "lp", "bandwidth": None, "power": 2.5}, "power"),
    ({"kernel": "lp", "bandwidth": None, "power": 0.5}, "power"),
    ({"power": 1.5}, "power"),
    ({"kernel": "l1"}, "bandwidth"),
    ({"structure": "sketch", "features": 0}, "features"),
    ({"structure": "sketch", "features": 7}, "features"),
    ({"structure": "sketch", "features": 2.0}, "features"),
    ({"feature_seed": jax.random.key(0)}, "secret key belongs to the noise"),
    ({"feature_seed": -1}, "feature_seed"),
    ({"landmarks": [[1.0]]}, "landmarks_public"),
    ({"landmarks": [[1.0], [1.0]], "landmarks_public": True}, "there twice"),
    ({"landmarks": [[math.nan]], "landmarks_public": True}, "landmarks"),
    ({"landmarks": [[1.0, 2.0]], "landmarks_public": True}, "landmarks of shape"),
    ({"structure": "landmarks"}, "landmarks is missing"),
    ({"records": 0}, "records"),
    ({"weights": np.ones(2_000)}, "max_weight is missing"),
    ({"max_weight": 2.0}, "weights is missing"),
    ({"weights": np.ones(2_000), "max_weight": 0.0}, "max_weight"),
    ({"weights": np.ones(2_000), "max_weight": math.inf}, "max_weight"),
    ({"weights": np.ones(3), "max_weight": 1.0}, "weights of shape"),
    ({"unit_ids": np.ones(2_000)}, "points_per_unit is missing"),
    ({"unit_ids": np.ones(3), "points_per_unit": 2}, "unit_ids of shape"),
    ({"unit_ids": np.ones(2_000), "points_per_unit": 0}, "points_per_unit"),
    ({"relation": "neighbours"}, "relation"),
    ({"relation": "replace_one"}, "the ledger counts add_remove"),
    ({"key": jax.random.PRNGKey(0)}, "key="),
    ({"key": 3}, "key="),
    ({"points": POINTS[:, 0]}, "points of shape"),
    ({"points": POINTS[None]}, "points of shape"),
    ({"points": POINTS > 3}, "points="),
    ({"points": POINTS + 1j}, "points="),
    ({"points": [["a"]]}, "points="),
    ({"points": 3.0}, "points"),
    ({"points": iter([POINTS])}, "dimension is missing"),
    ({"points": POINTS, "dimension": 2}, "points of shape"),
    (
        {
            "points": iter([POINTS]),
            "dimension": 1,
            "weights": np.ones(9),
            "max_weight": 1.0,
        },
        "weights with points in batches",
    ),
    (
        {
            "points": iter([POINTS]),
            "dimension": 1,
            "unit_ids": np.ones(9),
            "points_per_unit": 1,
        },
        "unit_ids with points in batches",
    ),
    ({"label": ""}, "label"),
]


@pytest.mark.parametrize(
    ("settings", "said"), REFUSED, ids=[f"{i}-{m}" for i, (_, m) in enumerate(REFUSED)]
)
def test_what_is_refused_costs_nothing(settings, said, monkeypatch):
    """And touches no row: none of the sums' code is reached."""

    def never(*given):
        raise AssertionError("private rows were read")

    monkeypatch.setattr(Structure, "total", never)
    monkeypatch.setattr(Structure, "privatize", never)
    ledger = opened()
    with pytest.raises((ValueError, TypeError, Incompatible), match=said):
        made(ledger, **settings)
    assert kinds(ledger) == []


def test_a_ledger_that_can_not_pay_is_asked_before_anything_is_drawn(monkeypatch):
    ledger = opened(budget=(1.5, 1e-6))
    made(ledger)
    monkeypatch.setattr(Structure, "total", None)
    monkeypatch.setattr(Structure, "privatize", None)
    head = ledger.head
    with pytest.raises(BudgetExceeded):
        made(ledger, seed=1)
    shard = Shard(GRID)
    with pytest.raises(BudgetExceeded):
        release_shards(shard, ledger=ledger, key=jax.random.key(1))
    assert not shard._released
    with pytest.raises(BudgetExceeded):
        curate(POINTS, bandwidth=1.0, **COST, ledger=ledger, key=jax.random.key(2))
    assert ledger.head == head


GRID = SplineGrid(kernel=Kernel("gaussian", 1.0), domain=((0, 9),), noise=Gaussian(4.3))


@pytest.mark.parametrize(
    "error", [OSError, ValueError, KeyboardInterrupt, ZeroDivisionError]
)
def test_a_file_that_breaks_off_gives_everything_back(error):
    def batches():
        yield POINTS[:100]
        raise error("broken")

    ledger = opened()
    with pytest.raises(error):
        made(ledger, points=batches(), dimension=1)
    assert kinds(ledger) == []
    assert ledger.spent().upper == 0
    with pytest.raises(ValueError, match="points of shape"):
        made(ledger, points=iter([POINTS, np.ones((3, 2))]), dimension=1)
    assert ledger.spent().upper == 0


def test_batches_are_read_once_and_in_any_size():
    read = []

    def batches():
        for part in np.array_split(POINTS, 7):
            read.append(len(part))
            yield part

    whole = made()
    parts = made(points=batches(), dimension=1)
    np.testing.assert_array_equal(whole.values, parts.values)
    assert sum(read) == 2_000


def test_rows_that_are_none_are_silent():
    bad = np.array([[math.nan], [math.inf], [-math.inf]])
    spoiled = np.concatenate([POINTS, bad])
    np.testing.assert_array_equal(made().values, made(points=spoiled).values)
    only = made(points=bad)  # nobody, and no error
    np.testing.assert_array_equal(only.values, made(points=POINTS[:0]).values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.float16, np.float32])
def test_whole_numbers_of_every_type_are_as_they_are(dtype):
    """Nothing wraps around: not 0 - 5 of unsigned ones, nor 120 + 120 of bytes."""
    points = np.array([[0], [5], [120], [7]]).astype(dtype)
    kw = {"domain": [(-100, 150)], "bandwidth": 20.0}
    plain = made(points=points.astype(np.float64), **kw)
    np.testing.assert_array_equal(plain.values, made(points=points, **kw).values)


def test_weights_are_cut_to_their_limit():
    weights = np.concatenate([np.full(1_000, 0.5), np.full(1_000, 9.0)])
    weights[0], weights[1], weights[2] = -4.0, math.nan, 1e39
    cut = weights.clip(0, 2)
    cut[1] = 0
    one, other = (made(weights=w, max_weight=2.0) for w in (weights, cut))
    np.testing.assert_array_equal(one.values, other.values)
    count = one.count
    assert abs(count.values[0] - cut.sum()) < 5 * count.stddev[0]
    truth = (cut * np.exp(-((POINTS[:, 0] - 4.0) ** 2))).sum()
    found = one.query([[4.0]])
    assert abs(found.values[0] - truth) < 5 * found.stddev[0] + found.bias_bound[0]
    plain = made().query([[4.0]]).stddev[0]
    assert found.stddev[0] == pytest.approx(2 * plain, rel=0.01)


def test_a_unit_with_many_rows_moves_the_sum_within_the_reach():
    """Two data sets that differ in one unit of ten rows, all at one spot."""
    ids = np.repeat(np.arange(500), 4)[:2_000]
    other = np.concatenate([POINTS, np.full((10, 1), 6.0)])
    more = np.concatenate([ids, np.full(10, 999)])
    totals = {}

    def spied(self, key, total):
        totals[len(totals)] = total
        return total * self.step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Structure, "privatize", spied)
        out = made(unit_ids=ids, points_per_unit=4)
        made(points=other, unit_ids=more, points_per_unit=4)
    moved = (totals[1] - totals[0]) * out.structure.step
    reach = out.structure.reach
    assert 0.99 * reach.l1 < np.abs(moved).sum() <= reach.l1
    assert 0.9 * reach.l2 < np.linalg.norm(moved) <= reach.l2
    assert reach.l2 == pytest.approx(4 * GRID.reach.l2, rel=0.2)


def test_rows_of_a_unit_are_kept_at_random_and_no_more_than_told():
    ids = RNG.choice(list("abcdef"), 300)
    seen = np.zeros(300)
    for seed in range(200):
        kept = kept_rows(ids, 5, np.random.default_rng(seed))
        assert (np.diff(kept) > 0).all()
        assert set(np.unique(ids[kept], return_counts=True)[1]) == {5}
        seen[kept] += 1
    # Each row of a unit as often as another: chi-squared within 6 deviations.
    for unit in "abcdef":
        own = seen[ids == unit]
        expected = 200 * 5 / len(own)
        statistic = ((own - expected) ** 2 / expected).sum()
        assert statistic < len(own) + 6 * math.sqrt(2 * len(own))
    np.testing.assert_array_equal(
        kept_rows(ids, 300, np.random.default_rng(0)), np.arange(300)
    )
    assert len(kept_rows([], 3, np.random.default_rng(0))) == 0


def test_two_budgets_look_different():
    answers = [made(epsilon=e).query([[4.0], [1.0]]) for e in (0.5, 4.0)]
    assert (answers[0].stddev > 4 * answers[1].stddev).all()


def test_keys():
    first, again, other = made(), made(), made(seed=1)
    np.testing.assert_array_equal(first.values, again.values)
    assert (first.values != other.values).all()
    drawn = [made(key=None).values for _ in range(2)]  # from the operating system
    assert (drawn[0] != drawn[1]).all()


def test_a_ledger_of_its_own():
    out = made()
    assert out.facts["relation"] == "add_remove"
    assert out.facts["delta"] == 1e-6
    replaced = made(relation="replace_one")
    # The Gaussian doubles, splines take sqrt(2) of that.
    ratio = replaced.query([[4.0]]).stddev[0] / out.query([[4.0]]).stddev[0]
    assert ratio == pytest.approx(math.sqrt(2), rel=0.1)


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_curator_is_one_entry(relation):
    ledger = opened(relation)
    given: dict[str, Any] = {"bandwidth": 1.0, **COST, "ledger": ledger}
    curator = curate(POINTS, key=jax.random.key(0), **given)
    assert kinds(ledger) == ["reserve", "commit"]
    curator.query([[4.0], [5.0]])
    curator.query([[4.0]])
    assert kinds(ledger) == ["reserve", "commit"]
    event = curator.mechanism.event(relation)
    claimed = delta_of(event, 1.0, relation=relation).upper
    assert claimed is not None and claimed <= 1e-6 * (1 + 1e-6)
    expected = 4.22467889 * (math.sqrt(2) if relation == "replace_one" else 1)
    assert curator.mechanism.stddev == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"key": jax.random.PRNGKey(0)}, "key="),
        ({"key": 0}, "key="),
        ({"bandwidth": 0.0}, "bandwidth"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"delta": 0.0}, "delta"),
        ({"max_queries": 0}, "max_queries"),
        ({"kernel": "l1"}, "kernel"),
        ({"relation": "replace_one"}, "the ledger counts"),
        ({"points": POINTS[:, 0]}, "points of shape"),
    ],
)
def test_a_curator_that_is_refused_costs_nothing(settings, said):
    ledger = opened()
    given: dict[str, Any] = {
        "points": POINTS,
        "bandwidth": 1.0,
        **COST,
        "ledger": ledger,
        **settings,
    }
    given.setdefault("key", jax.random.key(0))
    with pytest.raises((ValueError, TypeError, Incompatible), match=said):
        curate(given.pop("points"), **given)
    assert kinds(ledger) == []
