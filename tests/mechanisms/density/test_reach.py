"""No two records, however chosen, are further apart in a sum than `reach` says.

Directly: many records, hostile ones among them, and all pairs of them, on both paths to
a sum; in float64 of what is published, by L1 and L2. The bounds are nearly attained, so
none of these tests passes because a bound is far too large.
"""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from dpkit.mechanisms.density import (
    KERNELS,
    CdfDistances,
    ClassSums,
    Gaussian,
    HatDistances,
    Kernel,
    KernelSketch,
    LandmarkSketch,
    Laplace,
    ProjectedDistances,
    SplineGrid,
    SquaredDistances,
)
from dpkit.mechanisms.density.sketch import waves
from dpkit.mechanisms.tables import MeanEmbedding
from tests.structures import white

NOISE, PURE = Gaussian(8.0), Laplace(0.05)
GAUSS = Kernel("gaussian", 0.8)
BOX = ((-1.0, 2.0), (0.0, 4.0))
RNG = np.random.default_rng(11)
AROUND = RNG.normal(size=(6, 2))


def landmarks(name, jitter=1e-4):
    return LandmarkSketch(
        kernel=Kernel(name, 0.8),
        landmarks=AROUND,
        landmarks_public=True,
        jitter=jitter,
        noise=NOISE,
    )


SKETCH = KernelSketch.draw(GAUSS, 2, features=8, noise=NOISE)
STRUCTURES = {
    "sketch": SKETCH,
    "wild sketch": KernelSketch.draw(
        Kernel("rational_l1", 1e-3), 2, features=8, noise=NOISE
    ),
    "reduced sketch": KernelSketch.draw(
        GAUSS, 2, features=4, reduce_to=1, noise=NOISE, feature_seed=3
    ),
    "spline": SplineGrid(kernel=GAUSS, domain=BOX, noise=NOISE),
    "line of degree 4": SplineGrid(
        kernel=GAUSS, domain=BOX[:1], spacing=0.7, degree=4, noise=NOISE
    ),
    "hats": HatDistances(domain=BOX, levels=4, noise=PURE),
    "gaussian hats": HatDistances(domain=BOX, levels=4, power=1.5, noise=NOISE),
    "cdf": CdfDistances(domain=BOX, cells=5, noise=NOISE),
    "projected": ProjectedDistances.draw(
        2, radius=1.5, count=4, cells=4, centre=(1.0, 1.0), noise=NOISE
    ),
    "projected hats": ProjectedDistances.draw(
        2, radius=1.5, count=4, levels=3, noise=PURE
    ),
    "moments": SquaredDistances(
        radius=1.5, dimension=2, centre=(0.5, 0.5), noise=NOISE
    ),
    "classes": ClassSums(classes=3, dimension=2, noise=NOISE),
    "wave classes": ClassSums(classes=3, dimension=2, sketch=SKETCH, noise=NOISE),
    "embedding": MeanEmbedding(
        sketch=KernelSketch.draw(GAUSS, 1, features=8, noise=NOISE),
        categories=(3,),
        classes=3,
        noise=NOISE,
    ),
    **{f"{name} landmarks": landmarks(name) for name in ("gaussian", "exponential")},
    "cramped landmarks": landmarks("cauchy", jitter=1e-8),
}
# Those whose largest difference in the records here is far below what is proven.
LOOSE = {
    "wild sketch",
    "projected",
    "projected hats",
    "hats",
    "gaussian hats",
    "cramped landmarks",
}
NUMBERS = [0.0, -0.0, 1e-45, -1e-40, 1e-30, 2.0**-24, 0.5, 1 - 2.0**-24, 1.0]
NUMBERS += [2.0, -1.0, 4.0, 1.5, 1e6, -16777217.0, 1e10, 1e30, 3.4e38, -3.4e38]
WIDE = [1e-300, -1e60, 1e300, 1.7e308, -1.7e308, math.pi * 1e15]


