"""Norms are never told too small: many leaves, long leaves, every clip, every mode.

The entries of a record are all one number, so that its exact norm is a fraction, and
the number is one whose roundings, in one chain of float32 additions, all point the same
way: the worst that an adversary can do to a sum in that order.
"""

import functools
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.mechanisms.clipping import clip_pinned, clip_record, group_norms
from dpkit.mechanisms.clips import (
    PSAC,
    AutoS,
    Custom,
    Flat,
    HardDrop,
    PerGroup,
    Unit,
    as_clip,
)
from dpkit.mechanisms.norms import halvings, not_below, squared_norm
from dpkit.mechanisms.protocol import tree_sum
from dpkit.training import clipped_grad

EXCESS = 1 + 2.0**-20
UNIT = Fraction(1, 2**24)
SHAPES = {
    "scalars": [()] * 3000,
    "more scalars": [()] * 10_000,
    "threes": [(3,)] * 700,
    "rows of ten": [(10,)] * 900,
    "small": [(1023,), (1021,), (7, 11), (9,)],
    "a matrix": [(784, 256), (256,)],
    "a thin matrix": [(100_003, 3)],
    "a wide matrix": [(3, 100_003)],
    "a prime": [(1_000_003,)],
    "a kernel": [(3, 3, 64, 128), (128,), ()],
    "a long row": [(2, 4096), (4097, 2)],
    "nothing beside it": [(0, 3), (2,), (5, 0)],
}
CLIPS = [
    Flat(1.0),
    Unit(1.0),
    AutoS(1.0),
    PSAC(1.0),
    HardDrop(200.0),
    Custom(lambda n: 1.0 / jnp.maximum(n, 1e-3), radius=1.0),
    PerGroup.uniform(1.0, (("a",), ("b",))),
]


@functools.cache
def worst_entry(count: int) -> float:
    """Of some numbers, the one whose squares lose most in one float32 chain."""
    draws = np.random.default_rng(0).uniform(0.5, 1.0, 100).astype(np.float32)
    draws = np.append(draws, np.float32(0.8515625))
    chains = np.zeros(len(draws), np.float32)
    for _ in range(min(count, 3000)):
        chains += np.square(draws)
    lost = 1 - chains.astype(float) / (min(count, 3000) * draws.astype(float) ** 2)
    return float(draws[np.argmax(lost)])


def exact_norm(tree) -> float:
    """The L2 norm in float64, by an exact sum of squares."""
    entries = np.concatenate([np.ravel(np.asarray(x, float)) for x in tree])
    return math.sqrt(math.fsum(entries**2))


def filled(shapes, dtype, entry):
    """Leaves that hold one number."""
    kind = jnp.dtype(dtype)
    made = {x: jnp.asarray(np.full(x, entry, kind)) for x in set(shapes)}
    return [made[shape] for shape in shapes]


QUICK = ("small", "a long row", "nothing beside it")
OFTEN = [pytest.mark.slow, pytest.mark.guard]


def shapes_and_dtypes():
    """All shapes in float32; the narrow types, which are widened first, in some."""
    for name, shapes in SHAPES.items():
        marks = [] if name in QUICK else OFTEN
        marks = [pytest.mark.slow] if name == "more scalars" else marks
        yield pytest.param(shapes, jnp.float32, id=name, marks=marks)
    for dtype in (jnp.float16, jnp.bfloat16):
        for name in ("a matrix", "small"):
            yield pytest.param(SHAPES[name], dtype, id=f"{name}-{dtype.__name__}")


@pytest.mark.parametrize(("shapes", "dtype"), list(shapes_and_dtypes()))
def test_squares_are_never_below_what_they_promise(shapes, dtype):
    count = sum(math.prod(shape) for shape in shapes)
    for entry in (worst_entry(count), 0.8515625):
        leaves = filled(shapes, dtype, entry)
        exact = count * Fraction(float(np.asarray(entry, jnp.dtype(dtype)))) ** 2
        # Thousands of arguments are quicker one by one, a few in one program.
        squared = squared_norm if len(leaves) > 100 else jax.jit(squared_norm)
        found = Fraction(float(squared(leaves)))
        assert found >= exact * (1 - UNIT) ** 17
        longest = min(4096, max(max(shape, default=1) for shape in shapes))
        assert found <= exact * (1 + (longest + 60) * 2 * UNIT)


def test_one_chain_would_break_the_promise():
    entry = np.float32(worst_entry(3000))
    chain = np.cumsum(np.full(3000, np.square(entry)), dtype=np.float32)[-1]
    assert math.sqrt(3000 * float(entry) ** 2 / float(chain)) > 1 + 2.0**-16


@pytest.mark.parametrize("numbers", [1, 2, 3, 16, 17, 1000, 4097])
def test_so_many_halvings_are_made(numbers):
    # 2^24 + 1 + 1 + ... in float32: a one that meets the large number is lost.
    found = np.array([2.0**24] + [1.0] * (numbers - 1), np.float32)
    lost = numbers - 1 + 2**24 - int(jax.jit(tree_sum)(found))
    assert abs(lost) <= halvings(numbers) * 2


@pytest.mark.parametrize("additions", [0, 16, 17, 100, 4096, 2**20])
def test_a_sum_is_raised_by_what_it_may_have_lost(additions):
    raised = Fraction(float(not_below(jnp.float32(1.0), additions)))
    lowest = 1 - (additions + 1) * UNIT  # above (1 - u)^(additions + 1)
    if additions <= 16:
        assert raised == 1
    else:
        assert raised * lowest * (1 - UNIT) >= 1
        assert raised <= 1 + (additions + 4) * UNIT * Fraction(11, 10)


