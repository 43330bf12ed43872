"""Counts of a table that stays in its database: one GROUP BY for each family.

Codes are kept meanwhile in a temporary table of the database, where one may be made.

Every column is encoded there by a CASE expression with the same outcome as
`Codebook.encode`, and the cap on the rows of a unit is a window function. Exact counts
travel to this process, and are private; noise is added here.

A database compares texts in ways of its own: without regard to case, to accents, or to
blanks at the end. So texts are compared by their digests, as everywhere else letter by
letter. What kind each column is in the database is public.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpkit.accountants.answers import checks
from dpkit.data.codes import Codebook
from dpkit.data.encoding import FALSE, TRUE
from dpkit.data.schema import (
    WHOLE,
    Boolean,
    Categorical,
    Datetime,
    Ordinal,
    as_text,
)
from dpkit.synthetic.counting import STEPS, Source, bounded, checked

Table = Value = Any  # of Ibis, whose types know less than their values can

# What Arrow trims.
BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005"
    "\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
# Numbers that no cast to a double refuses.
_NUMBER = r"^[+-]?([0-9]{1,200}\.?[0-9]{0,99}|\.[0-9]{1,99})([eE][+-]?[0-9]{1,2})?$"
_PROBE = "Aé 1"
_EPOCH = datetime.datetime(1970, 1, 1)


def sql_source(
    table: Table,
    codebook: Codebook,
    *,
    rows_per_unit: int | None = None,
    memory_limit: int | None = None,
) -> Source:
    """A table of a database, whose cells are counted there.

    Privacy: as `open_source`; the rows of a unit that has more than `rows_per_unit` are
    drawn by the database's random numbers, anew for each count.

    Tested on DuckDB and PostgreSQL. A text counts as a number only with at most 200
    digits before its point, 99 after it, and an exponent of two digits.

    Args:
      table: of Ibis, such as `ibis.connect(url).table(name)`.
      codebook: public.
      rows_per_unit: as for `open_source`.
      memory_limit: bytes of counts at most.

    Raises:
      ValueError: a column that isn't there, or of a type that doesn't fit its kind; a
        database that can't compare texts by their digests.

    Example:
      >>> import ibis
      >>> from dpkit.data.schema import Schema
      >>> book = Codebook.of(Schema.read({"a": {"kind": "boolean"}}))
      >>> table = ibis.duckdb.connect().sql("select 'yes' as a from range(3)")
      >>> [counts.tolist() for counts in sql_source(table, book).count([(0,)])]
      [[0, 3]]
    """
    if rows_per_unit is not None:
        checks.integer_at_least(1, rows_per_unit=rows_per_unit)
    reach, unit = bounded(codebook, rows_per_unit)
    schema, columns = codebook.schema, dict(table.schema())
    beside = [n for n in (schema.unit_column, schema.weight_column) if n is not None]
    lacking = [name for name in [*codebook.names, *beside] if name not in columns]
    if lacking:
        raise ValueError(
            f"schema: the table has no column {', '.join(map(repr, lacking))}"
        )
    backend = table.get_backend()
    cells = {name: _Cell(name, table[name], backend.name) for name in columns}
    _probe(backend)
    if schema.unit_column is not None:
        table = _capped(table, cells[schema.unit_column], rows_per_unit or 1)
        cells = {name: _Cell(name, table[name], backend.name) for name in columns}
    codes = {
        f"c{n}": cells[name].code(column, codebook)
        for n, (name, column) in enumerate(schema.columns.items())
    }
    if schema.weight_column is not None and schema.max_weight is not None:
        codes["steps"] = cells[schema.weight_column].steps(schema.max_weight)
    return _Counted(codebook, unit, reach, table, codes, memory_limit)


class _Counted:
    """A table whose codes are expressions of its database."""

    def __init__(
        self,
        codebook: Codebook,
        unit: float,
        reach: int,
        table: Table,
        codes: dict[str, Value],
        memory_limit: int | None,
    ) -> None:
        self.codebook, self.unit, self.reach = codebook, unit, reach
        self._table, self._codes, self._memory = table, codes, memory_limit

    def count(self, families: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """See `Source`."""
        shapes = checked(families, self.codebook, self._memory)
        used = sorted({f"c{n}" for family in families for n in family})
        wanted = [*used, *({"steps"} & self._codes.keys())]
        coded = self._table.select(**{name: self._codes[name] for name in wanted})
        with (
            _kept(coded) if len(families) > 1 else contextlib.nullcontext(coded) as rows
        ):
            pairs = zip(families, shapes, strict=True)
            return [_one(rows, family, shape) for family, shape in pairs]

    def rows(self) -> np.ndarray:
        """See `Source`."""
        raise ValueError("rows: they stay in the database; use open_source to get them")


def _one(rows: Table, family: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The counts of one family."""
    names = [f"c{n}" for n in family]
    count = rows["steps"].sum() if "steps" in rows.columns else rows.count()
    found = _asked(rows.group_by(names).agg(steps=count.cast("int64")).to_pyarrow)
    total = np.zeros(shape, np.int64)
    total[tuple(found[name].to_numpy() for name in names)] = found["steps"]
    return total


