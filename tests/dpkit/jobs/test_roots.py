"""Secret roots: independent, domain-separated, and never shown."""

import jax
import numpy as np
import pytest

from dpkit.data.random_access import ArrayRows
from dpkit.data.units import UserRows
from dpkit.jobs.roots import Roots, secret_key


def words(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_roots_and_keys_all_differ():
    first, second = Roots.draw(), Roots.draw()
    keys = [
        words(key)
        for roots in (first, second)
        for key in (roots.noise_key, roots.sampling_key, roots.model_key)
    ]
    assert len({first.noise, first.sampling, second.noise, second.sampling}) == 4
    assert len(set(keys)) == 6


def test_the_same_root_for_both_purposes_is_refused():
    with pytest.raises(ValueError, match="two independent"):
        Roots(bytes(32), bytes(32))


@pytest.mark.parametrize("root", [b"", bytes(8), bytes(33)])
def test_roots_of_another_length_are_refused(root):
    with pytest.raises(ValueError, match="32 are needed"):
        Roots(root, bytes(range(32)))


def test_insecure_roots_are_a_function_of_the_seed():
    assert Roots.insecure(1) == Roots.insecure(1)
    assert Roots.insecure(1) != Roots.insecure(2)


def test_roots_do_not_show_themselves():
    roots = Roots.insecure(1)
    assert roots.noise.hex() not in repr(roots)
    assert repr(roots.noise) not in repr(roots)


def test_the_fingerprint_sees_data_and_needs_the_root():
    data = np.arange(6, dtype=np.uint8).reshape(3, 2)
    roots = Roots.insecure(1)
    print_of = roots.fingerprint(ArrayRows([data]))
    assert roots.fingerprint(ArrayRows([data.copy()])) == print_of
    assert Roots.insecure(2).fingerprint(ArrayRows([data])) != print_of
    changed = data.copy()
    changed[1, 1] += 1
    assert roots.fingerprint(ArrayRows([changed])) != print_of
    assert roots.fingerprint(ArrayRows([data.reshape(2, 3)])) != print_of
    assert roots.fingerprint(ArrayRows([data.astype(np.int8)])) != print_of


def test_the_fingerprint_sees_every_row_of_users():
    rows = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    users, roots = np.arange(1000) // 2, Roots.insecure(1)
    print_of = roots.fingerprint(UserRows(rows, users, 2))
    for changed in range(0, 1000, 50):
        other = rows.copy()
        other[changed] += 1
        assert roots.fingerprint(UserRows(other, users, 2)) != print_of
    regrouped = np.where(users == 499, 498, users)
    key = jax.random.key(0)
    assert roots.fingerprint(UserRows(rows, regrouped, 2, key=key)) != print_of


def test_secret_keys_have_64_bits_and_differ():
    words = np.array([jax.random.key_data(secret_key()) for _ in range(64)])
    assert words.dtype == np.uint32
    # Each of the 64 bits is seen both ways; it isn't with probability 2 ** -57.
    for column in words.T:
        assert np.bitwise_or.reduce(column) == 2**32 - 1
        assert np.bitwise_and.reduce(column) == 0
