"""ChaCha20 noise: the published block, keys of 256 bits, and one value an element."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dpkit.mechanisms import _chacha
from dpkit.mechanisms._chacha import (
    CHACHA20,
    chacha20_block,
    chacha_normal,
    chacha_normals,
)
from dpkit.mechanisms.noise import chacha_key, gaussian_noise
from tests.oracles import chacha, normal

SECRET = bytes(range(32))
noise_of = functools.partial(gaussian_noise, generator="chacha20")

# RFC 8439, section 2.3.2: key 00..1f, counter 1, nonce 000000090000004a00000000.
PUBLISHED = [
    *(0xE4E7F110, 0x15593BD1, 0x1FDD0F50, 0xC47120A3),
    *(0xC7F4D1C7, 0x0368C033, 0x9AAA2204, 0x4E6CD4C3),
    *(0x466482D2, 0x09AA9F07, 0x05D7C214, 0xA2028BD9),
    *(0xD19C12B5, 0xB94E16DE, 0xE883D0CB, 0x4E3C50A2),
]


def test_the_published_block():
    nonce = bytes.fromhex("000000090000004a00000000")
    assert chacha.block(SECRET, 1, nonce) == PUBLISHED
    words = np.frombuffer(SECRET, "<u4"), 1, np.frombuffer(nonce, "<u4")
    assert [int(word) for word in chacha20_block(*words)] == PUBLISHED


@pytest.mark.slow
def test_the_published_block_is_made_in_a_compiled_program():
    words = np.frombuffer(SECRET, "<u4"), np.frombuffer(bytes(12), "<u4")
    blocks = jax.jit(lambda counter: chacha20_block(words[0], counter, words[1]))(
        jnp.arange(3, dtype=jnp.uint32)
    )
    made = np.stack([np.asarray(x) for x in blocks], axis=1).tolist()
    assert made == [chacha.block(SECRET, counter, bytes(12)) for counter in range(3)]


def data(key):
    return np.asarray(jax.random.key_data(key)).astype("<u4").tobytes()


def test_children_have_256_bits_and_purposes_of_their_own():
    key = chacha_key(SECRET)
    assert data(key) == SECRET
    assert data(jax.random.fold_in(key, 7)) == chacha.child(SECRET, 0, 7, 1)
    first, second = jax.random.split(key)
    assert data(first) == chacha.child(SECRET, 0, 0, 2)
    assert data(second) == chacha.child(SECRET, 1, 0, 2)


def test_a_threefry_key_is_widened_by_a_block():
    words = np.array([3, 4], "<u4")
    key = jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32))
    expected = chacha.child(words.tobytes() + bytes(24), 0, 0, 3)
    assert data(_chacha.widened(key)) == expected


def draw(key, shape, dtype):
    return chacha_normal(data_words(key), shape, dtype)


def data_words(key):
    return jax.random.key_data(key)


# Shape; groups in a row and blocks in a group; some places (row, place in the row).
SHAPES = [
    ((), 1, 1, [(0, 0)]),
    ((5, 1, 10), 2, 1, [(0, 0), (3, 7), (4, 8), (4, 9)]),
    ((3, 70, 200), 7, 4, [(0, 0), (69, 199), (70, 0), (209, 199)]),
    ((70_000,), 192, 64, [(0, 0), (0, 63), (0, 64), (0, 511), (0, 512), (0, 69_999)]),
]


@pytest.mark.parametrize(
    ("shape", "groups", "blocks", "some"),
    [pytest.param(*s, marks=pytest.mark.slow) for s in SHAPES[:3]] + SHAPES[3:],
)
def test_every_element_has_words_of_its_own(shape, groups, blocks, some):
    drawn = np.asarray(draw(chacha_key(SECRET), shape, "float32"))
    assert drawn.shape == shape
    rows = drawn.reshape(-1, shape[-1] if shape else 1)
    for row, place in some:
        words = chacha.element_words(SECRET, row, place, groups, blocks)
        expected = normal.inverse_normal(*words)
        assert rows[row, place] == pytest.approx(expected, rel=5e-7, abs=4e-7)


@pytest.mark.slow
@pytest.mark.guard
def test_small_leaves_are_made_together_and_get_what_each_gets_alone():
    shapes = ((3, 7), (), (0, 2), (1500,), (1, 512), (40_000,))
    keys = jax.random.split(chacha_key(SECRET), len(shapes))
    leaves = chacha_normals(data_words(keys), shapes, "float32")
    for key, shape, leaf in zip(keys, shapes, leaves, strict=True):
        assert leaf.shape == shape
        flat = np.asarray(leaf).reshape(-1)
        groups = -(-len(flat) // 512)
        for place in range(0, len(flat), max(len(flat) // 4, 1)):
            words = chacha.element_words(data(key), 0, place, groups, 64)
            expected = normal.inverse_normal(*words)
            assert flat[place] == pytest.approx(expected, rel=5e-7, abs=4e-7)
    together = np.concatenate([np.asarray(leaf).reshape(-1) for leaf in leaves])
    assert len(np.unique(together)) > len(together) - 500


@pytest.mark.parametrize(
    "shape",
    [(), (1,), (7,), (513,), (5, 1, 10), (784, 256), (3, 3, 32, 64), (50257, 64)],
)
def test_layouts_cover_the_array_and_little_more(shape):
    layout = _chacha._layout(shape)
    width = shape[-1] if shape else 1
    assert math.prod(layout.grid[:-1]) * width == math.prod(shape)
    assert layout.grid[-1] * 8 * layout.blocks >= width
    assert layout.grid[layout.axis] % layout.pieces == 0
    # What is made but not used: at most what fills the last group or piece.
    assert layout.grid[-1] * 8 * layout.blocks <= max(8, 2 * width)


SIZE = 70_000


def test_pieces_repeat_no_element():
    # 70,000 draws: some 300 pairs of float32 values coincide by rounding.
    drawn = np.asarray(draw(chacha_key(SECRET), (SIZE,), "float32"))
    assert len(np.unique(drawn)) > SIZE - 1000


@pytest.mark.slow
def test_float64_leaves_have_float64_noise():
    with jax.enable_x64(True):
        drawn = noise_of(chacha_key(SECRET), jnp.zeros(2, jnp.float64), 1.0)
        words = chacha.element_words(chacha.child(SECRET, 0, 0, 2), 0, 1, 1, 64)
        assert drawn.dtype == jnp.float64
        assert float(drawn[1]) == pytest.approx(normal.inverse_normal(*words), 1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    "root", ["chacha20", pytest.param("threefry", marks=pytest.mark.slow)]
)
def test_noise_is_standard_normal(root):
    # 2.6e5 draws; moments within 6 standard errors (false alarm 2e-9 each), and
    # Kolmogorov-Smirnov by the DKW bound at 1e-6.
    key = jax.random.key(17) if root == "threefry" else chacha_key(SECRET)
    n = 4 * SIZE
    tree = {name: jnp.zeros(SIZE) for name in "abcd"}
    noise = noise_of(key, tree, 3.0)
    z = np.sort(np.concatenate(jax.tree.leaves(noise)).astype(float)) / 3
    assert abs(z.mean()) < 6 / math.sqrt(n)
    assert abs(z.var() - 1) < 6 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 6 * math.sqrt(96 / n)
    room = math.sqrt(math.log(2 / 1e-6) / (2 * n)) + 1 / n
    below = [0.5 * math.erfc(-z[i] / math.sqrt(2)) - i / n for i in range(0, n, 300)]
    assert max(map(abs, below)) < room
    a, b = np.asarray(noise["a"]), np.asarray(noise["b"])
    assert abs(np.corrcoef(a, b)[0, 1]) < 6 / math.sqrt(SIZE)


@pytest.mark.slow
def test_steps_and_generators_share_no_value():
    root, tree = chacha_key(SECRET), jnp.zeros(500)
    drawn = [noise_of(jax.random.fold_in(root, step), tree, 1.0) for step in (0, 1)]
    drawn.append(noise_of(jax.random.key(1), tree, 1.0))
    drawn.append(gaussian_noise(jax.random.key(1), tree, 1.0))
    values = np.concatenate([np.asarray(x) for x in drawn])
    assert len(np.unique(values)) >= len(values) - 5


def test_a_second_use_of_a_key_is_found():
    for key in (chacha_key(SECRET), jax.random.key(0)):
        noise_of(key, jnp.zeros(2), 1.0)
        with pytest.raises(jax.errors.KeyReuseError):
            noise_of(key, jnp.zeros(2), 1.0)


@pytest.mark.slow
def test_shards_are_made_without_communication():
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    for shape, spec in (((1280, 256), ("data",)), ((6, 2, 40_000), (None, "data"))):
        spread = NamedSharding(mesh, PartitionSpec(*spec))
        placed = jax.jit(
            lambda key, shape=shape: noise_of(key, jnp.zeros(shape), 1.0),
            out_shardings=spread,
        )
        text = str(placed.lower(jax.random.key(3)).compile().as_text())
        collectives = "all-gather", "all-reduce", "collective-permute", "all-to-all"
        for collective in collectives:
            assert collective not in text
        if shape[0] == 1280:  # ten pieces of 128 rows of one group, half on a device
            assert "u32[64,1,32]" in text
        alone = noise_of(jax.random.key(3), jnp.zeros(shape), 1.0)
        np.testing.assert_array_equal(placed(jax.random.key(3)), alone)


@pytest.mark.slow
def test_large_leaves_need_little_more_than_themselves():
    shape = jax.ShapeDtypeStruct((1000, 1024), jnp.float32)
    program = jax.jit(lambda key: noise_of(key, shape, 1.0)).lower(jax.random.key(0))
    memory: Any = program.compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4e6 / 4  # a quarter of the leaf


@pytest.mark.slow
def test_vectorised_keys_give_the_noise_of_each():
    keys = jax.random.split(chacha_key(SECRET), 2)
    stacked = jax.vmap(lambda key: noise_of(key, jnp.zeros(5), 1.0))(keys)
    for number, key in enumerate(jax.random.split(chacha_key(SECRET), 2)):
        alone = noise_of(key, jnp.zeros(5), 1.0)
        np.testing.assert_allclose(stacked[number], alone, rtol=1e-6)


@pytest.mark.parametrize("secret", [SECRET[:16], SECRET * 2, b""])
def test_secrets_of_another_length_are_refused(secret):
    with pytest.raises(ValueError, match="32"):
        chacha_key(secret)


@pytest.mark.parametrize("secret", [None, 7, "0" * 32, [0] * 32])
def test_secrets_of_another_kind_are_refused(secret):
    with pytest.raises(TypeError, match="secret="):
        chacha_key(secret)


def test_a_chacha_key_serves_nothing_else():
    with pytest.raises(TypeError, match="key="):
        gaussian_noise(chacha_key(SECRET), jnp.zeros(2), 1.0)
    with pytest.raises(TypeError, match="gaussian_noise alone"):
        jax.random.normal(chacha_key(SECRET))
    with pytest.raises(TypeError, match="32 secret bytes"):
        jax.random.key(0, impl=CHACHA20)
    many = jax.random.split(chacha_key(SECRET), 2)
    with pytest.raises(TypeError, match="key="):
        noise_of(many, jnp.zeros(2), 1.0)


def test_too_many_elements_are_refused():
    with pytest.raises(ValueError, match="2\\*\\*35"):
        jax.eval_shape(
            lambda words: chacha_normal(words, (2**16, 2**19), "float32"),
            data_words(chacha_key(SECRET)),
        )
