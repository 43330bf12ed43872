"""The real MNIST, where the cache has it: oracles that every copy of it must meet."""

from typing import Any

import numpy as np
import pytest

from dpkit.data import Dataset, DataUnavailable, load

pytestmark = pytest.mark.needs_data


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    try:
        return load("mnist")
    except DataUnavailable as error:
        pytest.skip(str(error))


def test_label_counts(mnist):
    # Counted in the authors' files; the training row is in many papers on imbalance.
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist.arrays("train")["label"]).tolist() == train
    assert np.bincount(mnist.arrays("test")["label"]).tolist() == test


def test_known_pixels(mnist):
    train, test = mnist.arrays("train"), mnist.arrays("test")
    # The first test image is the well-known seven.
    assert test["label"][0] == 7
    assert int(test["image"][0].sum()) == 18454
    # Mean and deviation that the literature normalises with: .1307 and .3081.
    counts = np.bincount(train["image"].reshape(-1), minlength=256)
    values = np.arange(256) / mnist.schema.pixel_scale
    mean = np.average(values, weights=counts)
    variance = np.average((values - mean) ** 2, weights=counts)
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert variance**0.5 == pytest.approx(0.3081, abs=5e-5)


def test_forms(mnist):
    for split, size in (("train", 60_000), ("test", 10_000)):
        arrays = mnist.arrays(split)
        assert arrays["image"].shape == (size, 28, 28, 1)
        assert arrays["image"].dtype == np.uint8
        assert arrays["label"].shape == (size,)
        assert isinstance(arrays["image"].base, np.memmap)


def test_tensorflow_datasets_holds_the_same(mnist):
    if mnist.tfds_dir is None:
        pytest.skip("array_record is made for Linux only")
    import tensorflow_datasets as tfds

    arrays = mnist.arrays("test")
    rows: Any = tfds.data_source("mnist", split="test", data_dir=mnist.tfds_dir)
    assert len(rows) == 10_000
    for i in [*range(100), 5_000, 9_999]:
        np.testing.assert_array_equal(rows[i]["image"], arrays["image"][i])
        assert rows[i]["label"] == arrays["label"][i]