def _kept(coded: Table) -> Any:
    """The codes as a temporary table; where none may be made, they are made anew."""
    try:
        return coded.cache()
    except Exception:
        return contextlib.nullcontext(coded)


def _asked(question: Callable[[], Any]) -> Any:
    """An answer of the database; what it says of a failure may quote a row."""
    try:
        return question()
    except Exception as error:
        raise ValueError(
            f"the database can't answer ({type(error).__name__}): try the table's "
            "columns there, one by one"
        ) from None


def _probe(backend: Any) -> None:
    """Refuses a database whose digests of texts aren't ours."""
    import ibis

    word = _digest(ibis.literal(_PROBE), backend.name)
    if _asked(lambda: backend.to_pyarrow(word)).as_py() != _md5(_PROBE):
        raise ValueError(f"{backend.name}: its digests of texts are of another kind")


def _capped(table: Table, owner: _Cell, most: int) -> Table:
    """At most so many rows of each unit, chosen at random; those of nobody left out."""
    import ibis

    whose = owner.number if owner.real else owner.words
    mine = table.mutate(_whose=whose, _drawn=ibis.random())
    mine = mine.filter(~mine["_whose"].isnull())
    keys = [mine["_whose"]]
    if not owner.real:  # and not as the collation compares them
        keys.append(_digest(mine["_whose"], owner.backend))
    window = ibis.window(group_by=keys, order_by=mine["_drawn"])
    ranked = mine.mutate(_place=ibis.row_number().over(window))
    return ranked.filter(ranked["_place"] < most).drop("_whose", "_drawn", "_place")


