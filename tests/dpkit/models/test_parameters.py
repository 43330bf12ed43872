"""Parameters come back from both files as they were, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.models.parameters import FILES, as_files, fitted, load_params, read_arrays

PARAMS = {
    "dense": {"kernel": jnp.arange(6.0).reshape(2, 3).T, "scale": jnp.float32(0.1)},
    "half": {"bias": jnp.array([1.5, -2.0], jnp.bfloat16)},
}


@pytest.fixture(params=FILES)
def path(request, tmp_path):
    content = as_files(PARAMS)[request.param]
    (tmp_path / request.param).write_bytes(content)
    return tmp_path / request.param


def test_nested_names_types_and_bits(path):
    found = load_params(path)
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    for got, want in zip(*map(jax.tree.leaves, (found, PARAMS)), strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        assert np.asarray(got).tobytes() == np.asarray(want).tobytes()


def test_a_list_is_fitted_by_its_places():
    arrays = {f"layers/{n}": np.full(n + 1, n) for n in range(11)}
    found = fitted(arrays, {"layers": [np.zeros(n + 1) for n in range(11)]})
    assert [leaf[0] for leaf in found["layers"]] == list(range(11))


@pytest.mark.parametrize("spoil", [lambda c: c[:-9], lambda c: b"", lambda c: c[9:]])
def test_a_damaged_file_is_one_line(path, spoil):
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=r"params.* can't be read") as error:
        read_arrays(path)
    assert "\n" not in str(error.value)


def test_one_array_is_no_archive(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(2))
    with pytest.raises(ValueError, match="can't be read"):
        load_params(tmp_path / "a.npy")