def hostile_points(structure, count=150):
    """(n, d) float64: extremes in all pairs, nodes, edges, and random ones."""
    d = structure.dimension
    some = [NUMBERS + WIDE, NUMBERS[::3] + WIDE[::2]][:d]
    grid = np.array(list(itertools.product(*some)))
    rng = np.random.default_rng(7)
    scale = 10.0 ** rng.uniform(-6, 6, (count, 1))
    random = rng.normal(size=(count, d)) * np.where(scale < 1e3, 1, scale)
    lattice = rng.integers(-4, 11, (count, d)) * (0.4, 0.56)[d == 1]
    box = np.array(BOX[:d])
    places = rng.integers(0, 33, (count, d)) / 32
    inside = box[:, 0] + (box[:, 1] - box[:, 0]) * places
    corners = np.array(list(itertools.product(*box)))
    parts = [grid, random, lattice, inside, corners, AROUND[:, :d]]
    bad = np.zeros((3, d))
    bad[:, 0] = [math.nan, math.inf, -math.inf]
    opposite = np.concatenate([random[:40], -random[:40]])
    return np.concatenate([*parts, opposite, bad])


def records_of(structure, rng=None):
    """Points, labels where there are classes, and with a generator hostile weights."""
    points = hostile_points(structure)
    records = {"points": points}
    if isinstance(structure, ClassSums | MeanEmbedding):
        labels = np.arange(len(points)) % 5 - 1
        records["labels"] = labels.astype(np.int32)
    if rng is not None:
        weights = rng.choice([0, 1, 1, 0.3, -2, 1e-40, 1e30, math.nan], len(points))
        records["weights"] = weights
    return records


def by_total(structure, records):
    """Each record's sum by the path of releases, (n, size) in whole steps."""
    rows = zip(*records.values(), strict=True)
    return np.array(
        [
            structure.total(
                {k: np.array([v]) for k, v in zip(records, row, strict=True)}
            )
            for row in rows
        ]
    )


def by_message(structure, records):
    """Each record's message, (n, size) in whole steps; float32 all through."""
    with np.errstate(all="ignore"):
        single = {
            k: jnp.asarray(np.asarray(v, np.int32 if k == "labels" else np.float32))
            for k, v in records.items()
        }
    return np.asarray(jax.jit(jax.vmap(structure.contribute, (None, 0)))(None, single))


def worst(structure, steps):
    """The largest norms and distances of messages, over what is allowed: (l2, l1, …)"""
    reach = structure.reach
    moved = white(structure, steps * structure.step)
    alone = [np.linalg.norm(moved, order, axis=1).max() for order in (2, 1)]
    pairs = [distance.pdist(moved, name).max() for name in ("euclidean", "cityblock")]
    return np.array([*alone, *pairs]) / reach


OFTEN = {"sketch", "spline", "hats", "cdf", "projected", "moments", "classes"}
OFTEN |= {"gaussian landmarks"}


def named(*, often=OFTEN):
    """Every structure; those not in `often` are slow."""
    params = [
        pytest.param(s, marks=[] if name in often else pytest.mark.slow, id=name)
        for name, s in STRUCTURES.items()
    ]
    return pytest.mark.parametrize("structure", params)


@named(often=STRUCTURES)
def test_all_pairs_of_records_by_messages(structure):
    """None is past the reach, and the furthest are near it."""
    found = worst(structure, by_message(structure, records_of(structure)))
    assert (found <= 1).all(), found
    used = 0 if isinstance(structure.noise, Gaussian) else 1
    name = next(n for n, s in STRUCTURES.items() if s is structure)
    alone, replaced = (0.7, 0.35) if name in LOOSE else (0.98, 0.97)
    if "landmarks" in name or name in {"wave classes", "embedding"}:
        replaced = 0.35  # of features that are hardly ever opposite
    assert found[used] > alone, found
    assert found[used + 2] > replaced, found


@named(often={"cdf", "moments", "gaussian landmarks"})
def test_all_pairs_of_records_by_sums(structure):
    records = records_of(structure)
    some = {k: v[::3] for k, v in records.items()}
    found = worst(structure, by_total(structure, some))
    assert (found <= 1).all(), found


