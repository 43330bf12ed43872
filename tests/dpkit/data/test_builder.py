"""The TensorFlow Datasets copy holds the same bits, and impostors are refused."""

import json
import sys
from typing import Any

import numpy as np
import pytest

from dpkit.data import DataCorrupt, builder
from dpkit.data.cache import Cache

pytestmark = pytest.mark.skipif(
    not builder.can_build(), reason="array_record is made for Linux only"
)


def _ignore(message: str) -> None:
    pass


@pytest.fixture(scope="module")
def prepared(tiny, tmp_path_factory) -> Cache:
    """A cache with the tiny data set in it; not to be changed."""
    cache = Cache(tmp_path_factory.mktemp("prepared"))
    builder.prepare(cache, tiny.source, tiny.splits, _ignore)
    return cache


@pytest.fixture
def writable(tiny, prepared, tmp_path) -> Cache:
    """A copy of it that may be changed."""
    cache = Cache(tmp_path)
    from_, to = prepared.tfds / "mnist" / "3.0.1", cache.tfds / "mnist" / "3.0.1"
    to.mkdir(parents=True)
    for path in from_.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return cache


def _info(cache: Cache):
    return cache.tfds / "mnist" / "3.0.1" / "dataset_info.json"


@pytest.mark.slow
def test_plain_tfds_reads_the_same_bits(tiny, prepared):
    import tensorflow_datasets as tfds

    for split, arrays in tiny.splits.items():
        rows: Any = tfds.data_source("mnist", split=split, data_dir=prepared.tfds)
        assert len(rows) == len(arrays["label"])
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(row["image"], arrays["image"][i])
            assert row["image"].dtype == np.uint8
            assert row["label"] == arrays["label"][i]
    assert "tensorflow" not in sys.modules


def test_slices_and_random_access(tiny, prepared):
    import tensorflow_datasets as tfds

    where = prepared.tfds
    rows: Any = tfds.data_source("mnist", split="test[:20%]", data_dir=where)
    assert len(rows) == 2
    np.testing.assert_array_equal(rows[1]["image"], tiny.splits["test"]["image"][1])


def test_read_prepared_gives_the_arrays_back(tiny, prepared):
    assert builder.is_prepared(prepared, tiny.source)
    for split, arrays in builder.read_prepared(prepared, tiny.source).items():
        for name, values in tiny.splits[split].items():
            np.testing.assert_array_equal(arrays[name], values)
            assert arrays[name].dtype == values.dtype


def test_colour_images_round_trip():
    image = np.random.default_rng(3).integers(0, 256, (5, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(builder._decode(builder._encode(image).read()), image)


def test_nothing_is_printed_and_no_setting_is_left_changed(tiny, tmp_path, capfd):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import tqdm_utils

    messages = []
    for shown in (True, False):
        tfds.display_progress_bar(shown)
        cache = Cache(tmp_path / str(shown))
        builder.prepare(cache, tiny.source, tiny.splits, messages.append)
        assert tqdm_utils._active is shown
        assert [p.name for p in cache.tfds.iterdir()] == ["mnist"]
    tfds.display_progress_bar(True)
    assert capfd.readouterr() == ("", "")
    assert any("train image 0 of 30" in message for message in messages)


@pytest.mark.parametrize("file_format", ["parquet", "tfrecord", None])
def test_other_formats_are_refused_and_left_alone(tiny, writable, file_format):
    info = json.loads(_info(writable).read_text())
    info["fileFormat"] = file_format
    _info(writable).write_text(json.dumps(info))
    with pytest.raises(DataCorrupt, match="fileFormat"):
        builder.is_prepared(writable, tiny.source)
    assert _info(writable).exists()


def test_other_sizes_are_refused(tiny, writable):
    info = json.loads(_info(writable).read_text())
    info["splits"][0]["shardLengths"] = ["20", "9"]
    _info(writable).write_text(json.dumps(info))
    with pytest.raises(DataCorrupt, match="29"):
        builder.is_prepared(writable, tiny.source)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"splits": [{"name": "train"}]}'])
def test_an_unreadable_description_is_refused(tiny, writable, text):
    _info(writable).write_text(text)
    with pytest.raises(DataCorrupt, match=r"dataset_info\.json"):
        builder.is_prepared(writable, tiny.source)


def test_another_order_is_refused(tiny, tmp_path):
    turned = {
        split: {name: values[::-1] for name, values in arrays.items()}
        for split, arrays in tiny.splits.items()
    }
    cache = Cache(tmp_path)
    builder.prepare(cache, tiny.source, turned, _ignore)
    with pytest.raises(DataCorrupt, match="another order"):
        builder.read_prepared(cache, tiny.source)


def test_a_full_disk_is_an_os_error_that_names_the_place(tiny, tmp_path):
    # array_record reports a full disk as a RuntimeError; raised here from the one place
    # of ours that runs inside the writing.
    def fill(message: str) -> None:
        raise RuntimeError("write() failed: No space left on device")

    with pytest.raises(OSError, match="No space left on device") as caught:
        builder.prepare(Cache(tmp_path), tiny.source, tiny.splits, fill)
    assert str(tmp_path) in str(caught.value)
    assert not builder.is_prepared(Cache(tmp_path), tiny.source)


def test_an_interrupted_preparation_leaves_nothing(tiny, tmp_path):
    cache = Cache(tmp_path)

    def interrupt(message: str) -> None:
        if "test image" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        builder.prepare(cache, tiny.source, tiny.splits, interrupt)
    assert not builder.is_prepared(cache, tiny.source)
    assert list((tmp_path / "tmp").iterdir()) == []
