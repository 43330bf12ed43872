"""Clipping functions: values by hand, radii at every size, bad numbers, groups."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.mechanisms import clips as module
from dpkit.mechanisms.clipping import GaussianSum, clip_pinned, clip_record, group_norms
from dpkit.mechanisms.clips import (
    PSAC,
    AutoS,
    Clip,
    Custom,
    Flat,
    HardDrop,
    PerGroup,
    Unit,
    as_clip,
)


def inverse(norm):
    """1 / n, and 1 at 0: radius 1."""
    return 1.0 / jnp.where(norm > 0, norm, 1.0)


CLIPS = [
    Flat(1e-10),
    Flat(0.1),
    Flat(1e15),
    Unit(1e-10),
    Unit(0.3),
    Unit(1e15),
    AutoS(0.7),
    AutoS(1e15, gamma=1e-10),
    AutoS(1e-10, gamma=1e15),
    PSAC(0.7),
    PSAC(1e15, r=1e-10),
    PSAC(1e-10, r=1e15),
    HardDrop(0.7),
    Custom(inverse, 1.0),
    PerGroup((0.7,), (("",),)),
]


# Norms 0, 0.5, 1, 2, 10 with C = R = 1: factors by hand, to 7 digits.
@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (Flat(1.0), [1, 1, 1, 0.5, 0.1]),
        (Unit(1.0), [1, 1, 1, 0.5, 0.1]),
        (Unit(4.0), [0.25, 0.25, 0.25, 0.25, 0.1]),
        # 1 / (n + .01)
        (AutoS(1.0, gamma=0.01), [100, 1.9607843, 0.9900990, 0.4975124, 0.0999001]),
        # 1 / (n + .1 / (n + .1))
        (PSAC(1.0, r=0.1), [1, 1.5, 0.9166667, 0.4883721, 0.0999011]),
        (HardDrop(1.0), [1, 1, 1, 0, 0]),
        (Flat(math.inf), [1, 1, 1, 1, 1]),
    ],
    ids=repr,
)
def test_factors_by_hand(clip, expected):
    norms = jnp.array([[0.0], [0.5], [1.0], [2.0], [10.0]])
    factors = clip.factors(norms)
    assert (factors.shape, factors.dtype) == (norms.shape, jnp.float32)
    np.testing.assert_allclose(np.asarray(factors)[:, 0], expected, rtol=6e-7)


def test_no_norm_passes_the_radius_and_bad_norms_give_zero():
    # All sizes of float32, denormals too, and closely around the thresholds.
    sizes = np.concatenate([[0.0], np.logspace(-45, 38.5, 4001)])
    near = np.outer([1e-10, 0.1, 0.3, 0.7, 1e15], 1 + np.arange(-50, 51) * 2.0**-24)
    bad = [math.nan, math.inf]
    norms = np.concatenate([sizes, near.reshape(-1), bad]).astype(np.float32)
    compiled = jax.jit(lambda norms: [clip.factors(norms) for clip in CLIPS])
    for clip, found in zip(CLIPS, compiled(norms[:, None]), strict=True):
        factors = np.asarray(found, np.float64)[:, 0]
        assert np.isfinite(factors).all(), clip
        assert (factors >= 0).all(), clip
        reach = norms[:-2].astype(np.float64) * factors[:-2]
        assert (reach <= clip.radius * (1 + 2**-20)).all(), clip
        assert (factors[-2:] == 0).all(), clip


@pytest.mark.parametrize(
    ("clip", "radius", "most"),
    [
        (Flat(3.0), 3.0, 3.0),
        (Unit(3.0), 1.0, 1.0),
        (AutoS(3.0), 3.0, 3.0 - 1e-7),
        (PSAC(3.0), 3.0, 3.0 - 1e-7),
        (HardDrop(3.0), 3.0, 3.0),
        (Custom(inverse, 1.0), 1.0, 1.0),
        (PerGroup((3.0, 4.0), (("a",), ("b",))), 5.0, 5.0),
    ],
    ids=lambda x: type(x).__name__,
)
def test_radius_is_reached_and_doubled_by_replacement(clip, radius, most):
    assert isinstance(clip, Clip)
    assert clip.radius == radius
    assert clip.sensitivity("add_remove") == clip.sensitivity("zero_out") == radius
    assert clip.sensitivity("replace_one") == 2 * radius
    with pytest.raises(ValueError, match="relation="):
        clip.sensitivity("swap")
    # Not larger than it has to be: 3 is the norm that hard drop keeps.
    width = 2 if isinstance(clip, PerGroup) else 1
    norms = np.full((2, width), [[3.0], [1e9]], np.float32)
    reach = np.linalg.norm(
        np.asarray(clip.factors(jnp.asarray(norms)), float) * norms, axis=1
    )
    assert reach.max() >= most * (1 - 1e-6)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e-11, 1e16])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Flat, "clip_norm"),
        (Unit, "clip_norm"),
        (AutoS, "radius"),
        (lambda x: AutoS(1.0, gamma=x), "gamma"),
        (PSAC, "clip_norm"),
        (lambda x: PSAC(1.0, r=x), "r"),
        (HardDrop, "clip_norm"),
        (lambda x: Custom(inverse, x), "radius"),
        (lambda x: PerGroup((1.0, x), (("a",), ("b",))), "clip_norms"),
        (lambda x: PerGroup.uniform(x, (("a",),)), "clip_norm"),
    ],
)
def test_numbers_out_of_range_are_refused(make, name, value):
    if make is Flat and value == math.inf:
        return  # no clipping: only where there is no noise, as GaussianSum says
    with pytest.raises(ValueError, match=f"{name}="):
        make(value)


@pytest.mark.parametrize("value", [True, "1", None, [1.0]])
@pytest.mark.parametrize("cls", [Flat, Unit, AutoS, PSAC, HardDrop])
def test_numbers_of_the_wrong_kind_are_refused(cls, value):
    with pytest.raises(TypeError, match="="):
        cls(value)


def test_clips_are_static_and_compare_by_their_numbers():
    for clip in CLIPS:
        assert jax.tree.leaves(clip) == []
        assert hash(clip) == hash(jax.tree.map(lambda x: x, clip))
    number: Any = np.float32(2.0)
    assert Flat(number) == Flat(2.0) != HardDrop(2.0)
    traces = []
    compiled = jax.jit(lambda clip, x: traces.append(0) or clip.factors(x))
    for clip in (Unit(2.0), Unit(2.0), Unit(4.0)):
        expected = [[1 / max(clip.clip_norm, 8.0)]]
        np.testing.assert_array_equal(compiled(clip, jnp.full((1, 1), 8.0)), expected)
    assert len(traces) == 2


def test_a_traced_norm_clips_but_has_no_radius():
    factors = jax.jit(lambda c, n: Flat(c).factors(n))
    norms = jnp.array([[0.5], [4.0]])
    np.testing.assert_array_equal(factors(2.0, norms), [[1.0], [0.5]])
    for bad in (math.nan, 0.0, -1.0):
        np.testing.assert_array_equal(factors(bad, norms), [[0.0], [0.0]])
    with pytest.raises(TypeError, match="clip_norm=array"):
        _ = Flat(jnp.float32(1.0)).radius
    with pytest.raises(TypeError, match="clip_norm=array"):
        Flat(jnp.float32(1.0)).sensitivity("add_remove")
    with pytest.raises(TypeError, match="clip_norm=array"):
        GaussianSum(clip=Flat(jnp.float32(1.0)), noise_multiplier=1.0)
    with pytest.raises(ValueError, match=r"clip_norm\.shape"):
        Flat(jnp.ones(2))
    groups = PerGroup(jnp.array([1.0, 2.0]), (("a",), ("b",)))
    np.testing.assert_array_equal(groups.factors(jnp.array([4.0, 4.0])), [0.25, 0.5])
    with pytest.raises(TypeError, match="clip_norms=array"):
        _ = groups.radius


def test_norms_without_an_axis_of_groups_are_refused():
    for norms in (jnp.float32(1.0), jnp.ones(3), jnp.ones((2, 3))):
        with pytest.raises(ValueError, match=r"norms\.shape"):
            Flat(1.0).factors(norms)


# A function of the user's own.


@pytest.mark.parametrize(
    ("phi", "found"),
    [
        (lambda n: jnp.ones_like(n), r"phi\(1.02\d*\)=1"),
        (lambda n: inverse(n) * 1.00001, r"n phi\(n\) <= radius=1.0"),
        (lambda n: -inverse(n), r"phi\(0\)=-1"),
        (lambda n: 1.0 / n, r"phi\(0\)=inf"),
        (lambda n: jnp.where(n > 1e29, jnp.nan, 0.0), "=nan"),
        (lambda n: jnp.zeros(()), r"gave float32\(\)"),
        (lambda n: jnp.zeros(n.shape, int), "gave int32"),
        (lambda n: 1.0, r"gave float32\(\)"),
    ],
)
def test_a_function_that_breaks_its_promise_is_refused(phi, found):
    with pytest.raises(ValueError, match=f"phi.*{found}"):
        Custom(phi, 1.0)


def test_a_function_is_hashable():
    for phi in (3.0, None, "1/n", np.array([1.0])):
        with pytest.raises(TypeError, match="phi="):
            Custom(phi, 1.0)  # pyrefly: ignore[bad-argument-type]


def test_what_lies_between_the_tried_norms_is_cut():
    def sly(norm):
        """1 / n, but far too much just beside 1, where no norm is tried."""
        factor = inverse(norm)
        factor = jnp.where(jnp.abs(norm - 1.001) < 1e-4, 1e6, factor)
        factor = jnp.where(jnp.abs(norm - 1.002) < 1e-4, jnp.nan, factor)
        return jnp.where(jnp.abs(norm - 1.003) < 1e-4, -5.0, factor)

    norms = jnp.array([[1.001], [1.002], [1.003], [2.0]])
    factors = jax.jit(Custom(sly, 1.0).factors)(norms)
    np.testing.assert_allclose(factors, [[1 / 1.001], [0.0], [0.0], [0.5]], rtol=1e-6)


def test_entries_too_small_to_square_are_not_magnified_past_the_radius():
    # One entry counts in the norm, the 9,999 others don't: 1.1e-19, truly 9e-18.
    record = jnp.asarray(np.append(np.full(9_999, 9e-20), 1.1e-19), jnp.float32)
    clipped = jax.jit(lambda x: clip_record(x, Custom(inverse, 1.0)))(record)
    assert float(np.linalg.norm(np.asarray(clipped, float))) <= 1.0


def test_a_function_may_be_made_and_used_while_tracing():
    compiled = jax.jit(lambda n: Custom(inverse, 1.0).factors(n))
    np.testing.assert_array_equal(compiled(jnp.full((1, 1), 4.0)), [[0.25]])


def test_a_lookup_at_many_norms_happens_once():
    calls = []

    def phi(norm):
        calls.append(norm.shape)
        return inverse(norm)

    for _ in range(3):
        Custom(phi, 1.0)
    assert calls == [module._TRIED.shape]  # traced once


# Groups.

RECORD = {"body": {"w": jnp.array([3.0]), "b": jnp.array([4.0])}, "head": [jnp.ones(4)]}


@pytest.mark.parametrize(
    ("prefixes", "groups"),
    [
        ((("body",), ("head",)), (0, 0, 1)),
        ((("head/0", "body/b"), ("body/w",)), (0, 1, 0)),
        ((("",),), (0, 0, 0)),
        ([["body"], ["head"]], (0, 0, 1)),
    ],
)
def test_every_leaf_has_its_group(prefixes, groups):
    clip = PerGroup((1.0,) * len(prefixes), prefixes)
    assert clip.groups(RECORD) == groups
    assert hash(clip) == hash(PerGroup((1.0,) * len(prefixes), prefixes))


@pytest.mark.parametrize(
    ("prefixes", "found"),
    [
        ((("body",), ("tail",)), "leaf 'head/0' belongs to no group"),
        ((("body/w",), ("head",)), "leaf 'body/b' belongs to no group"),
        ((("body",), ("head", "body/w")), r"leaf 'body/w' .* \[0, 1\]"),
        ((("body", "head"), ("bod",)), r"prefixes\[1\]=\('bod',\): no leaf"),
    ],
)
def test_leaves_without_exactly_one_group_are_refused(prefixes, found):
    clip = PerGroup((1.0,) * len(prefixes), prefixes)
    for use in (clip.groups, lambda record: clip_record(record, clip)):
        with pytest.raises(ValueError, match=found):
            use(RECORD)


def test_paths_that_read_alike_are_refused():
    record = {"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)}
    with pytest.raises(ValueError, match=r"leaf 'a/b' belongs to the groups \[0, 1\]"):
        PerGroup.per_leaf(record, 1.0).groups(record)


@pytest.mark.parametrize("prefixes", ["ab", ("a", "b"), (("a", 1),), (), None, 1])
def test_prefixes_of_the_wrong_kind_are_refused(prefixes):
    with pytest.raises(TypeError, match="prefixes="):
        PerGroup((1.0, 1.0), prefixes)


def test_groups_and_norms_must_match():
    with pytest.raises(ValueError, match=r"prefixes=.*needed a path"):
        PerGroup((1.0, 1.0), (("a",), ()))
    for norms in ((1.0,), jnp.ones(3)):
        with pytest.raises(ValueError, match="each of the 2 groups"):
            PerGroup(norms, (("a",), ("b",)))
    with pytest.raises(TypeError, match="clip_norms="):
        PerGroup(1.0, (("a",),))


def test_each_group_is_clipped_to_its_own_norm():
    # Norms 5 and 2 with C = 2.5 and 4: halved, and left alone; 5.385 over all leaves.
    clip = PerGroup((2.5, 4.0), (("body",), ("head",)))
    np.testing.assert_allclose(group_norms(RECORD, clip.groups(RECORD)), [5.0, 2.0])
    clipped, norm = clip_pinned(RECORD, clip)
    assert float(norm) == pytest.approx(math.sqrt(29), rel=1e-6)
    np.testing.assert_allclose(clipped["body"]["w"], [1.5])
    np.testing.assert_allclose(clipped["body"]["b"], [2.0])
    np.testing.assert_array_equal(clipped["head"][0], np.ones(4))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e20])
def test_a_bad_entry_in_one_group_drops_the_whole_record(bad):
    clip = PerGroup((2.5, 4.0), (("body",), ("head",)))
    record = RECORD | {"head": [jnp.array([1.0, bad, 0.0, 0.0])]}
    for leaf in jax.tree.leaves(clip_record(record, clip)):
        assert not np.asarray(leaf).any()
    norms = jnp.array([[1.0, math.inf], [math.nan, 1.0], [10.0, 1.0]])
    assert clip.factors(norms).tolist() == [[0.0, 0.0], [0.0, 0.0], [0.25, 1.0]]


def test_uniform_groups_share_the_radius():
    clip = PerGroup.per_leaf(RECORD, 3.0)
    assert clip.prefixes == (("body/b",), ("body/w",), ("head/0",))
    assert clip.clip_norms == (3 / math.sqrt(3),) * 3
    assert clip.radius == pytest.approx(3.0, rel=1e-15)
    assert PerGroup.per_leaf(jnp.ones(3), 2.0).groups(jnp.ones(3)) == (0,)


@pytest.mark.parametrize("clip", ["flat", None, True, math, Flat])
def test_what_is_no_clip_is_refused(clip):
    for use in (
        as_clip,
        lambda c: clip_record(jnp.ones(1), c),
        lambda c: GaussianSum(clip=c, noise_multiplier=1.0),
    ):
        with pytest.raises((TypeError, ValueError), match="clip"):
            use(clip)


# A Gaussian sum with any clip.


def test_the_sum_takes_radius_and_noise_from_its_clip():
    clip = PerGroup((3.0, 4.0), (("a",), ("b",)))
    mechanism = GaussianSum(clip=clip, noise_multiplier=2.0)
    assert mechanism.clip is clip
    assert mechanism.clip_norm == 5.0
    assert mechanism.stddev == 10.0 * (1 + 2.0**-16)
    record = {"a": jnp.array([6.0]), "b": jnp.array([-8.0])}
    message = mechanism.contribute(jax.random.key(0), record)
    assert (float(message["a"][0]), float(message["b"][0])) == (3.0, -4.0)


def test_replacing_fields_keeps_the_clip():

    flat = GaussianSum(1.0, 2.0, 7)
    assert flat == GaussianSum(clip=Flat(1.0), noise_multiplier=2.0, max_summands=7)
    assert hash(flat) == hash(GaussianSum(1.0, 2.0, 7)) != hash(GaussianSum(1.0, 3.0))
    other_norm: dict[str, Any] = {"clip_norm": 3.0}
    assert dataclasses.replace(flat, **other_norm) == GaussianSum(3.0, 2.0, 7)
    assert dataclasses.replace(flat, clip=Unit(3.0)).clip_norm == 1.0
    auto = GaussianSum(clip=AutoS(1.0), noise_multiplier=2.0)
    assert dataclasses.replace(auto, noise_multiplier=3.0).clip == AutoS(1.0)
    with pytest.raises(ValueError, match=r"clip_norm=3\.0: needed no norm beside"):
        dataclasses.replace(auto, **other_norm)
    with pytest.raises(ValueError, match="clip_norm=None, clip=None"):
        GaussianSum(noise_multiplier=1.0)
    with pytest.raises(ValueError, match="clip_norm=inf"):
        GaussianSum(clip=Flat(math.inf), noise_multiplier=1.0)
    with pytest.raises(TypeError, match="noise_multiplier=None"):
        GaussianSum(1.0)
