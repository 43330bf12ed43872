"""A release as a file: the same answers, no key, no row, and nothing else is taken."""

from typing import Any

import jax
import numpy as np
import pytest

from dpkit.density import Shard, files, load, release
from dpkit.mechanisms.density import (
    ClassSums,
    Gaussian,
    Kernel,
    KernelSketch,
    PublicArray,
    Radial,
)

POINTS = np.random.default_rng(0).normal(4, 1.5, (900, 1))

SETTINGS: dict[str, dict[str, Any]] = {
    "grid": {"bandwidth": 1.0, "domain": [(0, 9)]},
    "sketch": {"bandwidth": 1.0, "structure": "sketch", "features": 64},
    "landmarks": {
        "bandwidth": 1.0,
        "landmarks": [[1.0], [4.0]],
        "landmarks_public": True,
    },
    "cdf": {"kernel": "l1", "domain": [(0, 9)]},
    "hats": {"kernel": "l1", "domain": [(0, 9)], "delta": 0.0},
    "powers": {"kernel": "lp", "power": 1.5, "domain": [(0, 9)], "delta": 0.0},
    "moments": {"kernel": "l2_squared", "domain": [(0, 9)]},
    "projected": {"kernel": "l2", "domain": [(0, 9)]},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_file_answers_the_same_and_holds_no_secret(settings, tmp_path):
    points = POINTS.copy()
    points[7] = 3.14159265358979
    given: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-6, "records": 900, **settings}
    out = release(points, key=jax.random.key(771_345_123), **given)
    path = tmp_path / "density.safetensors"
    out.save(path)
    for found in (load(path), load(tmp_path)):
        queries = np.array([[1.5], [4.0]])
        for a, b in zip(out.query(queries), found.query(queries), strict=True):
            np.testing.assert_array_equal(a, b)
        assert found.structure == out.structure
        assert found.facts == dict(out.facts)
        assert repr(found) == repr(out)
    written = path.read_bytes()
    keys = [jax.random.key(771_345_123), *jax.random.split(jax.random.key(771_345_123))]
    secrets = [np.asarray(jax.random.key_data(key)).tobytes() for key in keys]
    for dtype in (np.float64, np.float32):
        secrets += [row.astype(dtype).tobytes() for row in (points[7], points[100])]
    secrets += [b"771345123", b"3.14159265"]
    shard = Shard(out.structure)
    shard.add(points)
    secrets.append(shard.private_total.tobytes())
    assert not any(secret in written for secret in secrets)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "density.safetensors"
    with pytest.raises(ValueError, match="doesn't exist"):
        load(path)
    path.write_bytes(b"no such file")
    with pytest.raises(ValueError, match="no released structure"):
        load(path)
    release(
        POINTS, key=jax.random.key(0), epsilon=1.0, delta=1e-6, **SETTINGS["grid"]
    ).save(path)
    good = path.read_bytes()
    for old, new, said in (
        (b"SplineGrid", b"SplineGrib", "damaged"),
        (b"SplineGrid", b"ClassSums_", "damaged"),
        (b"gaussian", b"gauzzian", "damaged"),
        (b'\\"version\\": 1', b'\\"version\\": 2', "version 2"),
        (b"dpkit_density", b"dpkit_dentist", "no released structure"),
        (b"bandwidth", b"bandwirth", "damaged"),
        (b'"F64"', b'"I64"', "damaged"),
    ):
        assert good.count(old) >= 1, old
        path.write_bytes(good.replace(old, new))
        with pytest.raises(ValueError, match=said):
            load(path)
    path.write_bytes(good[:-8])
    with pytest.raises(ValueError, match="no released structure"):
        load(path)


def test_tables_of_classes_and_numbers_of_numpy(tmp_path):
    sketch = KernelSketch(
        kernel=Kernel("cauchy", 0.7),
        frequencies=PublicArray([[0.5]]),
        reduction=PublicArray([[1.0], [2.0]]),
        noise=Gaussian(3.0),
    )
    table = ClassSums(
        classes=np.int64(3),
        dimension=2,
        sketch=sketch,
        max_weight=np.float64(2.0),
        noise=Radial(np.float64(0.5)),
    )
    values = np.arange(table.size, dtype=np.float64)
    files.write(tmp_path / "a", table, values, {"epsilon": None})
    found = files.read(tmp_path / "a")
    assert found[0] == table
    np.testing.assert_array_equal(found[1], values)
    assert found[2] == {"epsilon": None}
