"""Tables from files and objects, as one stream of record batches.

    .csv .tsv .parquet .arrow .feather .npz .npy    or a folder of such files
    a folder of pictures, with a sub-folder for each class: columns image, label, file
    a text file, or a folder of them: columns text and file, a row for each line
    anything with `__arrow_c_stream__`: pandas, Polars, DuckDB, pyarrow, datasets
    a dict of NumPy arrays; rows by number, such as data sources of TensorFlow Datasets

Only the names of columns are looked at before rows are read, and no message repeats
what stands in a row.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.data.schema import as_text

if TYPE_CHECKING:
    import pyarrow as pa

    Batches = Iterator[Mapping[str, pa.Array]]

_BATCH = 8192  # records
_BLOCK = 4 * 2**20  # bytes of a CSV file
PICTURES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
)
TEXTS = frozenset((".txt", ".text", ".md"))


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where rows come from.

    Attributes:
      names: the columns that there are; never shown, where they may be a person's row.
      read: a stream of the named columns, batch by batch.
      total: how many records there are, where that is told beforehand; private.

    Example:
      >>> origin = open_origin({"x": np.arange(3)})
      >>> [len(batch["x"]) for batch in origin.read(["x"])]
      [3]
    """

    names: tuple[str, ...]
    read: Callable[[Sequence[str]], Batches]
    total: int | None = None


def open_origin(source: Any, *, strict: bool = False) -> Origin:
    """A source of rows, of any kind in the list above.

    Args:
      source: a path, or an object.
      strict: whether a line of CSV with another number of values raises; else it is no
        record.

    Raises:
      ValueError: no such file, a file of no known kind, or a damaged one.
      TypeError: an object that has no rows.

    Example:
      >>> open_origin({"x": np.arange(3), "y": np.zeros((3, 2))}).names
      ('x', 'y')
    """
    if isinstance(source, str | os.PathLike):
        return _of_path(Path(source), strict)
    if hasattr(source, "__arrow_c_stream__"):
        return _of_stream(source)
    if isinstance(source, Mapping):
        return _of_arrays({name: np.asarray(a) for name, a in source.items()})
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return _of_rows(source)
    raise TypeError(
        f"source={type(source).__name__}: give a path, an object with "
        "__arrow_c_stream__ (pandas, Polars, DuckDB, pyarrow), a dict of arrays, or "
        "rows by number"
    )


def _of_path(path: Path, strict: bool) -> Origin:
    """A file, or a folder."""
    if path.is_dir():
        return _of_folder(path, strict)
    if not path.exists():
        raise ValueError(f"path={str(path)!r} doesn't exist")
    kind = _kind_of(path)
    readers = {
        ".csv": lambda path: _of_csv(path, strict),
        ".tsv": lambda path: _of_csv(path, strict),
        ".parquet": _of_parquet,
        ".arrow": _of_arrow,
        ".feather": _of_arrow,
        ".npz": _of_npz,
        ".npy": lambda path: _of_npy([path]),
    }
    if kind in TEXTS:
        return _of_texts([path])
    if kind not in readers:
        known = ", ".join([*readers, *sorted(TEXTS)])
        raise ValueError(f"path={str(path)!r} has no known ending: use {known}")
    with _told(path):
        return readers[kind](path)


def _kind_of(path: Path) -> str:
    """The ending that tells what is in a file; one of compression is passed over."""
    endings = [ending.lower() for ending in path.suffixes]
    packed = endings[-1:] in ([".gz"], [".zst"], [".bz2"]) and len(endings) > 1
    return (endings or [""])[-2 if packed else -1]


