"""Noise: its bits, its transform, its tails, and who shares what."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dpkit.mechanisms import noise as noise_module
from dpkit.mechanisms._quantile import normal_of_words
from dpkit.mechanisms._threefry import random_words, threefry_2x32
from dpkit.mechanisms.noise import gaussian_noise, host_generator
from tests.oracles import normal, threefry

# Known answers distributed with Random123 for threefry2x32, 20 rounds (the first three;
# the last computed with the oracle): key, counter, words.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ((0, 42), (7, 3), (0x42C6DB35, 0x5EB79F9A)),
]


UNIT = jax.jit(normal_of_words, static_argnums=2)


def words(*values):
    return tuple(np.uint32(value) for value in values)


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN)
def test_threefry_known_answers(key, counter, expected):
    assert threefry.threefry_2x32(key, counter) == expected
    left, right = jax.jit(threefry_2x32)(words(*key), words(*counter))
    assert (int(left), int(right)) == expected


def test_words_are_those_of_the_element_index():
    key = jax.random.wrap_key_data(jnp.array([3, 4], jnp.uint32))
    high, low = random_words(key, (2, 3, 4))
    for index in (0, 1, 11, 23):
        pair = int(high.ravel()[index]), int(low.ravel()[index])
        assert pair == threefry.threefry_2x32((3, 4), (0, index))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (0,), (2, 1, 3)])
def test_words_agree_with_jax(shape):
    high, low = random_words(jax.random.key(5), shape)
    expected = jax.random.bits(jax.random.key(5), shape)
    np.testing.assert_array_equal(high ^ low, expected)


def test_too_many_elements_for_the_counter_are_refused():
    with pytest.raises(ValueError, match="2\\*\\*32"):
        jax.eval_shape(lambda key: random_words(key, (2**16, 2**16)), jax.random.key(0))


# Computed with mpmath at 30 digits (the oracle repeats them): words, z.
TRANSFORM = [
    ((0x00000000, 0x00000000), -9.15529377),
    ((0x00000001, 0x00000000), -6.23026014),
    ((0x40000000, 0x00000000), -0.674489750),
    ((0x12345678, 0x9ABCDEF0), -1.46756573),
    ((0xFFFFFFFF, 0xFFFFFFFF), 9.15529377),
]


@pytest.mark.parametrize(("pair", "expected"), TRANSFORM)
def test_inverse_normal_known_answers(pair, expected):
    assert normal.inverse_normal(*pair) == pytest.approx(expected, rel=1e-8)
    z = float(UNIT(*words(*pair), jnp.float32))
    assert z == pytest.approx(expected, rel=4e-7)


@functools.cache
def accuracy_words():
    """Words over the whole range: every power of two of both tails, and uniform."""
    rng = np.random.default_rng(0)
    high = [rng.integers(2**32, size=50, dtype=np.uint64)]
    low = [rng.integers(2**32, size=50, dtype=np.uint64)]
    for shift in range(0, 64):
        value = rng.integers(2**63, size=1, dtype=np.uint64) >> np.uint64(shift)
        for v in (value, ~value):
            high.append(v >> np.uint64(32))
            low.append(v & np.uint64(2**32 - 1))
    return np.concatenate(high), np.concatenate(low)


@functools.cache
def accuracy_oracle():
    """The exact transform of those words."""
    pairs = zip(*accuracy_words(), strict=True)
    return np.array([normal.inverse_normal(int(a), int(b)) for a, b in pairs])


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize(("dtype", "error"), [("float32", 4e-7), ("float64", 4e-15)])
def test_inverse_normal_is_accurate_in_both_tails(dtype, error):
    high, low = accuracy_words()
    expected = accuracy_oracle()
    with jax.enable_x64(dtype == "float64"):
        pair = jnp.asarray(high, jnp.uint32), jnp.asarray(low, jnp.uint32)
        z = np.float64(UNIT(*pair, dtype))
    distance = np.abs(z - expected)
    central = np.abs(expected) <= 1
    assert distance[central].max() <= error
    assert (distance / np.abs(expected))[~central].max() <= error


def test_the_two_tails_are_mirror_images():
    high, low = (jnp.asarray(x, jnp.uint32) for x in accuracy_words())
    one, other = UNIT(high, low, "float32"), UNIT(~high, ~low, "float32")
    np.testing.assert_array_equal(one, -other)


def normal_cdf(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def test_noise_is_standard_normal():
    # 10^6 draws. Moments within 6 standard errors (false alarm 2e-9 each);
    # Kolmogorov-Smirnov by the DKW bound at 1e-6.
    n = 1_000_000
    noise = gaussian_noise(jax.random.key(11), jnp.zeros(n), 3.0)
    z = np.sort(np.asarray(noise, np.float64) / 3)
    assert abs(z.mean()) < 6 / math.sqrt(n)
    assert abs(z.var() - 1) < 6 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 6 * math.sqrt(96 / n)
    room = math.sqrt(math.log(2 / 1e-6) / (2 * n))
    some = range(0, n, n // 1000)
    assert max(abs(normal_cdf(z[i]) - i / n) for i in some) < room + 1 / n


@pytest.mark.slow
def test_tails_beyond_those_of_a_23_bit_uniform_are_drawn():
    # P[|Z| > 5.5] = 3.80e-8: of 4e8 draws 15.2 are expected, none with probability
    # 2.5e-7, more than 40 with probability 1e-7.
    draw = jax.jit(
        lambda key: (
            jnp.abs(gaussian_noise(key, jnp.zeros(4_000_000), 1.0)) > 5.5
        ).sum()
    )
    root = jax.random.key(13)
    count = sum(int(draw(jax.random.fold_in(root, i))) for i in range(100))
    assert 1 <= count <= 40


def test_no_two_elements_share_noise():
    tree = {"a": jnp.zeros((50, 20)), "b": jnp.zeros((50, 20)), "c": jnp.zeros(1000)}
    noise = gaussian_noise(jax.random.key(0), tree, 1.0)
    values = np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(noise)])
    # 3000 float32 values: about 1 pair coincides by rounding (3000^2 / 2 / 10^7).
    assert len(np.unique(values)) >= len(values) - 8
    a, b, c = (np.asarray(noise[name]).ravel() for name in "abc")
    for first, second in ((a, b), (a, c), (b, c)):
        # correlation of 1000 independent pairs: standard error 0.032
        assert abs(np.corrcoef(first, second)[0, 1]) < 6 / math.sqrt(1000)


def test_a_second_use_of_a_key_is_found():
    key = jax.random.key(0)
    gaussian_noise(key, jnp.zeros(2), 1.0)
    with pytest.raises(jax.errors.KeyReuseError):
        gaussian_noise(key, jnp.zeros(2), 1.0)


def test_a_second_use_inside_a_compiled_function_is_found():
    @jax.jit
    def twice(key):
        return gaussian_noise(key, jnp.zeros(2), 1.0), gaussian_noise(
            key, jnp.zeros(2), 1.0
        )

    with pytest.raises(jax.errors.KeyReuseError):
        twice(jax.random.key(0))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_narrow_leaves_get_float32_noise(dtype):
    noise = gaussian_noise(jax.random.key(0), jnp.zeros((2, 2), dtype), 1.0)
    assert noise.dtype == jnp.float32
    assert noise.shape == (2, 2)


@pytest.mark.slow
def test_float64_leaves_get_float64_noise():
    with jax.enable_x64(True):
        tree = {"wide": jnp.zeros(2, jnp.float64), "usual": jnp.zeros(2, jnp.float32)}
        noise = gaussian_noise(jax.random.key(0), tree, 1.0)
        assert noise["wide"].dtype == jnp.float64
        assert noise["usual"].dtype == jnp.float32
        assert float(noise["wide"][0]) != float(np.float32(noise["wide"][0]))


@pytest.mark.parametrize("tree", [{}, (), jnp.zeros((0, 3)), jnp.zeros(())])
def test_degenerate_trees_keep_their_structure(tree):
    noise = gaussian_noise(jax.random.key(0), tree, 1.0)
    assert jax.tree.structure(noise) == jax.tree.structure(tree)
    assert [x.shape for x in jax.tree.leaves(noise)] == [
        x.shape for x in jax.tree.leaves(tree)
    ]


def test_shapes_alone_are_enough():
    like = jax.ShapeDtypeStruct((3,), jnp.float32)
    np.testing.assert_array_equal(
        gaussian_noise(jax.random.key(0), like, 2.0),
        gaussian_noise(jax.random.key(0), jnp.ones(3), 2.0),
    )


def test_a_traced_stddev_scales_the_same_noise():
    scaled = jax.jit(lambda s: gaussian_noise(jax.random.key(0), jnp.zeros(4), s))
    np.testing.assert_allclose(
        scaled(jnp.float32(2.0)),
        gaussian_noise(jax.random.key(0), jnp.zeros(4), 2.0),
        rtol=1e-6,
    )


def test_a_numpy_stddev_is_a_number():
    np.testing.assert_array_equal(
        gaussian_noise(jax.random.key(0), jnp.zeros(4), np.float64(2.0)),
        gaussian_noise(jax.random.key(0), jnp.zeros(4), 2.0),
    )


def test_no_noise_where_stddev_is_zero():
    noise = gaussian_noise(jax.random.key(0), jnp.zeros(4), 0.0)
    np.testing.assert_array_equal(noise, np.zeros(4))


@pytest.mark.parametrize("stddev", [-1.0, math.nan, math.inf])
def test_bad_stddev_is_refused(stddev):
    with pytest.raises(ValueError, match="stddev="):
        gaussian_noise(jax.random.key(0), jnp.zeros(2), stddev)


@pytest.mark.parametrize("stddev", [True, "1", None])
def test_stddev_of_the_wrong_kind_is_refused(stddev):
    with pytest.raises(TypeError, match="stddev="):
        gaussian_noise(jax.random.key(0), jnp.zeros(2), stddev)


@pytest.mark.parametrize("generator", ["chacha", "philox", "", None])
def test_other_generators_are_refused_by_name(generator):
    with pytest.raises(ValueError, match=r"needed one of \('threefry', 'chacha20'\)"):
        gaussian_noise(jax.random.key(0), jnp.zeros(2), 1.0, generator=generator)


@pytest.mark.parametrize(
    "tree", [jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.complex64), 1.0, [True]]
)
def test_leaves_that_are_not_floating_are_refused(tree):
    with pytest.raises(TypeError, match="floating"):
        gaussian_noise(jax.random.key(0), tree, 1.0)


def test_keys_of_the_wrong_kind_are_refused():
    legacy = jax.random.PRNGKey(0)
    many = jax.random.split(jax.random.key(0), 2)
    other = jax.random.key(0, impl="rbg")
    wrong: list[Any] = [None, 0, legacy, many, other]
    for key in wrong:
        with pytest.raises(TypeError, match="key=") as caught:
            gaussian_noise(key, jnp.zeros(2), 1.0)
        assert str(np.asarray(legacy)) not in str(caught.value)


@pytest.mark.slow
@pytest.mark.guard
def test_each_device_makes_its_own_shard_without_communication():
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    shape = (514, 1024)  # a large leaf: small ones are made together
    for spec in (PartitionSpec("data"), PartitionSpec(None, "data")):
        spread = NamedSharding(mesh, spec)
        draw = jax.jit(
            lambda key: gaussian_noise(key, jnp.zeros(shape), 1.0), out_shardings=spread
        )
        text = str(draw.lower(jax.random.key(3)).compile().as_text())
        assert "fusion" in text
        for collective in ("all-gather", "all-reduce", "collective-permute"):
            assert collective not in text
        alone = gaussian_noise(jax.random.key(3), jnp.zeros(shape), 1.0)
        np.testing.assert_array_equal(draw(jax.random.key(3)), alone)


@pytest.mark.slow
@pytest.mark.guard
def test_leaves_of_a_tree_get_the_words_of_their_own_keys_and_places(monkeypatch):
    # Two large ones of a shape, one of another, many small ones in two pools.
    monkeypatch.setattr(noise_module, "_POOL", 10_000)
    shapes = [(600, 500), (600, 500), (300_000,), (3,), (), (2, 0), (1000, 7), (5000,)]
    key = jax.random.key(5)
    noise = jax.jit(
        lambda key: gaussian_noise(key, [jnp.zeros(shape) for shape in shapes], 1.0)
    )(key)
    copy = jax.random.wrap_key_data(jax.random.key_data(jax.random.key(5)))
    for number, (leaf, shape) in enumerate(zip(noise, shapes, strict=True)):
        child = jax.random.fold_in(copy, number)
        # A word is that of its place, of however many there are: one program for all.
        expected = np.asarray(UNIT(*random_words(child, (300_000,)), "float32"))
        assert leaf.shape == shape
        expected = expected[: leaf.size].reshape(shape)
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-7)


def test_noise_is_added_where_it_is_needed():
    # One pass over the leaf: not a second copy of it, nor of its random words.
    shape = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    add = jax.jit(lambda key, x: x + gaussian_noise(key, x, 1.0))
    memory: Any = add.lower(jax.random.key(0), shape).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4e6 / 100


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize(
    ("width", "generator"), [(100, "threefry"), (600, "threefry"), (100, "chacha20")]
)
def test_leaves_of_one_shape_are_compiled_once(width, generator):
    # Small leaves are cut out of one array; large ones are drawn where they are added.
    tree = [jnp.zeros((600, width))] * 5

    def release(key, tree):
        noise = gaussian_noise(key, tree, 2.0, generator=generator)
        return jax.tree.map(jnp.add, tree, noise)

    text = jax.jit(release).lower(jax.random.key(0), tree).compile().as_text()
    parts = re.findall(r"^%fused[^{]*\{\n.*?^\}", str(text), re.MULTILINE | re.DOTALL)
    adding = [part for part in parts if f"-> f32[600,{width}]" in part]
    names = r"%\S+|param_[\d.]+|, metadata=.*"
    assert len(adding) == 5
    assert len({re.sub(names, "", part) for part in adding}) == 1


def test_host_generator_is_a_function_of_its_key():
    first = host_generator(jax.random.key(0)).normal(size=4)
    again = host_generator(jax.random.key(0)).normal(size=4)
    other = host_generator(jax.random.key(1)).normal(size=4)
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert first.dtype == np.float64


def test_host_generator_refuses_tracers_and_finds_reuse():
    with pytest.raises(TypeError, match="jit"):
        jax.jit(lambda key: host_generator(key).normal())(jax.random.key(0))
    with pytest.raises(TypeError, match="key="):
        host_generator(jax.random.PRNGKey(0))
    key = jax.random.key(0)
    host_generator(key)
    with pytest.raises(jax.errors.KeyReuseError):
        host_generator(key)
