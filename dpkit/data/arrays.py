"""The arrays of a split: what they must be, and the memory-mapped files they live in.

Whatever route brought them, arrays are compared with the record's published shape,
range and hash: when they are written, and again each time they are opened (a twentieth
of a second for MNIST), so a run never trains on something else than it says.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dpkit.data.errors import DataCorrupt
from dpkit.data.idx import idx_sha256
from dpkit.data.records import Source

Arrays = dict[str, np.ndarray]


def check_arrays(source: Source, split: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays that are not exactly the published split.

    Args:
      source: the record.
      split: a split of the record.
      arrays: one for each of `source.fields`, with a row for each example.

    Raises:
      DataCorrupt: a wrong dtype, shape, value or hash.

    Example:
      >>> from dpkit.data import SOURCES
      >>> image, label = np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, int)
      >>> check_arrays(SOURCES["digits"], "test", {"image": image, "label": label})
      Traceback (most recent call last):
      dpkit.data.errors.DataCorrupt: digits test: image shape=(3, 8, 8, 1), ...
    """
    record = source.splits[split]
    for name, field in source.fields.items():
        place, values = f"{source.name} {split}: {name}", arrays[name]
        _check_form(place, values, (record.size, *field.shape), field.dtype)
        _check_range(place, values, field.limit)
        # Labels are stored wide, and published in bytes.
        plain = values.astype(np.uint8) if name == "label" else values
        _check_hash(place, plain, record.sha256[name])


def save_arrays(
    folder: Path, source: Source, splits: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Check every split of the record, then write it to .npy files in `folder`.

    Raises:
      DataCorrupt: as `check_arrays`.
      OSError: a file could not be written, on a full disk for example.

    Example:
      >>> save_arrays(Path("arrays"), SOURCES["mnist"], splits)  # doctest: +SKIP
    """
    folder.mkdir(parents=True)
    for split in source.splits:
        check_arrays(source, split, splits[split])
        for name, values in splits[split].items():
            path = folder / f"{split}-{name}.npy"
            try:
                np.save(path, values, allow_pickle=False)
            except OSError as error:  # NumPy's own says neither where nor which file
                raise OSError(f"{path}: could not be written: {error}") from error


def open_arrays(folder: Path, source: Source, split: str) -> Arrays:
    """The arrays of a split, memory-mapped and read-only.

    Raises:
      DataCorrupt: the files are damaged. They are deleted, so the next load prepares
        them anew.

    Example:
      >>> open_arrays(Path("arrays"), SOURCES["mnist"], "test")  # doctest: +SKIP
      {'image': array(...), 'label': array(...)}
    """
    try:
        arrays = {name: _map(folder, split, name) for name in source.fields}
        check_arrays(source, split, arrays)
    except (DataCorrupt, ValueError, EOFError, FileNotFoundError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        state = "delete it by hand" if folder.exists() else "it was deleted, try again"
        raise DataCorrupt(f"{folder}: {error}; {state}") from error
    return arrays


def _map(folder: Path, split: str, name: str) -> np.ndarray:
    """A plain array over a mapped file."""
    mapped = np.load(folder / f"{split}-{name}.npy", mmap_mode="r", allow_pickle=False)
    return np.asarray(mapped)


def _check_form(
    place: str, values: np.ndarray, shape: tuple[int, ...], dtype: str
) -> None:
    """Shape and dtype are the published ones."""
    if values.shape != shape or values.dtype != dtype:
        raise DataCorrupt(
            f"{place} shape={values.shape}, dtype={values.dtype}; "
            f"shape={shape}, dtype={dtype} expected"
        )


def _check_range(place: str, values: np.ndarray, limit: int) -> None:
    """The values are among the published ones; all of a byte's are."""
    if limit > np.iinfo(values.dtype).max or not values.size:
        return
    low, high = values.min(), values.max()
    if not 0 <= low <= high < limit:
        raise DataCorrupt(f"{place} {low} to {high}, 0 to {limit - 1} expected")


def _check_hash(place: str, values: np.ndarray, expected: str) -> None:
    """The values are the published ones."""
    found = idx_sha256(values)
    if found != expected:
        raise DataCorrupt(f"{place} sha256={found}, {expected} expected")