@named(often={"spline", "cdf", "moments"})
def test_weights_never_move_a_sum_further(structure):
    own = dataclasses.replace(structure, max_weight=3.0)
    assert own.reach == structure.reach  # in units of the largest weight
    rng = np.random.default_rng(5)
    found = worst(own, by_message(own, records_of(own, rng)))
    assert (found <= 1).all(), found


@pytest.mark.parametrize("name", ["spline", "cdf"])
def test_units_of_several_points(name):
    """Of up to 3 points: the same point thrice is the furthest that they can go."""
    own = dataclasses.replace(STRUCTURES[name], points_per_unit=3)
    points = hostile_points(own)
    rng = np.random.default_rng(2)
    units = rng.choice(len(points), (200, 3))
    units[:60] = units[:60, :1]
    with np.errstate(all="ignore"):
        single = jnp.asarray(points[units].astype(np.float32))
    found = worst(
        own, np.asarray(jax.jit(jax.vmap(own.contribute, (None, 0)))(None, single))
    )
    assert (found <= 1).all(), found
    used = 0 if isinstance(own.noise, Gaussian) else 1
    assert found[used] > 0.7
    assert own.reach.l2 == pytest.approx(3 * STRUCTURES[name].reach.l2)


@named()
def test_sums_are_the_sums_of_messages(structure):
    """Exactly, with weights; waves may be a step off, as programs round phases.

    The phases of far points are rounded by more than a turn, and are left out.
    """
    own = dataclasses.replace(structure, max_weight=3.0)
    records = records_of(own, np.random.default_rng(3))
    waved = "sketch" in [f.name for f in dataclasses.fields(own)] and own.sketch
    waved = waved or isinstance(own, KernelSketch)
    if waved:
        most = 5e-3 if structure is STRUCTURES["wild sketch"] else 5
        near = ~(np.abs(records["points"]) > most).any(axis=1)
        records = {k: v[near] for k, v in records.items()}
    messages = [
        own.contribute(None, {k: np.asarray(v[i]) for k, v in records.items()})
        for i in range(0, len(records["points"]), 7)
    ]
    some = {k: v[::7] for k, v in records.items()}
    expected = np.sum(np.asarray(messages, np.int64), axis=0)
    off = np.abs(own.total(some) - expected)
    assert off.max() <= (len(messages) if waved else 0)


@named()
def test_order_and_batches_change_nothing(structure):
    records = records_of(structure)
    total = structure.total(records)
    count = len(records["points"])
    order = np.random.default_rng(1).permutation(count)
    mixed = {k: v[order] for k, v in records.items()}
    np.testing.assert_array_equal(structure.total(mixed), total)
    parts = np.zeros_like(total)
    for rows in np.array_split(np.arange(count), [1, 1, 70, 300]):
        parts += structure.total({k: v[rows] for k, v in mixed.items()})
    np.testing.assert_array_equal(parts, total)
    assert total.dtype == np.int64
    np.testing.assert_array_equal(
        structure.total({k: v[:0] for k, v in records.items()}), 0 * total
    )


