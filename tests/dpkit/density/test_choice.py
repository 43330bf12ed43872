"""Which structure: by what is public, and how far from the floor it says it is."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from dpkit.accountants import PureDpEvent
from dpkit.density import choose
from dpkit.mechanisms.density import Gaussian, Laplace, Radial

BOX = [(0.0, 9.0)]
COST = {"epsilon": 1.0, "delta": 1e-6, "relation": "add_remove"}
SMOOTH = {"kernel": "gaussian", "bandwidth": 1.0}


def chosen(dimension=1, **settings):
    given: dict[str, Any] = {**COST, **settings}
    return choose(dimension, **given)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({**SMOOTH, "domain": BOX}, "SplineGrid"),
        ({**SMOOTH, "domain": BOX, "delta": 0.0}, "SplineGrid"),
        ({**SMOOTH, "domain": BOX * 2, "dimension": 2}, "SplineGrid"),
        (SMOOTH, "KernelSketch"),
        ({**SMOOTH, "domain": BOX * 5, "dimension": 5}, "KernelSketch"),
        ({**SMOOTH, "domain": BOX, "structure": "sketch"}, "KernelSketch"),
        (
            {**SMOOTH, "landmarks": [[1.0]], "landmarks_public": True},
            "LandmarkSketch",
        ),
        ({"kernel": "l1", "domain": BOX}, "CdfDistances"),
        ({"kernel": "l1", "domain": BOX, "delta": 0.0}, "HatDistances"),
        ({"kernel": "lp", "power": 1.5, "domain": BOX}, "HatDistances"),
        ({"kernel": "lp", "power": 1.0, "domain": BOX}, "CdfDistances"),
        ({"kernel": "lp", "power": 2.0, "domain": BOX}, "SquaredDistances"),
        ({"kernel": "l2_squared", "domain": BOX}, "SquaredDistances"),
        ({"kernel": "l2", "domain": BOX * 3, "dimension": 3}, "ProjectedDistances"),
    ],
)
def test_the_structure_that_fits(settings, name):
    found = chosen(**settings)
    assert type(found.structure).__name__ == name
    assert found.reason and found.expected_error >= found.floor * 0.5 > 0
    if found.others:
        assert found.expected_error == min(found.others.values())


@pytest.mark.parametrize("relation", ["add_remove", "replace_one", "zero_out"])
@pytest.mark.parametrize(
    "settings",
    [
        {**SMOOTH, "domain": BOX},
        {**SMOOTH, "structure": "sketch", "features": 64},
        {**SMOOTH, "landmarks": [[1.0], [2.0]], "landmarks_public": True},
        {"kernel": "l1", "domain": BOX},
        {"kernel": "l2", "domain": BOX * 2, "dimension": 2},
        {"kernel": "l2_squared", "domain": BOX},
    ],
    ids=["spline", "sketch", "landmarks", "l1", "l2", "l2_squared"],
)
def test_pure_noise_costs_what_was_asked(settings, relation):
    """By what a record moves in the noise's own norm, and hardly less."""
    structure = chosen(**settings, delta=0.0, relation=relation).structure
    reach, noise = structure.reach, structure.noise
    assert isinstance(noise, Laplace | Radial)
    far = relation == "replace_one"
    if isinstance(noise, Laplace):
        scale = structure.stddev / math.sqrt(2)
        loss = (reach.l1_replaced if far else reach.l1) / scale
    else:
        scale = structure.stddev / math.sqrt(structure.size + 1)
        loss = (reach.l2_replaced if far else reach.l2) / scale
    assert 1 - 1e-9 < loss <= 1 + 1e-12
    event = structure.event(relation)
    assert isinstance(event, PureDpEvent) and event.epsilon <= 1 + 1e-12


@pytest.mark.parametrize(
    ("dimension", "delta", "most"),
    [(1, 1e-6, 1.15), (2, 1e-6, 1.15), (3, 1e-6, 1.15), (1, 0.0, 1.85)],
)
def test_grids_are_near_the_floor(dimension, delta, most):
    found = chosen(**SMOOTH, dimension=dimension, domain=BOX * dimension, delta=delta)
    assert found.expected_error <= most * found.floor
    sigma = math.sqrt(2) if not delta else 4.22467889
    assert found.floor == pytest.approx(sigma, rel=1e-5)


def test_landmarks_are_near_the_floor():
    where = np.random.default_rng(0).normal(size=(50, 8))
    found = chosen(8, **SMOOTH, landmarks=where, landmarks_public=True)
    assert found.expected_error <= 1.05 * found.floor


def test_the_seed_of_features_is_public_and_makes_them():
    one, same, other = (
        chosen(2, **SMOOTH, features=8, feature_seed=seed).structure
        for seed in (1, np.int64(1), 2)
    )
    assert one == same != other
    for secret in (jax.random.key(1), jax.random.PRNGKey(1), 1.0, True, None):
        with pytest.raises(TypeError, match="feature_seed"):
            chosen(2, **SMOOTH, feature_seed=secret)


def test_limits_of_weights_and_units_are_the_structure_s():
    found = chosen(**SMOOTH, domain=BOX, max_weight=3.0, points_per_unit=2)
    assert found.structure.max_weight == 3.0
    assert found.structure.points_per_unit == 2
    plain = chosen(**SMOOTH, domain=BOX)
    assert found.floor == pytest.approx(6 * plain.floor)
    assert isinstance(plain.structure.noise, Gaussian)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dimension": 0}, "dimension"),
        ({"dimension": 1.0}, "dimension"),
        ({"relation": None}, "relation"),
        ({"kernel": "l1", "bandwidth": None, "features": 8}, "features"),
        ({"kernel": "l1", "bandwidth": None, "structure": "spline"}, "structure"),
        ({"kernel": "l1", "bandwidth": None, "landmarks": [[1.0]]}, "landmarks"),
        ({"dimension": 5, "domain": BOX * 5, "structure": "spline"}, "at most 4"),
        ({"landmarks": [[1.0]], "landmarks_public": 1}, "landmarks_public"),
    ],
)
def test_what_it_does_not_choose(settings, said):
    with pytest.raises((ValueError, TypeError), match=said):
        chosen(**{**SMOOTH, "domain": BOX, **settings})
