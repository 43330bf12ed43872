"""Events that newer versions of dp-accounting have classes for, as we do."""

from types import SimpleNamespace

import attrs
import pytest
from dp_accounting import DpEvent

from dpkit.accountants import rdp, to_json, zcdp
from dpkit.accountants.events import (
    ApproxDpEvent,
    BoundedRangeDpEvent,
    DiscreteGaussianDpEvent,
    PureDpEvent,
    flatten,
    kinds,
    repeat,
)
from dpkit.accountants.readings.best import READINGS


def declared(name, **fields):
    made = attrs.make_class(
        name,
        {
            field: attrs.field(default=default) if default != () else attrs.field()
            for field, default in fields.items()
        },
        bases=(DpEvent,),
        frozen=True,
    )
    return made


DISCRETE = declared(
    "DiscreteGaussianDpEvent", sigma=(), sensitivity=1.0, dimension=None
)
APPROXIMATE = declared("EpsilonDeltaDpEvent", epsilon=(), delta=())
EXPONENTIAL = declared("ExponentialMechanismDpEvent", epsilon=())
FLIP = declared("PermuteAndFlipDpEvent", epsilon=())
PAIRS = [
    (DISCRETE(3.0, 2.0, 1), DiscreteGaussianDpEvent(3.0, 2)),
    (APPROXIMATE(0.5, 1e-7), ApproxDpEvent(0.5, 1e-7)),
    (EXPONENTIAL(0.5), BoundedRangeDpEvent(0.5)),
    (FLIP(0.5), PureDpEvent(0.5)),
]


@pytest.fixture(autouse=True)
def newer(monkeypatch):
    classes = (DISCRETE, APPROXIMATE, EXPONENTIAL, FLIP)
    module = SimpleNamespace(**{cls.__name__: cls for cls in classes})
    for cls, kind in kinds._newer(module):
        monkeypatch.setitem(kinds._BY_CLASS, cls, kind)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=repr)
def test_theirs_are_read_and_written_as_ours(theirs, ours):
    assert to_json(theirs) == to_json(ours)
    assert flatten(repeat(theirs, 3)) == [(ours, 3)]
    for reading in READINGS:
        supported = reading.supports(ours, "replace_one")
        assert reading.supports(theirs, "replace_one") == supported
        if supported:
            found, same = (
                reading.epsilon(event, 1e-5, relation="replace_one", lower=False)
                for event in (theirs, ours)
            )
            assert found == same


def test_no_name_stands_for_two_kinds():
    assert len(kinds.KINDS) == len({kind.name for kind in kinds._BY_CLASS.values()})


def test_permute_and_flip_is_not_of_bounded_range():
    # eps^2 / 2 against eps^2 / 8, at order 2 of a small epsilon.
    curve = rdp.rdp_curve(FLIP(0.01), [2.0], relation="zero_out")
    assert curve[0] == pytest.approx(1e-4, rel=1e-3)
    bound, ranged = (
        zcdp.epsilon(event, 1e-5, relation="zero_out").upper
        for event in (FLIP(0.5), EXPONENTIAL(0.5))
    )
    assert bound is not None and ranged is not None
    assert bound > 1.9 * ranged


@pytest.mark.parametrize("dimension", [None, 2])
def test_discrete_gaussians_in_unknown_dimensions_are_refused(dimension):
    with pytest.raises(ValueError, match="dimension"):
        to_json(DISCRETE(3.0, 1.0, dimension))


def test_a_discrete_gaussian_moves_by_whole_numbers():
    with pytest.raises(TypeError, match="sensitivity"):
        to_json(DISCRETE(3.0, 1.5, 1))
