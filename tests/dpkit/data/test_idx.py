"""The IDX reader against bytes written out by hand."""

import hashlib

import numpy as np
import pytest

from dpkit.data import DataCorrupt
from dpkit.data.idx import idx_header, idx_sha256, read_idx

# Two images of 1x3 pixels: magic 0x00000803, then 2, 1, 3, then six pixels.
_IMAGES = bytes.fromhex("00000803 00000002 00000001 00000003 000102 fdfeff")


def test_reads_images_in_row_order():
    values = read_idx(_IMAGES, ndim=3)
    assert values.dtype == np.uint8
    assert values.tolist() == [[[0, 1, 2]], [[253, 254, 255]]]
    assert not values.flags.writeable


@pytest.mark.parametrize(
    "data",
    [_IMAGES[:-1], _IMAGES + b"\0", _IMAGES[:9], b"", _IMAGES[:16]],
    ids=["short", "long", "half a header", "empty", "no pixels"],
)
def test_refuses_another_length(data):
    with pytest.raises(DataCorrupt, match="expected"):
        read_idx(data, ndim=3)


def test_refuses_other_dimensions_and_types():
    with pytest.raises(DataCorrupt, match="00000803"):
        read_idx(_IMAGES, ndim=1)
    floats = bytes.fromhex("00000d01 00000001 3f800000")
    with pytest.raises(DataCorrupt, match="00000d01"):
        read_idx(floats, ndim=1)


def test_hash_is_that_of_the_published_file():
    expected = hashlib.sha256(_IMAGES).hexdigest()
    images = np.array([[[0, 1, 2]], [[253, 254, 255]]], np.uint8)
    assert idx_header((2, 1, 3)) == _IMAGES[:16]
    assert idx_sha256(images) == expected
    assert idx_sha256(images[..., None]) == expected
    assert idx_sha256(np.asfortranarray(images)) == expected
    assert idx_sha256(images[::-1]) != expected