def test_more_additions_than_float32_can_bound_are_refused():
    with pytest.raises(ValueError, match=r"8388609 additions.*2\^2"):
        not_below(jnp.float32(1.0), 2**23 + 1)


def clips_and_dtypes():
    """Every clip in every type; one of each in the fast suite."""
    for clip, dtype in itertools.product(CLIPS, (jnp.float32, jnp.bfloat16)):
        name = type(clip).__name__
        quick = (name, dtype) in (("Flat", jnp.float32), ("PerGroup", jnp.bfloat16))
        marks = [] if quick else pytest.mark.slow
        yield pytest.param(clip, dtype, id=f"{name}-{dtype.__name__}", marks=marks)


@pytest.mark.parametrize(("clip", "dtype"), list(clips_and_dtypes()))
def test_no_clip_lets_a_record_pass_its_radius(clip, dtype):
    clip, clipped = as_clip(clip), jax.jit(lambda record: clip_record(record, clip))
    shapes = [(784, 30), (30,), *[()] * 40]
    for entry in (worst_entry(3000), 0.8515625):
        record = {name: filled(shapes, dtype, entry) for name in ("a", "b")}
        norm = exact_norm(jax.tree.leaves(clipped(record)))
        assert norm <= clip.radius * EXCESS
        assert norm > 0.9 * clip.radius or isinstance(clip, HardDrop)


@pytest.mark.parametrize(
    "count",
    [300, pytest.param(3000, marks=pytest.mark.slow)],
)
def test_hundreds_of_leaves_pass_no_further_than_one(count):
    record = [jnp.float32(worst_entry(count))] * count
    out, norm = clip_pinned(record, 1.0)
    assert abs(exact_norm(out) - 1) <= 2.0**-20
    assert float(norm) == pytest.approx(exact_norm(record), rel=2.0**-20)


def test_norms_of_groups_hold_as_well():
    count = 300
    record = [jnp.float32(worst_entry(count))] * (2 * count)
    norms = group_norms(record, (0, 1) * count)
    exact = math.sqrt(count) * float(record[0])
    assert float(norms.min()) >= exact * (1 - 2.0**-20)


def test_leaves_in_float64_keep_its_precision():
    with jax.enable_x64(True):
        leaves = [np.full((784, 256), 0.1), np.array(0.1)]
        assert float(jax.jit(squared_norm)(leaves)) == pytest.approx(2007.05, rel=1e-13)


def many_parameters(count: int):
    """A loss whose gradient is the example, once for each of many parameters."""

    def loss(params, x, key):
        return sum(p * x for p in params[1:]) + jnp.vdot(params[0], jnp.ones(3)) * x

    return loss, [jnp.zeros(3)] + [jnp.float32(0.0)] * (count - 1)


def moved(mode: str, count: int, kappa: float = 2.0) -> float:
    """The norm of one clipped gradient, with so many parameters."""
    loss, params = many_parameters(count)
    rows = jnp.array([worst_entry(count), 0.8515625])
    f = jax.jit(clipped_grad(loss, clip_norm=1.0, mode=mode, kappa=kappa))
    total, _ = f(params, rows, jnp.array([True, False]))
    return exact_norm(total.private_value)


@pytest.mark.slow  # of thousands is a guard
@pytest.mark.parametrize("mode", ["auto", "two_pass", "vmap"])
def test_a_gradient_of_many_parameters_is_clipped_to_the_radius(mode):
    assert 1 - 2.0**-18 < moved(mode, 100) <= EXCESS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "count"),
    [
        pytest.param("auto", 300, marks=pytest.mark.guard),
        ("auto", 600),
        ("two_pass", 600),
        ("vmap", 600),
    ],
)
def test_a_gradient_of_hundreds_of_parameters_is_clipped_to_the_radius(mode, count):
    assert 1 - 2.0**-18 < moved(mode, count) <= EXCESS


def modes_and_kappas():
    """Every mode with both forms; each mode and each form once in the fast suite."""
    for mode, form in itertools.product(("auto", "two_pass", "vmap"), KAPPA):
        marks = [] if (mode, form) in QUICK_MODES else pytest.mark.slow
        yield pytest.param(mode, KAPPA[form], id=f"{mode}-{form}", marks=marks)


KAPPA = {"product": 0.0, "whole": 1e9}
QUICK_MODES = (("auto", "product"), ("two_pass", "whole"))


@pytest.mark.parametrize(("mode", "kappa"), list(modes_and_kappas()))
def test_a_gradient_of_wide_layers_is_clipped_to_the_radius(mode, kappa):
    """Rows of 5,000 numbers, one or several of them: all roundings point one way."""

    def loss(p, x, key):
        one = jnp.vdot(x[0] @ p["w"], jnp.full(3, worst_entry(5000)))
        return one + jnp.sum((x @ p["v"]) * worst_entry(5000))

    params = {"w": jnp.zeros((5000, 3)), "v": jnp.zeros((5000, 2))}
    f = jax.jit(clipped_grad(loss, clip_norm=1.0, mode=mode, kappa=kappa))
    for entry in (worst_entry(5000), 0.8515625):
        rows = jnp.full((2, 4, 5000), entry)
        total, _ = f(params, rows, jnp.array([True, False]))
        # Four rows that are added up once more may round by three units each.
        assert 0.999 < exact_norm(jax.tree.leaves(total.private_value)) <= EXCESS
