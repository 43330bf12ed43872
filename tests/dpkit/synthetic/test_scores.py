"""Scores by hand, and attacks that must and must not succeed."""

import itertools

import numpy as np
import pytest

from dpkit.data.codes import Codebook
from dpkit.synthetic import attacks
from dpkit.synthetic.evaluation import evaluate
from dpkit.synthetic.scores import (
    floor,
    impossible,
    scores,
    transfer,
    variation,
    vendi,
    vendi_of,
)

pytestmark = [pytest.mark.guard, pytest.mark.slow]

SIZES = (3, 4, 2)


def rows(count, seed):
    generator = np.random.default_rng(seed)
    return np.stack([generator.integers(0, s, count) for s in SIZES], axis=1)


def by_hand(real, made, family):
    """Total variation, cell by cell."""
    total = 0.0
    for cell in itertools.product(*(range(SIZES[n]) for n in family)):
        shares = [
            np.mean([tuple(row[list(family)]) == cell for row in table])
            for table in (real, made)
        ]
        total += abs(shares[0] - shares[1]) / 2
    return total


def test_scores_by_hand():
    real, made = rows(60, 0), rows(40, 1)
    found = scores(real, made, SIZES)
    pairs = [by_hand(real, made, p) for p in itertools.combinations(range(3), 2)]
    assert found.pairs == pytest.approx(float(sum(pairs)) / len(pairs))
    assert found.worst_pair == pytest.approx(max(pairs))
    assert found.triples == pytest.approx(by_hand(real, made, (0, 1, 2)))
    singles = [by_hand(real, made, (n,)) for n in range(3)]
    assert found.columns == pytest.approx(float(sum(singles)) / 3)
    held = {
        p: {tuple(row[list(p)]) for row in real}
        for p in itertools.combinations(range(3), 2)
    }
    bad = [any(tuple(row[list(p)]) not in held[p] for p in held) for row in made]
    assert found.impossible == pytest.approx(np.mean(bad))
    assert impossible(real, made, SIZES) == found.impossible
    assert variation(real, real, (0, 1, 2), SIZES) == 0


def test_the_floor_of_one_column():
    real = np.repeat([0, 1, 2], [500, 300, 200])[:, None]
    found = [floor(real, (3,), 100, seed=seed).columns for seed in range(400)]
    # A deviation of .0290 over 400 draws: six standard errors are .0087.
    assert np.mean(found) == pytest.approx(0.05419, abs=0.0087)


def test_vendi_by_both_routes():
    assert vendi_of(np.eye(5) / 5) == pytest.approx(5)
    assert vendi_of(np.ones((4, 4)) / 4) == pytest.approx(1)
    near = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]]) / 3
    assert vendi_of(near) == pytest.approx(2.1249789526)
    assert vendi_of(near, order=2.0) == pytest.approx(1.9067796610)
    table = rows(50, 2)
    alike = (table[:, None] == table[None]).mean(axis=2) / 50
    assert vendi(table, SIZES) == pytest.approx(vendi_of(alike))
    for wrong in (np.eye(3), np.array([[0.5, 0.9], [0.9, 0.5]])):
        with pytest.raises(ValueError, match="kernel"):
            vendi_of(wrong)


def test_a_classifier_learns_what_is_there():
    generator = np.random.default_rng(0)
    real = generator.integers(0, 4, (3000, 3))
    real[:, 2] = (real[:, 0] + real[:, 1] > 3) ^ (generator.random(3000) < 0.1)
    made, held_out = real[:1000], real[1000:2000]
    found = transfer(real[2000:], made, held_out, 2)
    assert found.auc > 0.85 and found.real_auc > 0.85
    noise = made.copy()
    noise[:, 2] = generator.permutation(noise[:, 2])
    assert transfer(real[2000:], noise, held_out, 2).auc < 0.7
    with pytest.raises(ValueError, match="two classes"):
        transfer(real, made, held_out, 0)
    third = made.copy()
    third[:, 2] += 1
    third[:30, 2] = 0  # a class that no held-out row has
    later = held_out + np.array([0, 0, 1])
    assert transfer(third, third, later, 2).auc > 0.85


WIDE = Codebook.of(
    {f"x{n}": {"kind": "ordinal", "low": 0, "high": 19} for n in range(6)}
)


def many(count, seed):
    return np.random.default_rng(seed).integers(0, 20, (count, 6))


def test_a_copy_is_found_out_by_every_attack():
    train, others = many(600, 0), many(600, 1)
    found = attacks.attacked(train, train.copy(), others, WIDE)
    assert found["exact_matches"] == 1 and found["exact_matches_held_out"] < 0.01
    assert found["nearer_to_train"] > 0.99
    assert found["membership_auc"] > 0.99
    for name in ("singling_out", "linkability", "inference"):
        assert found[f"{name}_low"] > 0.3, name


def test_a_copy_is_found_out_whatever_the_size_of_the_control():
    train = many(2400, 0)
    for control in (600, 2400, 4800):
        found = attacks.attacked(train, train.copy(), many(control, 1), WIDE)
        assert found["singling_out_members"] == 1, control
        assert found["singling_out_low"] > 0.9, control


@pytest.mark.parametrize("control", [600, 4800])
def test_fresh_rows_show_nothing_beside_a_control_of_another_size(control):
    """The lower ends of 95 % intervals of both shares: above 0 in 1 of 300."""
    found = attacks.attacked(many(2400, 0), many(2400, 2), many(control, 1), WIDE)
    assert found["singling_out_low"] == 0


def test_fresh_rows_show_nothing():
    """The lower ends of 95 % intervals of both shares: above 0 in 1 of 300, each."""
    found = attacks.attacked(many(600, 0), many(600, 2), many(600, 1), WIDE)
    assert 0.4 < found["nearer_to_train"] < 0.6
    assert 0.44 < found["membership_auc"] < 0.56
    for name in ("singling_out", "linkability", "inference"):
        assert found[f"{name}_low"] == 0, name


def test_an_interval_of_wilson():
    assert attacks.wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-5)
    assert attacks.wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)


def test_everything_at_once():
    names = list(WIDE.names)
    tables = [dict(zip(names, many(300, s).T, strict=True)) for s in range(3)]
    found = evaluate(tables[0], tables[1], WIDE, held_out=tables[2])
    assert 0 < found["floor_pairs"] < found["pairs"] < 1
    assert found["linkability_low"] == 0
    with pytest.raises(ValueError, match="rows"):
        evaluate(tables[0], {name: np.zeros(0, int) for name in names}, WIDE)
