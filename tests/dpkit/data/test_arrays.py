"""Arrays are exactly the published ones, or they are refused."""

import numpy as np
import pytest

from dpkit.data import DataCorrupt
from dpkit.data.arrays import check_arrays, open_arrays, save_arrays


def _changed(arrays, name, change):
    changed = {key: values.copy() for key, values in arrays.items()}
    changed[name] = change(changed[name])
    return changed


def _flip(values):
    values.flat[5] ^= 1
    return values


def _eleven(values):
    values[3] = 10
    return values


def test_the_right_arrays_pass(tiny):
    for split, arrays in tiny.splits.items():
        check_arrays(tiny.source, split, arrays)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("image", lambda x: x.astype(np.float32), "float32"),
        ("image", lambda x: x[..., 0], "shape"),
        ("image", lambda x: x[:-1], r"shape=\(9, "),
        ("image", _flip, "sha256"),
        ("image", lambda x: x[::-1], "sha256"),
        ("label", lambda x: x.astype(np.int32), "int32"),
        ("label", lambda x: x[1:], r"shape=\(9,"),
        ("label", _eleven, "to 10, 0 to 9 expected"),
        ("label", lambda x: x - 9, "label -8 to"),
        ("label", lambda x: (x + 1) % 10, "sha256"),
    ],
)
def test_anything_else_is_refused(tiny, name, change, message):
    arrays = _changed(tiny.splits["test"], name, change)
    with pytest.raises(DataCorrupt, match=message):
        check_arrays(tiny.source, "test", arrays)


def test_saved_arrays_come_back_mapped_and_read_only(tiny, tmp_path):
    save_arrays(tmp_path / "a", tiny.source, tiny.splits)
    arrays = open_arrays(tmp_path / "a", tiny.source, "train")
    for name, values in tiny.splits["train"].items():
        np.testing.assert_array_equal(arrays[name], values)
        assert arrays[name].dtype == values.dtype
        assert isinstance(arrays[name].base, np.memmap)
        assert not arrays[name].flags.writeable


@pytest.mark.parametrize("file", ["test-image.npy", "test-label.npy"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:40],
        lambda data: b"",
        lambda data: b"no array at all",
        None,
    ],
    ids=["cut", "one bit", "half a header", "empty", "text", "missing"],
)
def test_damaged_files_are_deleted_and_named(tiny, tmp_path, file, damage):
    folder = tmp_path / "a"
    save_arrays(folder, tiny.source, tiny.splits)
    path = folder / file
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(DataCorrupt, match="deleted, try again"):
        open_arrays(folder, tiny.source, "test")
    assert not folder.exists()