def _of_folder(path: Path, strict: bool) -> Origin:
    """Files of one kind, or pictures by class."""
    found = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] not in "._")
    kinds = {_kind_of(p) for p in found}
    if not found:
        raise ValueError(f"path={str(path)!r} is an empty folder")
    if kinds <= PICTURES:
        return _of_pictures(path, found)
    if kinds <= TEXTS:
        return _of_texts(found)
    if len(kinds) > 1:
        raise ValueError(
            f"path={str(path)!r} holds files of several kinds, "
            f"{', '.join(sorted(kinds))}: keep one kind in a folder"
        )
    if kinds == {".npy"}:
        return _of_npy(found)
    parts = [_of_path(p, strict) for p in found]
    for part, file in zip(parts, found, strict=True):
        if set(part.names) != set(parts[0].names):
            raise ValueError(f"{str(file)!r} has other columns than {str(found[0])!r}")
    totals = [part.total for part in parts if part.total is not None]
    return Origin(
        parts[0].names,
        lambda names: itertools.chain.from_iterable(p.read(names) for p in parts),
        sum(totals) if len(totals) == len(parts) else None,
    )


def _of_csv(path: Path, strict: bool) -> Origin:
    """Text with a first line of names; every column is read as text."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    with pa.input_stream(str(path)) as file:
        line = file.read(2**16).decode("utf-8-sig", errors="replace").splitlines()[:1]
    delimiter = "\t" if ".tsv" in path.suffixes else _delimiter(line)
    names = next(csv.reader(line, delimiter=delimiter), [])
    if len(set(names)) < len(names):
        raise ValueError("its first line, of names, has one twice")

    def read(wanted: Sequence[str]) -> Batches:
        stream = arrow.open_csv(
            pa.input_stream(str(path)),
            arrow.ReadOptions(block_size=_BLOCK, column_names=names, skip_rows=1),
            arrow.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                # A line of another length is no record of this table.
                invalid_row_handler=lambda row: "error" if strict else "skip",
            ),
            arrow.ConvertOptions(
                include_columns=list(wanted),
                column_types={name: pa.binary() for name in wanted},
                strings_can_be_null=False,
            ),
        )
        with stream:
            yield from _named(stream)

    return Origin(tuple(names), read)


def _delimiter(line: list[str]) -> str:
    """What stands between the names of a first line."""
    counts = {sign: "".join(line).count(sign) for sign in ",;\t|"}
    return max(counts, key=counts.__getitem__)


def _of_parquet(path: Path) -> Origin:
    """Parquet, row group by row group."""
    from pyarrow import parquet

    def read(wanted: Sequence[str]) -> Batches:
        # Otherwise whole groups of rows, or the whole file, are held in memory.
        with parquet.ParquetFile(path, buffer_size=_BLOCK // 4) as file:
            for group in range(file.num_row_groups):
                some = dict(row_groups=[group], columns=list(wanted))
                yield from _named(file.iter_batches(_BATCH, **some))

    with parquet.ParquetFile(path) as file:
        names, total = file.schema_arrow.names, file.metadata.num_rows
    return Origin(tuple(names), read, total)


def _of_arrow(path: Path) -> Origin:
    """Arrow's own formats, of files and of streams."""
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(path)) as file:
            if file.read(6) == b"ARROW1":
                opened = pa.ipc.open_file(file)
                yield from map(opened.get_batch, range(opened.num_record_batches))
            else:
                file.seek(0)
                yield from pa.ipc.open_stream(file)

    with pa.memory_map(str(path)) as file:
        whole = file.read(6) == b"ARROW1"
        file.seek(0)
        schema = (pa.ipc.open_file if whole else pa.ipc.open_stream)(file).schema
    return Origin(
        tuple(schema.names),
        lambda wanted: _named(batch.select(list(wanted)) for batch in batches()),
    )


def _of_stream(source: Any) -> Origin:
    """Any object of the Arrow C stream protocol; one that is used up is read once."""
    import pyarrow as pa

    first = [pa.RecordBatchReader.from_stream(source)]
    names = tuple(first[0].schema.names)

    def read(wanted: Sequence[str]) -> Batches:
        reader = first.pop() if first else pa.RecordBatchReader.from_stream(source)
        return _named(batch.select(list(wanted)) for batch in reader)

    return Origin(names, read)


