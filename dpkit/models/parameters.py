"""Trained parameters as files: each array under its names, joined by "/".

    params.npz            NumPy's archive
    params.safetensors    the same for other frameworks

Neither kind of file can hold code, and no pickle is ever read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import safe_open
from safetensors.numpy import save

FILES = ("params.npz", "params.safetensors")


def as_files(params: Any) -> dict[str, bytes]:
    """The contents of both files by name.

    Args:
      params: a tree of arrays.

    Example:
      >>> sorted(as_files({"dense": {"bias": np.zeros(2)}}))
      ['params.npz', 'params.safetensors']
    """
    arrays = {n: np.asarray(leaf, order="C") for n, leaf in named(params).items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyrefly: ignore[bad-argument-type]
    return dict(zip(FILES, (buffer.getvalue(), save(arrays)), strict=True))


def load_params(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Parameters from a file, nested by their names, as Flax's own `apply` takes them.

    Args:
      path: a file .npz or .safetensors, as `dpkit train` writes both.

    Raises:
      ValueError: no such file, or not of this kind.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "params.npz")
      ...     _ = path.write_bytes(as_files({"dense": {"bias": np.ones(2)}})[path.name])
      ...     load_params(path)["dense"]["bias"].tolist()
      [1.0, 1.0]
    """
    arrays = {name: jnp.asarray(array) for name, array in read_arrays(path).items()}
    return traverse_util.unflatten_dict(arrays, sep="/")


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays in a file by name.

    Raises:
      ValueError: no such file, or not of this kind.

    Example:
      >>> read_arrays("/nowhere/params.npz")
      Traceback (most recent call last):
      ValueError: '/nowhere/params.npz' can't be read: ... No such file or directory...
    """
    try:
        if Path(path).suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                return {name: file.get_tensor(name) for name in file.keys()}
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except Exception as error:  # whatever a damaged file holds
        raise ValueError(f"{str(path)!r} can't be read: {error}") from None
    # NumPy's archives forget what a bfloat16 is, but not its two bytes.
    return {n: a.view(jnp.bfloat16) if a.dtype == "V2" else a for n, a in found.items()}


def named(tree: Any) -> dict[str, Any]:
    """Leaves of a tree by their names.

    Example:
      >>> named({"dense": {"bias": 1.0}, "scales": [2.0]})
      {'dense/bias': 1.0, 'scales/0': 2.0}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def fitted(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """Arrays by name as a tree of the form that a model wants.

    Args:
      arrays: as `read_arrays` gives them.
      like: a tree of that form, of arrays or of their shapes.

    Raises:
      ValueError: an array is missing, is there without need, or has another shape.

    Example:
      >>> fitted({"bias": np.zeros(3)}, {"bias": np.zeros(2)})
      Traceback (most recent call last):
      ValueError: holds 'bias' of shape (3,), where the model has (2,)
    """
    wanted = named(like)
    for name in sorted(wanted.keys() ^ arrays.keys()):
        state = "lacks" if name in wanted else "has, beyond the model's parameters,"
        raise ValueError(f"{state} {name!r}")
    for name, leaf in wanted.items():
        if arrays[name].shape != leaf.shape:
            shapes = f"{arrays[name].shape}, where the model has {leaf.shape}"
            raise ValueError(f"holds {name!r} of shape {shapes}")
    leaves = [jnp.asarray(arrays[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
