"""Numbers rounded to the safe side, and what the sentences promise."""

import math

import pytest

from dpkit.report import words

RESULT = {
    "epsilon": 2.0,
    "certified": True,
    "delta": 1e-5,
    "relation": "add_remove",
    "unit": "example",
    "accountant": "pld",
    "sampling": "poisson",
    "sampling_rate": 0.01,
    "max_batch_size": 700,
    "evaluation": "public",
}


@pytest.mark.parametrize(
    "value, side, expected",
    [
        (2.99911, "up", "3"),
        (2.99911, "down", "2.999"),
        (2.9991, "nearest", "2.999"),
        (0.0001234567, "up", "0.0001235"),
        (1e-5, "nearest", "1e-5"),
        (1.23456e-9, "up", "1.235e-9"),
        (12345678.0, "down", "1.234e7"),
        (60000.0, "nearest", "60000"),
        (0.0, "up", "0"),
        (math.inf, "up", "infinite"),
        (math.nan, "up", "unknown"),
    ],
)
def test_number(value, side, expected):
    assert words.number(value, side=side) == expected


def test_an_upper_bound_is_never_shown_below_itself():
    for i in range(1, 2000):
        value = i / 617
        assert float(words.number(value, side="up")) >= value
        assert float(words.number(value, side="down")) <= value


def test_delta_is_never_shown_below_itself():
    """(epsilon, delta) holds for a larger delta too, and not for a smaller one."""
    result = {**RESULT, "delta": 1.00049e-5}
    assert "delta = 1.001e-5" in words.headline(result)
    assert "delta = 1.001e-5" in " ".join(words.guarantee(result))


@pytest.mark.parametrize("value", [None, "x", math.nan, [], {}])
def test_no_number(value):
    assert words.as_float(value) is None


def test_power_of_a_test_at_closed_forms():
    # (0, 0): nothing is learned, so the true positive rate is the false positive rate.
    assert words.most_recognised(0.0, 0.0, 0.25) == pytest.approx(0.25)
    # e^1 * 0.01 = 0.0271828; the other branch is far above.
    assert words.most_recognised(1.0, 0.0, 0.01) == pytest.approx(math.e / 100)
    # At x = 0.9 the second branch binds: 1 - e^-1 * 0.1.
    assert words.most_recognised(1.0, 0.0, 0.9) == pytest.approx(1 - 0.1 / math.e)
    assert words.most_recognised(0.0, 0.125, 0.25) == pytest.approx(0.375)
    assert words.most_recognised(math.inf, 0.0, 0.01) == 1.0
    assert words.most_recognised(800.0, 0.0, 0.0) == 1.0


def test_the_bound_covers_a_gaussian_test():
    # N(0,1) against N(1,1), 0.01 false positives: TPR = Phi(Phi^-1(0.01) + 1), which
    # is 0.0923622; that pair is (4.3771781, 1e-5)-private (Balle, Wang 2018,
    # arXiv:1805.06530, Theorem 8, solved with mpmath).
    assert words.most_recognised(4.3771781, 1e-5, 0.01) > 0.0923622


def test_certified_headline_has_all_parts():
    text = words.headline(RESULT)
    assert text == (
        "epsilon ≤ 2 at delta = 1e-5, to add or remove one example (certified: pld)"
    )


@pytest.mark.parametrize("certified", [False, None, 0])
def test_an_uncertified_number_is_called_an_estimate(certified):
    result = {**RESULT, "certified": certified}
    assert "estimate" in words.headline(result)
    assert "certified: pld" not in words.headline(result)
    assert "estimate" in " ".join(words.guarantee(result))


@pytest.mark.parametrize("epsilon", ["inf", math.inf, None])
def test_infinite_epsilon_is_no_guarantee(epsilon):
    result = {**RESULT, "epsilon": epsilon}
    assert words.headline(result).startswith("no privacy")
    assert len(words.guarantee(result)) == 1


def test_a_fixed_seed_is_said_first():
    text = words.headline({**RESULT, "insecure_seed": True})
    assert text.startswith("no privacy: a fixed seed")


@pytest.mark.parametrize(
    "relation, part",
    [
        ("add_remove", "missing from the other"),
        ("replace_one", "any other user"),
        ("zero_out", "empty record"),
    ],
)
def test_each_relation_has_its_own_words(relation, part):
    text = " ".join(words.guarantee({**RESULT, "relation": relation, "unit": "user"}))
    assert part in text
    assert "example" not in text


def test_the_guarantee_names_what_it_rests_on():
    text = " ".join(words.guarantee(RESULT))
    for part in (
        "every intermediate one",
        "its own coin toss (probability 0.01)",
        "larger than 700",
        "exp(epsilon) = 7.39 times",  # e^2 = 7.38906, rounded up
        "delta = 1e-5",
        "accountant pld",
    ):
        assert part in text


def test_unknown_sampling_is_not_dressed_up():
    text = words.sampling_in_words({"sampling": "stratified", "max_batch_size": 3})
    assert text == "sampling stratified"


def test_what_is_not_covered():
    public, private = (
        " ".join(words.not_covered({**RESULT, "evaluation": kind}))
        for kind in ("public", "private")
    )
    for part in (
        "Hyper-parameter search",
        "Preparation that looked at the private rows",
        "Floating-point",
        "choices",
    ):
        assert part in public
        assert part in private
    assert "declared public" in public
    assert "declared public" not in private