@pytest.mark.parametrize("count", [10, pytest.param(4_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "structure",
    [
        STRUCTURES["wild sketch"],
        pytest.param(STRUCTURES["wave classes"], marks=pytest.mark.slow),
        pytest.param(STRUCTURES["exponential landmarks"], marks=pytest.mark.slow),
        KernelSketch.draw(Kernel("rational", 1e-4), 40, features=70, noise=NOISE),
        pytest.param(
            KernelSketch.draw(GAUSS, 40, features=30, reduce_to=7, noise=NOISE),
            marks=pytest.mark.slow,
        ),
        ProjectedDistances.draw(40, radius=9.0, count=37, cells=8, noise=NOISE),
    ],
    ids=lambda s: f"{type(s).__name__} of {s.dimension}",
)
def test_one_record_more_adds_its_own_message_and_moves_no_other(structure, count):
    """Where it stands, how many there are and how many batches that makes is nothing.

    So neighbours differ by one message alone, although numbers as large as these turn
    a last bit of a product into another feature.
    """
    rng = np.random.default_rng(0)
    some = min(structure.rows, 512)
    points = rng.normal(size=(max(count, some) + 2, structure.dimension))
    records: dict[str, Any] = {"points": points}
    if isinstance(structure, ClassSums | MeanEmbedding):
        records["labels"] = rng.integers(0, 3, len(points))

    def total(*rows):
        return structure.total({k: v[list(rows)] for k, v in records.items()})

    own = total(0)
    for n in (1, 7, count, some, *({some + 1, len(points) - 1} if count > 10 else ())):
        others = range(1, n + 1)
        np.testing.assert_array_equal(total(0, *others) - total(*others), own)
        np.testing.assert_array_equal(total(*others, 0) - total(*others), own)


@pytest.mark.parametrize("name", ["sketch", "reduced sketch", "projected"])
def test_products_of_matrices_have_one_length(name, monkeypatch):
    """They round by it: of another, one record more would change others' last bits."""
    own, seen = STRUCTURES[name], set()
    placed = type(own).placed

    def spied(self, points):
        seen.add(len(points))
        return placed(self, points)

    monkeypatch.setattr(type(own), "placed", spied)
    for count in (1, 7, 511, 512, 513, own.rows + 3):
        own.total(np.zeros((count, 2)))
    assert seen == {own.rows}


@pytest.mark.parametrize("name", ["spline", "moments", "gaussian landmarks"])
def test_more_points_than_a_batch_holds(name):
    structure = STRUCTURES[name]
    one = np.array([[0.5, 0.5]])
    count = structure.rows + 5
    many = structure.total(np.repeat(one, count, axis=0))
    np.testing.assert_array_equal(many, count * structure.total(one))
    assert many.max() > 2**28  # a few batches more would not fit int32


def test_a_sum_that_32_bits_do_not_hold_is_no_total():
    """`run` adds messages as int32: of 10,000 in one place they would wrap around."""
    structure = STRUCTURES["moments"]
    total = structure.total(np.zeros((2, 2)))
    with pytest.raises(TypeError, match="needed whole steps as int64"):
        structure.privatize(jax.random.key(0), total.astype(np.int32))
    with pytest.raises(TypeError, match="total=float64"):
        structure.privatize(jax.random.key(0), total.astype(float))
    with pytest.raises(ValueError, match="needed 4 entries"):
        structure.privatize(jax.random.key(0), total[1:])
    with pytest.raises(ValueError, match="points_per_unit=8192"):
        heavy = dataclasses.replace(structure, points_per_unit=8192)
        heavy.contribute(None, np.zeros((8192, 2)))


@named()
def test_what_is_not_finite_counts_as_none(structure):
    points = np.array([[math.inf, 0.5], [-math.inf, 0.5], [math.nan, 0.5], [0.5, 0.5]])
    points[-1, structure.dimension - 1] = math.inf
    records = {"points": points[:, : structure.dimension]}
    if isinstance(structure, ClassSums | MeanEmbedding):
        records["labels"] = np.zeros(4, np.int32)
    assert not structure.total(records).any()
    assert not by_message(structure, records).any()


@named()
def test_no_warning_depends_on_a_record(structure):
    """Warnings are errors here, and in many a user's settings."""
    hostile = [math.nan, math.inf, -math.inf, 1e39, -1e39, 1e308, 2.0**32, 1.5, -1.0]
    points = np.full((len(hostile), structure.dimension), 0.5)
    records: dict[str, Any] = {"points": points, "weights": np.array(hostile)}
    if isinstance(structure, ClassSums | MeanEmbedding):
        records["labels"] = np.array(hostile)
    total = structure.total(records)
    if isinstance(structure, ClassSums | MeanEmbedding):
        assert not total.any()  # none of these is a class
    else:
        # five are above the largest weight, and count as that
        one = structure.total(points[:1])
        np.testing.assert_array_equal(total, 5 * one)


MANY = pytest.param(65_536, marks=pytest.mark.slow)


@pytest.mark.parametrize("dimension", [512, MANY])
def test_many_coordinates_are_no_longer_than_one(dimension):
    """Squares too small to be seen beside a large one, one by one, are seen together.

    In float32 a loop would lose up to d / 2 units of the length.
    """
    x = np.full(dimension, 0.99 * 2**-12.5, np.float32)
    x[0] = 1.0
    row: dict[str, Any] = {"points": x, "labels": np.int32(0)}
    for structure, record in (
        (SquaredDistances(radius=1.0, dimension=dimension, noise=NOISE), 1.5 * x),
        (ClassSums(classes=1, dimension=dimension, noise=NOISE), row),
    ):
        record = jax.tree.map(jnp.asarray, record)
        message = np.asarray(jax.jit(structure.contribute)(None, record), np.float64)
        length = np.linalg.norm(message) * structure.step
        assert 0.99 * structure.point_reach().l2 < length <= structure.reach.l2


def test_waves_are_on_the_circle():
    """For float32 numbers of every exponent, both signs: within 1e-6 of it."""
    bits = np.arange(0, 2**31 - 2**23, 2**31 // 400_000, dtype=np.uint32)
    turns = bits.view(np.float32)
    turns = np.concatenate([turns, -turns])
    cosine, sine = (np.asarray(x, np.float64) for x in waves(jnp.asarray(turns)))
    assert np.abs(np.hypot(cosine, sine)[np.abs(turns) < 1e38] - 1).max() < 1e-6
    near = np.abs(turns) < 0.5
    exact = 2 * np.pi * turns[near].astype(np.float64)
    assert np.abs(cosine[near] - np.cos(exact)).max() < 1e-6
    assert np.abs(sine[near] - np.sin(exact)).max() < 1e-6
    # 2 turns overflows for the rest: no number, and no step of the grid.
    far = np.hypot(cosine, sine)[np.abs(turns) >= 1e38]
    assert np.nanmax(far) < 1 + 1e-6


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("jitter", [1e-8, pytest.param(1e-2, marks=pytest.mark.slow)])
def test_landmarks_close_together(name, jitter):
    """Where K is nearly singular, float32 kernels are stretched, as the reach says."""
    rng = np.random.default_rng(0)
    where = np.concatenate([rng.normal(size=(8, 3)), rng.normal(size=(4, 3)) * 1e-3])
    sketch = LandmarkSketch(
        kernel=Kernel(name, 0.7),
        landmarks=where,
        landmarks_public=True,
        jitter=jitter,
        noise=NOISE,
    )
    near = where[rng.integers(0, 12, 300)] + rng.normal(size=(300, 3)) * 10.0 ** (
        rng.uniform(-7, 1, (300, 1))
    )
    found = worst(sketch, by_message(sketch, {"points": near}))
    assert (found <= 1).all(), found


@pytest.mark.parametrize("noise", [Gaussian(1e-9), Laplace(1e12)])
def test_noise_below_the_grid_is_refused(noise):
    with pytest.raises(ValueError, match="16 to 2\\^38 steps"):
        SplineGrid(kernel=GAUSS, domain=BOX, noise=noise)


@pytest.mark.parametrize("noise", [Gaussian(1e12), Laplace(1e-13)])
def test_noise_beyond_64_bits_is_refused(noise):
    """It would have become one and the same number, and hidden nothing."""
    with pytest.raises(ValueError, match="16 to 2\\^38 steps"):
        SplineGrid(kernel=GAUSS, domain=BOX, noise=noise)
    for size in (1e5, 1e-10):
        grid = SplineGrid(
            kernel=GAUSS, domain=BOX, noise=Gaussian(size if size > 1 else 1.0)
        )
        released = grid.privatize(jax.random.key(0), np.zeros(grid.size, np.int64))
        assert len(np.unique(released)) > 0.9 * grid.size
