"""The classifier: scikit-learn's own checks, its privacy, its files, its accuracy."""

import pickle
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks

from dpkit import Budget, BudgetExceeded, Ledger
from dpkit.density import Classifier, curate, load, release
from dpkit.density.releasing import noise_key
from dpkit.mechanisms.density import ClassSums, Gaussian

checks: Any = parametrize_with_checks
FORBIDDEN = {
    "check_classifiers_classes": "classes are public, and not learnt from labels",
    "check_classifiers_train": "classes are public, and not learnt from labels",
    "check_dtype_object": "a private cell that is no number is silent",
    "check_estimators_pickle": "a private NaN is silent, and a public one refused",
}


@checks(
    [
        Classifier(
            classes=[-1, 0, 1, 2, 3],
            epsilon=1e6,
            delta=0.5,
            kernel="linear",
            key=jax.random.key(0),
        )
    ],
    expected_failed_checks=lambda estimator: FORBIDDEN,
)
def test_it_is_an_estimator(estimator, check):
    check(estimator)


def rows(count=400, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=count)
    return rng.normal(size=(count, 6)) + 3 * np.eye(6)[y], y


def new_ledger(**budget):
    terms = {"relation": "add_remove", "unit": "record", "dataset": "toy"}
    return Ledger.open(None, budget=Budget(**budget), **terms)


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": None},
        {"classes": [1]},
        {"classes": ["a", "b", "c"]},
        {"classes": [0, 1]},
        {"epsilon": None},
        {"epsilon": 0.0},
        {"epsilon": float("nan")},
        {"delta": None},
        {"delta": 1.0},
        {"kernel": "cosine"},
        {"bandwidth": 0.0, "kernel": "gaussian"},
        {"features": 7, "kernel": "gaussian"},
        {"feature_seed": jax.random.key(0), "kernel": "gaussian"},
        {"unknown": "drop"},
        {"relation": "replace_one"},
    ],
    ids=str,
)
def test_a_refusal_costs_nothing(wrong):
    X, y = rows()
    good = {"classes": [0, 1, 2], "epsilon": 1.0, "delta": 1e-6, "kernel": "linear"}
    with new_ledger(epsilon=1.0, delta=1e-6) as ledger:
        before = len(ledger.entries())
        settings: Any = {**good, **wrong}
        model = Classifier(**settings, ledger=ledger)
        with pytest.raises((ValueError, TypeError)):
            model.fit(X, y)
        assert len(ledger.entries()) == before


def test_fit_is_charged_once_and_predictions_never():
    X, y = rows()
    with new_ledger(epsilon=1.0, delta=1e-6) as ledger:
        model = Classifier(
            classes=[0, 1, 2], epsilon=1.0, delta=1e-6, kernel="linear", ledger=ledger
        ).fit(X, y)
        entries = ledger.entries()
        assert model.score(X, y) > 0.8
        assert ledger.entries() == entries
        assert [e.body["label"] for e in entries if e.kind == "reserve"] == [
            "classifier"
        ]
        with pytest.raises(BudgetExceeded):
            model.fit(X, y)


def test_a_row_without_a_number_counts_for_none():
    X, y = rows()
    spoiled = np.concatenate([X, np.full((1, 6), np.nan)])
    labels = np.concatenate([y, [0]])
    made = [
        Classifier(
            classes=[0, 1, 2],
            epsilon=1.0,
            delta=1e-6,
            kernel="linear",
            key=jax.random.key(0),
        ).fit(*pair)
        for pair in ((X, y), (spoiled, labels))
    ]
    first, second = (model.release_.values for model in made)
    assert first.tobytes() == second.tobytes()
    with pytest.raises(ValueError, match="NaN"):
        made[0].predict(spoiled)


def test_a_label_that_is_no_class_counts_for_none_if_that_is_said():
    X, y = rows()
    options = {"epsilon": 1.0, "delta": 1e-6, "kernel": "linear"}
    key = jax.random.key(0)
    some = Classifier(classes=[0, 1], unknown="ignore", key=key, **options).fit(X, y)
    known = y < 2
    none = Classifier(classes=[0, 1], key=key, **options).fit(X[known], y[known])
    assert some.release_.values.tobytes() == none.release_.values.tobytes()


def test_a_copied_key_has_other_noise_on_other_rows():
    """Two fits with one key: the difference of what is published is not exact."""
    X, y = rows()
    model = Classifier(
        classes=[0, 1, 2],
        epsilon=1.0,
        delta=1e-6,
        kernel="linear",
        key=jax.random.key(0),
    )
    first = model.fit(X, y).release_
    second = clone(model).fit(X[1:], y[1:]).release_
    again = clone(model).fit(X, y).release_
    assert first.values.tobytes() == again.values.tobytes()
    moved = np.abs(first.values - second.values)
    assert (moved > 2 * first.structure.step).all()
    # sqrt(2) times one noise; below half of one with probability below 1e-9.
    assert np.sqrt(np.mean(moved**2)) > first.structure.stddev / 2


def test_a_key_is_not_shown():
    options = {"classes": [0, 1], "epsilon": 1.0, "delta": 1e-6}
    shown = Classifier(**options, key=jax.random.key(74205361))
    for text in (repr(shown), str(shown), str(shown._repr_mimebundle_())):
        assert "74205361" not in text
        assert "key=<secret>" in text
    assert not hasattr(shown, "_repr_html_")


