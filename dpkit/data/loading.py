"""`load` and `load_arrays`: from a name to checked arrays.

What is prepared is used; else what is cached is prepared; else, and only if the caller
allows it, it is fetched. By default nothing touches the network.
"""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dpkit.data import builder, sources
from dpkit.data.arrays import Arrays, open_arrays
from dpkit.data.bundled import read_bundled
from dpkit.data.cache import Cache, open_cache
from dpkit.data.records import Source
from dpkit.data.resolution import ensure_arrays

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Facts:
    """What is publicly known about a data set, none of it computed from its rows.

    Attributes:
      num_classes: labels are 0 … num_classes - 1; in text, symbols are.
      shape: (height, width, channels) of one image, or (symbols to predict,) of one
        window of text, which holds one symbol more.
      split_sizes: the published number of examples of each split.
      pixel_scale: public constant; an image divided by it lies in [0, 1].
      kind: "image" or "text".
      vocabulary: the characters that symbols stand for, in text.
      num_users: users are 0 … num_users - 1 over all splits, in text that has any.

    Example:
      >>> load("digits").schema.split_sizes["train"]
      1437
    """

    num_classes: int
    shape: tuple[int, ...]
    split_sizes: Mapping[str, int]
    pixel_scale: int
    kind: str = "image"
    vocabulary: str = ""
    num_users: int = 0


@dataclass(frozen=True)
class Dataset:
    """A data set that is ready on this machine.

    Attributes:
      source: its record: licence, citation, caveats, hashes.
      cache: where its files are.
      tfds_dir: the `data_dir` under which TensorFlow Datasets finds it, or None.

    Example:
      >>> load("digits").arrays("test")["label"][:5]
      array([2, 3, 4, 5, 6])
    """

    source: Source
    cache: Cache
    tfds_dir: Path | None

    @property
    def name(self) -> str:
        """What `load` takes."""
        return self.source.name

    @property
    def version(self) -> str:
        """The version of the data, as in TensorFlow Datasets."""
        return self.source.version

    @property
    def schema(self) -> Facts:
        """The public facts about the data."""
        sizes = {name: split.size for name, split in self.source.splits.items()}
        return Facts(
            num_classes=self.source.num_classes,
            shape=self.source.shape,
            split_sizes=MappingProxyType(sizes),
            pixel_scale=self.source.pixel_scale,
            kind=self.source.kind,
            vocabulary=self.source.vocabulary,
            num_users=self.source.num_users,
        )

    def arrays(self, split: str) -> Arrays:
        """The arrays of one split, read-only, checked against the published hashes.

        Args:
          split: a split of `schema.split_sizes`.

        Returns:
          By name, memory-mapped where the data came from an archive. Of images:
          "image", uint8 (num_examples, height, width, channels); "label", int64
          (num_examples,). Of text: "tokens", uint8 (num_examples, symbols to predict
          + 1), one window a row; "user", int32 (num_examples,), whose text it is, if
          the source has users.

        Raises:
          ValueError: the data set has no such split.
          DataCorrupt: the files were damaged since they were prepared.
        """
        _check_split(self.source, split)
        if self.source.archive is None:
            return read_bundled(self.source, split)
        return open_arrays(self.cache.arrays(self.source), self.source, split)


def load(
    name: str,
    *,
    allow_download: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Make a data set ready, for arrays and for TensorFlow Datasets, and describe it.

    Args:
      name: a key of `SOURCES`.
      allow_download: whether it may be fetched; None: only if the environment has
        `DPKIT_ALLOW_DOWNLOAD=1`.
      cache_dir: where data is kept; by default `DPKIT_CACHE`, else the user's cache.
      on_progress: told in one line what is being done, and the licence on a download.

    Returns:
      The data set. The second time nothing is left to do, so it is instant.

    Raises:
      ValueError: no data set has that name.
      DataUnavailable: not on this machine, and not allowed or not possible to fetch.
      DataCorrupt: an archive, a prepared file or a prepared directory isn't the one on
        record; what we made ourselves is deleted.

    Example:
      >>> load("digits").schema.num_classes
      10
    """
    source = _find(name)
    tell = on_progress or _silent
    cache = open_cache(cache_dir)
    ensure_arrays(source, cache, allow_download, tell)
    dataset = Dataset(source, cache, tfds_dir=None)
    if source.archive is None or not builder.can_build():
        return dataset
    if not builder.is_prepared(cache, source):
        splits = {split: dataset.arrays(split) for split in source.splits}
        builder.prepare(cache, source, splits, tell)
    return Dataset(source, cache, tfds_dir=cache.tfds)


def described(name: str) -> Dataset:
    """A data set by what is publicly known of it; its rows need not be here.

    Raises:
      ValueError: no data set has that name.

    Example:
      >>> described("mnist").schema.split_sizes["train"]
      60000
    """
    return Dataset(_find(name), open_cache(None), tfds_dir=None)


def load_arrays(
    name: str,
    split: str,
    *,
    allow_download: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    on_progress: OnProgress | None = None,
) -> Arrays:
    """The arrays of one split; works wherever NumPy does.

    Args:
      name: as for `load`.
      split: "train" or "test".
      allow_download: as for `load`.
      cache_dir: as for `load`.
      on_progress: as for `load`.

    Returns:
      By name, as `Dataset.arrays`.

    Raises:
      ValueError: no such data set, or no such split.
      DataUnavailable: as for `load`.
      DataCorrupt: as for `load`.

    Example:
      >>> load_arrays("digits", "train")["image"].shape
      (1437, 8, 8, 1)
    """
    source = _find(name)
    _check_split(source, split)
    cache = open_cache(cache_dir)
    ensure_arrays(source, cache, allow_download, on_progress or _silent)
    return Dataset(source, cache, tfds_dir=None).arrays(split)


def _find(name: str) -> Source:
    """The record of that name, or a suggestion."""
    known = sources.SOURCES
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: the name of a data set needed, as a string")
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"name={name!r}: no such data set; {hint}known: {', '.join(sorted(known))}"
    )


def _check_split(source: Source, split: str) -> None:
    """A split of the record."""
    if split not in source.splits:
        raise ValueError(
            f"split={split!r}: {source.name} has {', '.join(source.splits)}"
        )


def _silent(_: str) -> None:
    """Tell nobody."""