class _Cell:
    """One column of the table, as expressions of its values.

    Args:
      name: for messages.
      value: of Ibis.
      backend: the name of the kind of database.
    """

    def __init__(self, name: str, value: Value, backend: str) -> None:
        self.name, self.value, self.backend = name, value, backend
        self.type = value.type()
        self.real = self.type.is_floating()

    def code(self, column: Any, codebook: Codebook) -> Value:
        """Its code, as `Codebook.encode` has it."""
        if isinstance(column, Categorical | Boolean):
            return self._category(column)
        ranges = codebook.ranges(self.name)
        edges = [float(edge) for edge in ranges[1:, 0]]
        if isinstance(column, Datetime):
            code, lost = self._among(edges), self.value.isnull()
        elif isinstance(column, Ordinal):
            held = self.number.clip(float(column.low), float(column.high))
            code, lost = _rounded(held) - column.low, self.number.isnull()
        else:
            code, lost = _place(self.number, edges), self.number.isnull()
        return lost.ifelse(len(ranges) if column.nullable else 0, code).cast("int32")

    def steps(self, most: float) -> Value:
        """A weight in whole steps."""
        return _rounded(self.number.fill_null(0.0).clip(0.0, most) / most * STEPS)

    def _category(self, column: Categorical | Boolean) -> Value:
        """The code of a category."""
        texts = {text: n for n, text in enumerate(column.texts)}
        if isinstance(column, Boolean):
            texts = dict.fromkeys(FALSE, 0) | dict.fromkeys(TRUE, 1)
        other = len(column.texts) if getattr(column, "other", False) else 0
        lost = column.size - 1 if column.nullable else other
        if other:
            missing = self.number if self.real else self.words
            return missing.isnull().ifelse(lost, self._matched(texts, other, column))
        return self._matched(texts, lost, column)

    def _matched(self, texts: dict[str, int], rest: int, column: Any) -> Value:
        """The number of the text that a value is."""
        import ibis

        if self.real:
            single = self.type.is_float32()
            values = {_float(text, single): n for text, n in texts.items()}
            arms = [(value, n) for value, n in values.items() if value == value]
            return self.number.cases(*arms, else_=rest) if arms else ibis.literal(rest)
        words = self.words
        if isinstance(column, Boolean):
            words = words.lower()
        arms = [(_md5(text), n) for text, n in texts.items()]
        arms += [(_md5(t.title()), texts[t]) for t in ("true", "false") if t in texts]
        return _digest(words, self.backend).cases(*arms, else_=rest)

    @functools.cached_property
    def words(self) -> Value:
        """Its text, null if it is missing; see `values.texts`."""
        value = self.value
        if self.type.is_boolean():
            return value.cases((True, "true"), (False, "false"))
        if self.type.is_integer():
            return value.cast("string")
        if not (self.type.is_string() or self.type.is_decimal()):
            raise ValueError(
                f"schema.{self.name}: the database has it as {self.type}, which can't "
                "be this kind; cast it there, or declare another"
            )
        text = _uncollated(value.cast("string"), self.backend)
        text = text.re_replace(f"^[{BLANKS}]+|[{BLANKS}]+$", "")
        text = text.re_replace(WHOLE.pattern, r"\1")
        return (
            text.nullif("").nullif("NaN") if self.type.is_decimal() else text.nullif("")
        )

    @functools.cached_property
    def number(self) -> Value:
        """It as a double, null if it is missing or no number; see `values.floats`."""
        import ibis

        if self.type.is_boolean():
            return self.value.cases((True, 1.0), (False, 0.0))
        if self.type.is_integer():
            return self.value.cast("float64")
        if self.real or self.type.is_decimal():
            found = self.value.cast("float64")
            return found.isnan().ifelse(ibis.null("float64"), found)
        word = _digest(self.words, self.backend)
        whole = [(_md5(t), n) for t, n in (("true", "1"), ("True", "1"))]
        whole += [(_md5(t), n) for t, n in (("false", "0"), ("False", "0"))]
        text = word.cases(*whole, else_=self.words)
        usable = text.re_search(_NUMBER)
        return usable.ifelse(text, ibis.null("string")).cast("float64")

    def _among(self, edges: list[float]) -> Value:
        """The bin of a date or moment."""
        import ibis

        if not (self.type.is_date() or self.type.is_timestamp()):
            raise ValueError(
                f"schema.{self.name} is datetime, and the database has it as "
                f"{self.type}: cast it to a date or timestamp there"
            )
        scale = 86400.0 if self.type.is_date() else 1e-6
        counts = [_first_count(edge, scale) for edge in edges]
        unit = "days" if self.type.is_date() else "microseconds"
        moments = [_EPOCH + datetime.timedelta(**{unit: n}) for n in counts]
        if self.type.is_date():
            return _place(self.value, [ibis.literal(m.date()) for m in moments])
        if self.type.timezone:
            moments = [m.replace(tzinfo=datetime.UTC) for m in moments]
        return _place(self.value, [ibis.literal(m, self.type) for m in moments])


def _first_count(edge: float, scale: float) -> int:
    """The least whole number of units that isn't before an edge, in floats."""
    count = math.floor(edge / scale) - 2
    while float(count) * scale < edge:
        count += 1
    return count


def _place(value: Value, edges: list[Any], first: int = 0) -> Value:
    """How many edges a value reaches, by halving."""
    import ibis

    if not edges:
        return ibis.literal(first)
    middle = len(edges) // 2
    return (value < edges[middle]).ifelse(
        _place(value, edges[:middle], first),
        _place(value, edges[middle + 1 :], first + middle + 1),
    )


def _rounded(value: Value) -> Value:
    """A number rounded, halves to even, as `np.rint` does."""
    whole = value.floor()
    rest, number = value - whole, whole.cast("int64")
    up = (rest > 0.5) | ((rest == 0.5) & (number % 2 != 0))
    return number + up.ifelse(1, 0)


def _float(text: str, single: bool) -> float:
    """The float that is written so; NaN if none is."""
    try:
        value = shown = float(text)
    except ValueError:
        return math.nan
    if single:
        with np.errstate(over="ignore"):
            short = np.float32(value)
        value, shown = float(short), float(str(short))
    return value if as_text(shown) == text else math.nan


def _md5(text: str) -> str:
    """A digest that databases have too."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _digest(text: Value, backend: str) -> Value:
    """The same, of an expression."""
    import ibis

    if backend != "postgres":
        return text.hexdigest("md5")

    @ibis.udf.scalar.builtin
    def md5(text: str) -> str: ...

    return md5(text)


def _uncollated(text: Value, backend: str) -> Value:
    """A text without a collation, which PostgreSQL's regular expressions may refuse."""
    import ibis

    if backend != "postgres":
        return text

    @ibis.udf.scalar.builtin
    def convert_to(text: str, encoding: str) -> bytes: ...

    @ibis.udf.scalar.builtin
    def convert_from(content: bytes, encoding: str) -> str: ...

    return convert_from(convert_to(text, "UTF8"), "UTF8")
