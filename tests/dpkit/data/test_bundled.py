"""The digits of scikit-learn, without a download."""

import importlib.util

import numpy as np
import pytest

from dpkit.data import DataCorrupt, DataUnavailable, load, load_arrays

pytest.importorskip("sklearn")


def test_the_two_splits_are_all_images_in_their_order():
    from sklearn.datasets import load_digits

    train, test = (load_arrays("digits", split) for split in ("train", "test"))
    image = np.concatenate([train["image"], test["image"]])
    pixels, original = load_digits(return_X_y=True)
    np.testing.assert_array_equal(image.reshape(-1, 64), pixels)
    labels = np.concatenate([train["label"], test["label"]])
    np.testing.assert_array_equal(labels, original)
    # The description that comes with the data set: 1,797 images in 10 classes, integers
    # from 0 to 16.
    assert len(labels) == 1797
    assert image.dtype == np.uint8 and image.max() == 16


def test_schema_and_arrays_agree(tmp_path):
    digits = load("digits", cache_dir=tmp_path)
    assert digits.tfds_dir is None
    for split, size in digits.schema.split_sizes.items():
        arrays = digits.arrays(split)
        assert arrays["image"].shape == (size, *digits.schema.shape)
        assert arrays["label"].max() == digits.schema.num_classes - 1
        assert not arrays["image"].flags.writeable
    assert list(tmp_path.iterdir()) == []


def test_without_scikit_learn_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataUnavailable, match="pip install scikit-learn"):
        load("digits")


def test_other_digits_are_refused(monkeypatch):
    import sklearn.datasets

    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    pixels[3, 20] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda **_: (pixels, labels))
    with pytest.raises(DataCorrupt, match="digits train: image sha256"):
        load_arrays("digits", "train")
