"""Numbers rounded to the safe side, and what a test of membership can reach."""

import math

import pytest

from dpkit.report import words


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
