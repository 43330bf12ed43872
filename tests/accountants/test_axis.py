"""A calibration's values: seven digits or integers, rounded to the private side."""

import math

import pytest

from dpkit.accountants.readings.axis import FREE, Axis


@pytest.mark.parametrize("free", ["noise_multiplier", "sampling_rate"])
@pytest.mark.parametrize("value", [1e-3, 0.1, 0.9999999, 0.9999994, 0.25, 1.0])
def test_numbers_of_seven_digits_are_kept(free, value):
    axis = Axis.of(free, (1e-6, 1.0))
    assert axis.value(axis.place(value)) == value


@pytest.mark.parametrize(
    "value", [math.pi / 4, 1 / 3, 0.12345678, 0.99999999, 2e-7 / 3]
)
def test_others_are_rounded_to_the_private_side(value):
    noise, rate = Axis.of("noise_multiplier", None), Axis.of("sampling_rate", None)
    above, below = noise.value(noise.place(value)), rate.value(rate.place(value))
    assert below < value < above <= below * (1 + 2e-6)
    assert noise.value(noise.place(value) - 1) == below
    assert rate.value(rate.place(value) - 1) == above


def test_indices_grow_towards_privacy():
    assert [Axis.of("steps", (3, 9)).value(i) for i in (-9, -3)] == [9, 3]
    for free in FREE:
        axis = Axis.of(free, None)
        logs = [axis.log(i) for i in (axis.first, axis.middle, axis.last)]
        assert logs == sorted(logs)
        values = [axis.value(i) for i in (axis.first, axis.last)]
        assert (values[0] > values[1]) == axis.growing


def test_ends_are_rounded_inwards_and_kept_to():
    axis = Axis.of("noise_multiplier", (1 / 3, 2 / 3))
    assert axis.value(axis.first) == 0.3333334
    assert axis.value(axis.last) == 0.6666666
    assert axis.near(-100.0) == axis.first
    assert axis.near(100.0) == axis.last
    assert isinstance(Axis.of("steps", None).value(-1000), int)


@pytest.mark.parametrize("digits", range(1, 8))
def test_fewer_digits_are_rounded_to_the_private_side(digits):
    noise = Axis.of("noise_multiplier", None, digits)
    rate = Axis.of("sampling_rate", None, digits)
    for value in (math.pi / 4, 0.12345678, 1 / 3):
        above, below = noise.value(noise.place(value)), rate.value(rate.place(value))
        assert below < value < above
        assert float(f"{value:.{digits - 1}e}") in (above, below)
        assert noise.value(noise.place(value) - 1) == below
    assert noise.value(noise.place(1.0)) == 1.0


@pytest.mark.parametrize("digits", [0, 8, 2.5, True])
def test_digits_out_of_range_are_refused(digits):
    with pytest.raises((ValueError, TypeError), match="digits"):
        Axis.of("noise_multiplier", None, digits)
