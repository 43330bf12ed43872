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

if TYPE_CHECKING:
    import pyarrow as pa

    from dpkit.data.values import Values

    Batches = Iterator[Mapping[str, Values]]

_BATCH = 8192  # records
_BLOCK = 16 * 2**20  # bytes of a CSV file, and so of one record
PICTURES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
)
TEXTS = frozenset((".txt", ".text", ".md"))


class NothingReadable(ValueError):
    """A file has lines, and none of them is a record.

    Example:
      >>> raise NothingReadable("path='a.csv': no line is a record")
      Traceback (most recent call last):
      dpkit.data.origins.NothingReadable: path='a.csv': no line is a record
    """


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where rows come from.

    Attributes:
      names: the columns that there are; never shown, where they may be a person's row.
      read: a stream of the named columns, batch by batch.
      total: how many records there are, where that is told beforehand; private.
      types: of what type each column is, where the file says so; None: each value is
        what it looks like.

    Example:
      >>> origin = open_origin({"x": np.arange(3)})
      >>> [len(batch["x"]) for batch in origin.read(["x"])]
      [3]
    """

    names: tuple[str, ...]
    read: Callable[[Sequence[str]], Batches]
    total: int | None = None
    types: Callable[[], Mapping[str, pa.DataType]] | None = None


def open_origin(source: Any, *, strict: bool = False, nameless: bool = False) -> Origin:
    """A source of rows, of any kind in the list above.

    Args:
      source: a path, or an object.
      strict: whether a line of CSV with another number of values raises; else it is no
        record.
      nameless: whether a CSV may lack names: a first line of numbers alone is then a
        record, and columns are called 1, 2, ….

    Raises:
      ValueError: no such file, a file of no known kind, or a damaged one.
      TypeError: an object that has no rows.

    Example:
      >>> open_origin({"x": np.arange(3), "y": np.zeros((3, 2))}).names
      ('x', 'y')
    """
    if isinstance(source, str | os.PathLike):
        return _of_path(Path(source), (strict, nameless))
    if hasattr(source, "__arrow_c_stream__"):
        return _of_stream(source)
    if isinstance(source, Mapping):
        return _of_arrays(source)
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return _of_rows(source)
    raise TypeError(
        f"source={type(source).__name__}: give a path, an object with "
        "__arrow_c_stream__ (pandas, Polars, DuckDB, pyarrow), a dict of arrays, or "
        "rows by number"
    )


def _of_path(path: Path, lines: tuple[bool, bool]) -> Origin:
    """A file, or a folder; `lines` is strict and nameless, for CSV."""
    if path.is_dir():
        return _of_folder(path, lines)
    if not path.exists():
        raise ValueError(f"path={str(path)!r} doesn't exist")
    kind = _kind_of(path)
    readers = {
        ".csv": lambda path: _of_csv(path, *lines),
        ".tsv": lambda path: _of_csv(path, *lines),
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


def _of_folder(path: Path, lines: tuple[bool, bool]) -> Origin:
    """Files of one kind, or pictures by class."""
    found = sorted(
        p
        for p in path.rglob("*")
        if p.is_file()
        and all(part[0] not in "._" for part in p.relative_to(path).parts)
    )
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
    parts = [_of_path(p, lines) for p in found]
    if any(sorted(part.names) != sorted(parts[0].names) for part in parts):
        raise ValueError(f"path={str(path)!r}: its files differ in their columns")
    totals = [part.total for part in parts if part.total is not None]
    return Origin(
        parts[0].names,
        lambda names: itertools.chain.from_iterable(p.read(names) for p in parts),
        sum(totals) if len(totals) == len(parts) else None,
        parts[0].types,
    )


def _of_csv(path: Path, strict: bool, nameless: bool) -> Origin:
    """Text with a first line of names; every column is read as bytes."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    from dpkit.data.values import floats

    line = _first_line(path)
    delimiter = "\t" if ".tsv" in path.suffixes else _delimiter(line)
    names = next(csv.reader([line], delimiter=delimiter), [])
    named = not nameless or bool(np.isnan(floats(names)).any())
    if not named:
        names = [str(number) for number in range(1, len(names) + 1)]

    def read(wanted: Sequence[str]) -> Batches:
        passed = []

        def unlike(row: Any) -> str:  # a line of another length is no record
            passed.append(row.number)
            return "error" if strict else "skip"

        stream = arrow.open_csv(
            pa.input_stream(str(path)),
            arrow.ReadOptions(
                block_size=_BLOCK, column_names=names, skip_rows=int(named)
            ),
            arrow.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                ignore_empty_lines=len(names) > 1,
                invalid_row_handler=unlike,
            ),
            arrow.ConvertOptions(
                include_columns=list(wanted),
                column_types={name: pa.binary() for name in wanted},
                strings_can_be_null=False,
            ),
        )
        count = 0
        with stream:
            for batch in _named(stream):
                count += 1
                yield batch
        if passed and not count:
            raise NothingReadable(
                f"path={str(path)!r}: no line has as many values as the first has "
                "names; is a name missing there, or the delimiter another?"
            )

    return Origin(tuple(names), read)