def test_noise_keys_depend_on_key_and_sum():
    key, other = jax.random.key(0), jax.random.key(1)
    totals = np.zeros(3, np.int64), np.array([0, 0, 1])
    words = {
        jax.random.key_data(noise_key(k, name, t)).tobytes()
        for k in (key, other)
        for name in (b"one", b"two")
        for t in totals
    }
    assert len(words) == 8


def test_a_key_used_at_two_scales_has_two_noises():
    """Else sums would follow from two releases: (s2 v1 - s1 v2) / (s2 - s1)."""
    points, key = np.ones((100, 1)), jax.random.key(0)
    options: Any = {"bandwidth": 1.0, "domain": [(0, 9)], "delta": 1e-6, "key": key}
    made: Any = [release(points, epsilon=e, **options) for e in (1.0, 2.0)]
    one, two = made
    small, large = two.structure.stddev, one.structure.stddev
    assert one.structure.shape == two.structure.shape
    solved = (large * two.values - small * one.values) / (large - small)
    exact = one.structure.total(points) * one.structure.step
    assert np.abs(solved - exact).max() > small

    path = [
        curate(points, bandwidth=1.0, epsilon=e, delta=1e-6, key=key) for e in (1, 2)
    ]
    first, second = (float(p.query([[1.0]]).values[0]) for p in path)
    small, large = path[1].mechanism.stddev, path[0].mechanism.stddev
    assert abs((large * second - small * first) / (large - small) - 100) > 1e-3


def test_a_copy_that_is_saved_has_neither_key_nor_ledger():
    X, y = rows()
    with new_ledger(epsilon=2.0, delta=1e-6) as ledger:
        model = Classifier(
            classes=[0, 1, 2],
            epsilon=1.0,
            delta=1e-6,
            kernel="linear",
            ledger=ledger,
            key=jax.random.key(0),
        ).fit(X, y)
        again = pickle.loads(pickle.dumps(model))
        assert again.key is None
        assert again.ledger is None
        assert (again.predict(X) == model.predict(X)).all()
        assert clone(model).ledger is ledger  # so a fit of it is charged too


def test_a_ledger_of_users_is_told_how_many_rows_one_has():
    X, y = rows()
    terms = {"relation": "add_remove", "unit": "user", "dataset": "toy"}
    options = {"classes": [0, 1, 2], "epsilon": 1.0, "delta": 1e-6, "kernel": "linear"}
    with Ledger.open(None, budget=Budget(1.0, 1e-6), **terms) as ledger:
        with pytest.raises(ValueError, match="points_per_unit is missing"):
            Classifier(**options, ledger=ledger).fit(X, y)
        model = Classifier(**options, ledger=ledger, points_per_unit=5).fit(X, y)
    single = Classifier(**options).fit(X, y).release_.structure.stddev
    assert model.release_.structure.stddev == pytest.approx(5 * single)


def test_it_is_saved_and_read_again(tmp_path):
    X, y = rows()
    names = np.array(["cat", "dog", "owl"])
    model = Classifier(classes=list(names), epsilon=1.0, delta=1e-6, features=200).fit(
        X, names[y]
    )
    model.release_.save(tmp_path / "c.safetensors")
    again = Classifier.load(tmp_path / "c.safetensors")
    assert (again.predict(X) == model.predict(X)).all()
    assert load(tmp_path / "c.safetensors").facts["classes"] == ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("relation", "factor"), [("add_remove", 1.0), ("replace_one", 2 / 1.09**0.5)]
)
def test_the_noise_is_for_the_relation(relation, factor):
    """A replaced record moves the table by 2, an added one by sqrt(1 + .3^2)."""
    X, y = rows()
    model = Classifier(
        classes=[0, 1, 2], epsilon=1.0, delta=1e-6, kernel="linear", relation=relation
    ).fit(X, y)
    table = model.release_.structure
    # sigma(1, 1e-6), times the reach, halved since accountants double it.
    halved = factor if relation == "add_remove" else factor / 2 * 2
    expected = 4.22467889 * 1.09**0.5 * halved
    assert table.stddev == pytest.approx(expected, rel=1e-3)


def test_the_table_matches_a_loop():
    X, y = rows(50)
    table = ClassSums(classes=3, dimension=6, noise=Gaussian(1.0))
    sums, counts = table.table(table.total({"points": X, "labels": y}) * table.step)
    units = X / np.linalg.norm(X, axis=1, keepdims=True)
    expected = np.stack([units[y == c].sum(axis=0) for c in range(3)])
    np.testing.assert_allclose(sums, expected, atol=1e-3)
    np.testing.assert_allclose(counts, np.bincount(y), atol=1e-3)


@pytest.mark.slow
def test_digits_reach_what_is_claimed():
    """Goals .88 at epsilon 1, .92 at 2; over ten splits the mean is within .006."""
    X, y = load_digits(return_X_y=True)
    for epsilon, goal in ((1.0, 0.875), (2.0, 0.914)):
        scores = []
        for seed in range(10):
            order = np.random.default_rng(seed).permutation(len(X))
            train, test = order[360:], order[:360]
            model = Classifier(
                classes=range(10), epsilon=epsilon, delta=1e-5, key=jax.random.key(seed)
            ).fit(X[train], y[train])
            scores.append(model.score(X[test], y[test]))
        assert np.mean(scores) > goal