def _of_npz(path: Path) -> Origin:
    """Arrays by name."""
    with np.load(path, allow_pickle=False) as file:
        return _of_arrays({name: file[name] for name in file.files})


def _of_npy(paths: Sequence[Path]) -> Origin:
    """An array a file, which stays on disk; the columns are called like the files."""
    return _of_arrays(
        {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in paths}
    )


def _of_arrays(arrays: Mapping[str, np.ndarray]) -> Origin:
    """Arrays that agree on axis 0."""
    lengths = {array.shape[:1] for array in arrays.values()}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            "arrays differ in length: a row for each record needed in each"
        )
    total = next(iter(lengths))[0]

    def read(wanted: Sequence[str]) -> Batches:
        for start in range(0, total, _BATCH):
            yield {n: _column(arrays[n][start : start + _BATCH]) for n in wanted}

    return Origin(tuple(arrays), read, total)


def _of_rows(source: Any) -> Origin:
    """Rows by number, each a dict."""
    total = len(source)
    first = source[0] if total else {}
    if not isinstance(first, Mapping):
        raise TypeError("source: its rows must be dicts, from columns to values")

    def read(wanted: Sequence[str]) -> Batches:
        for start in range(0, total, _BATCH):
            places = range(start, min(start + _BATCH, total))
            several = getattr(source, "__getitems__", None)
            rows = several(list(places)) if several else [source[n] for n in places]
            yield {n: _column([row[n] for row in rows]) for n in wanted}

    return Origin(tuple(first), read, total)


def _of_pictures(folder: Path, paths: Sequence[Path]) -> Origin:
    """Pictures: the sub-folder is the label."""

    def read(wanted: Sequence[str]) -> Batches:
        for some in _groups(paths, 256):
            parts = [path.relative_to(folder).parts for path in some]
            columns = {
                "image": lambda some=some: [path.read_bytes() for path in some],
                "label": lambda p=parts: [n[0] if len(n) > 1 else None for n in p],
                "file": lambda p=parts: ["/".join(names) for names in p],
            }
            yield {name: _column(columns[name]()) for name in wanted}

    return Origin(("image", "label", "file"), read, len(paths))


def _of_texts(paths: Sequence[Path]) -> Origin:
    """Texts: a record for each line that isn't blank."""

    def lines() -> Iterator[tuple[bytes, str]]:
        for path in paths:
            with path.open("rb") as file:
                for line in file:
                    if line.strip():
                        yield line.rstrip(b"\r\n"), path.name

    def read(wanted: Sequence[str]) -> Batches:
        for some in _groups(lines(), _BATCH):
            texts, files = zip(*some, strict=True)
            columns = {"text": texts, "file": files}
            yield {name: _column(list(columns[name])) for name in wanted}

    return Origin(("text", "file"), read)


def _groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Items, some at a time."""
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some


def _column(values: Any) -> pa.Array:
    """Values of records as an Arrow array; those of more axes as lists of one size."""
    import pyarrow as pa

    if isinstance(values, list):
        if all(isinstance(value, str | bytes | None) for value in values):
            contents = (v.encode() if isinstance(v, str) else v for v in values)
            return pa.array(contents, pa.binary())
        values = np.asarray(values)
    if values.dtype.kind in "SUO":
        # Values of several types would raise, and be shown.
        return pa.array([_plain(value) for value in values.tolist()])
    if values.ndim == 1:
        return pa.array(values)
    size = int(np.prod(values.shape[1:]))
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, size)


def _plain(value: Any) -> str | bytes | None:
    """A value as text or bytes; NaN and such are missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value
    return None if value != value else as_text(value)


def _named(batches: Iterable[pa.RecordBatch]) -> Batches:
    """Batches as columns by name."""
    for batch in batches:
        if batch.num_rows:
            columns = zip(batch.schema.names, batch.columns, strict=True)
            yield dict(columns)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """One line of ours about a file that can't be read."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"path={str(path)!r} can't be read: {text}") from None
