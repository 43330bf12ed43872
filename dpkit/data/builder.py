"""The same data in the on-disk format of TensorFlow Datasets, without TensorFlow.

Afterwards the ordinary call reads it, with random access and slices:

    tfds.data_source("mnist", split="test[:20%]", data_dir=dataset.tfds_dir)

Only the array_record format is used: of the other two that the library can write, one
needs TensorFlow and the other, parquet, loses rows without saying so. Images are handed
over as PNG bytes, since TensorFlow Datasets would ask TensorFlow to encode arrays.
array_record exists for Linux only; elsewhere the arrays serve alone.
"""

import importlib.util
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpkit.data.arrays import Arrays, check_arrays
from dpkit.data.cache import Cache, publish
from dpkit.data.errors import DataCorrupt
from dpkit.data.records import Source


def can_build() -> bool:
    """Whether this machine can read and write the format.

    Example:
      >>> can_build() in (True, False)
      True
    """
    needed = ("array_record", "tensorflow_datasets", "importlib_resources", "PIL")
    return all(importlib.util.find_spec(name) is not None for name in needed)


def is_prepared(cache: Cache, source: Source) -> bool:
    """Whether a prepared directory is there; it is refused if it is not the record's.

    Raises:
      DataCorrupt: another format than array_record, or other split sizes. The directory
        may be the user's own, so it is left alone.

    Example:
      >>> from dpkit.data import SOURCES
      >>> is_prepared(Cache(Path("/nowhere")), SOURCES["mnist"])
      False
    """
    folder = _folder(cache, source)
    if not folder.exists():
        return False
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        sizes = {s["name"]: sum(map(int, s["shardLengths"])) for s in info["splits"]}
        file_format = info.get("fileFormat")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _refused(folder, f"no readable dataset_info.json ({error})") from error
    if file_format != "array_record":
        raise _refused(folder, f"fileFormat={file_format!r}, 'array_record' needed")
    expected = {name: split.size for name, split in source.splits.items()}
    if sizes != expected:
        raise _refused(folder, f"split sizes {sizes}, {expected} expected")
    return True


def prepare(
    cache: Cache,
    source: Source,
    splits: Mapping[str, Mapping[str, np.ndarray]],
    on_progress: Callable[[str], None],
) -> None:
    """Write the arrays of a data set for TensorFlow Datasets.

    Args:
      cache: where to.
      source: the record.
      splits: the checked arrays of every split.
      on_progress: told every 10,000 rows.

    Raises:
      OSError: it could not be written, on a full disk for example.

    Example:
      >>> prepare(cache, SOURCES["mnist"], splits, print)  # doctest: +SKIP
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import tqdm_utils

    bars = getattr(tqdm_utils, "_active", True)
    tfds.display_progress_bar(False)
    try:
        with cache.workplace() as folder:
            builder = _builder_class(source, splits, on_progress)(
                data_dir=folder, file_format="array_record"
            )
            builder.download_and_prepare(download_dir=folder / "downloads")
            publish(folder / source.name / source.version, _folder(cache, source))
    except RuntimeError as error:  # what array_record makes of a full disk
        raise OSError(f"{cache.tfds}: could not be written: {error}") from error
    finally:
        tfds.display_progress_bar(bars)


def read_prepared(cache: Cache, source: Source) -> dict[str, Arrays]:
    """The arrays of every split out of a prepared directory.

    Raises:
      DataCorrupt: other rows than those on record, or in another order.

    Example:
      >>> read_prepared(cache, SOURCES["mnist"])["test"]  # doctest: +SKIP
      {'image': array(...), 'label': array(...)}
    """
    import tensorflow_datasets as tfds

    reader = tfds.builder_from_directory(_folder(cache, source))
    splits = {split: _read_split(reader, source, split) for split in source.splits}
    try:
        for split, arrays in splits.items():
            check_arrays(source, split, arrays)
    except DataCorrupt as error:
        reason = f"other rows than on record, or in another order ({error})"
        raise _refused(_folder(cache, source), reason) from error
    return splits


def _read_split(reader: Any, source: Source, split: str) -> Arrays:
    """The arrays of one split, in the order of the directory."""
    import tensorflow_datasets as tfds

    # Decoding the PNGs here spares each image a detour, and a warning about OpenCV.
    raw = {"image": tfds.decode.SkipDecoding()} if source.kind == "image" else {}
    rows = reader.as_data_source(split, decoders=raw)
    arrays = {
        name: np.empty((len(rows), *field.shape), field.dtype)
        for name, field in source.fields.items()
    }
    for i, row in enumerate(rows):
        for name, values in arrays.items():
            if name == "image":
                values[i] = _decode(row[name]).reshape(source.shape)
            else:
                values[i] = row[name]
    return arrays


def _folder(cache: Cache, source: Source) -> Path:
    """Where TensorFlow Datasets looks for this data set."""
    return cache.tfds / source.name / source.version


def _refused(folder: Path, reason: str) -> DataCorrupt:
    """The error about a directory that must not be read."""
    return DataCorrupt(
        f"{folder}: refused, {reason}; move it away, or choose another cache_dir"
    )


def _builder_class(
    source: Source,
    splits: Mapping[str, Mapping[str, np.ndarray]],
    on_progress: Callable[[str], None],
) -> Any:
    """A builder with the official name, version and features that reads our arrays."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = source.name
        VERSION = tfds.core.Version(source.version)

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"{source.citation}. Licence: {source.licence}.",
                features=tfds.features.FeaturesDict(_features(source)),
                supervised_keys=("image", "label") if source.kind == "image" else None,
                citation=source.citation,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
            size = source.splits[split].size
            place = f"{source.name}: writing for TensorFlow Datasets"
            for i in range(size):
                if i % 10_000 == 0:
                    on_progress(f"{place}, {split} {source.kind} {i} of {size}")
                row = {name: values[i] for name, values in splits[split].items()}
                if "image" in row:
                    row["image"] = _encode(row["image"])
                yield i, row

        # These two print to stdout, which belongs to the caller.
        def _log_download_bytes(self) -> None:
            pass

        def _log_download_done(self) -> None:
            pass

    return Builder


def _features(source: Source) -> dict[str, Any]:
    """What a row holds, in the words of TensorFlow Datasets."""
    import tensorflow_datasets as tfds

    features: dict[str, Any] = {}
    for name, field in source.fields.items():
        dtype = np.dtype(field.dtype)
        features[name] = tfds.features.Tensor(shape=field.shape, dtype=dtype)
    if source.kind == "image":
        features["image"] = tfds.features.Image(shape=source.shape)
        features["label"] = tfds.features.ClassLabel(num_classes=source.num_classes)
    return features


def _encode(image: np.ndarray) -> io.BytesIO:
    """PNG bytes of one image; level 1 is quick, and as small as 6 on digits."""
    from PIL import Image

    stream = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    stream.seek(0)
    return stream


def _decode(png: bytes) -> np.ndarray:
    """The pixels of one PNG."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image, np.uint8)