def _first_line(path: Path) -> str:
    """The first line of a text, however long."""
    import pyarrow as pa

    found = b""
    with pa.input_stream(str(path)) as file:
        while b"\n" not in found and b"\r" not in found and len(found) < _BLOCK:
            more = file.read(2**16)
            if not more:
                break
            found += more
    return (found.decode("utf-8-sig", errors="replace").splitlines() or [""])[0]


def _delimiter(line: str) -> str:
    """What stands between the names of a first line."""
    counts = {sign: line.count(sign) for sign in ",;\t|"}
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
        schema, total = file.schema_arrow, file.metadata.num_rows
    return Origin(tuple(schema.names), read, total, lambda: _types_of(schema))


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
        types=lambda: _types_of(schema),
    )


def _of_stream(source: Any) -> Origin:
    """Any object of the Arrow C stream protocol; one that is used up is read once."""
    import pyarrow as pa

    def reader() -> pa.RecordBatchReader:
        try:
            return pa.RecordBatchReader.from_stream(source)
        except Exception as error:  # what it says may quote a record
            raise ValueError(
                f"source={type(source).__name__} gives no Arrow stream "
                f"({type(error).__name__}): has a column values of several types?"
            ) from None

    first = [reader()]
    schema = first[0].schema
    names = tuple(schema.names)

    def read(wanted: Sequence[str]) -> Batches:
        opened = first.pop() if first else reader()
        places = [names.index(name) for name in wanted]
        return _named(batch.select(places) for batch in opened)

    return Origin(names, read, types=lambda: _types_of(schema))


def _of_npz(path: Path) -> Origin:
    """Arrays by name."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = tuple(file.files)
    except ValueError:
        raise ValueError("it holds no arrays") from None

    def read(wanted: Sequence[str]) -> Batches:
        with np.load(path, allow_pickle=False) as file:
            yield from _of_arrays({name: file[name] for name in wanted}).read(wanted)

    def types() -> Mapping[str, pa.DataType]:
        with np.load(path, allow_pickle=False) as file:
            return {name: _type_of(file[name]) for name in names}

    return Origin(names, read, types=types)


def _of_npy(paths: Sequence[Path]) -> Origin:
    """An array a file, which stays on disk; the columns are called like the files."""
    return _of_arrays(
        {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in paths}
    )


def _of_arrays(columns: Mapping[str, Any]) -> Origin:
    """Columns that agree in length: arrays, or lists of values of any type each."""
    values = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and column.ndim == 0:
            raise ValueError("arrays differ in length: one is a single value")
        typed = isinstance(column, np.ndarray) and column.dtype.kind not in "OV"
        values[name] = column if typed else list(column)
    lengths = {len(column) for column in values.values()}
    if len(lengths) != 1:
        raise ValueError(
            "arrays differ in length: a row for each record needed in each"
        )
    (total,) = lengths

    def read(wanted: Sequence[str]) -> Batches:
        for start in range(0, total, _BATCH):
            yield {n: _column(values[n][start : start + _BATCH]) for n in wanted}

    def types() -> Mapping[str, pa.DataType]:
        return {name: _type_of(column) for name, column in values.items()}

    return Origin(tuple(columns), read, total, types)


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
            yield {n: [row.get(n) for row in rows] for n in wanted}

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
            yield {name: columns[name]() for name in wanted}

    return Origin(("image", "label", "file"), read, len(paths), dict)


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
            yield {name: list(columns[name]) for name in wanted}

    return Origin(("text", "file"), read, types=dict)


def _groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Items, some at a time."""
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some


def _column(values: Any) -> pa.Array | list[Any]:
    """Some of a column; arrays of more axes as lists of one size."""
    import pyarrow as pa

    if isinstance(values, list) or values.dtype.kind in "SUmM":
        return list(values)
    if values.ndim == 1:
        return pa.array(values)
    size = int(np.prod(values.shape[1:]))
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, size)


def _type_of(values: Any) -> pa.DataType:
    """The type of a column; null where each value has its own."""
    import pyarrow as pa

    column = _column(values[:0])
    return pa.null() if isinstance(column, list) else column.type


def _types_of(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The types of columns by name."""
    return dict(zip(schema.names, schema.types, strict=True))


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
