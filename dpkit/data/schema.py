"""What is publicly known of a table: its columns, their categories and bounds.

A schema is written by hand, or drafted from a public sample (`dpkit.data.draft`), never
from the private rows: which categories occur, the smallest and the largest value, how
many rows there are, all of that is about people. With it, rows become arrays by a total
function of one record (`dpkit.data.encoding`): whatever stands in a row has a code, so
nothing that is released depends on what the rows happen to hold.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta

from dpkit.accountants.answers import checks
from dpkit.data.text import VOCABULARY

VERSION = 1
MONTH = re.compile(r"^(0[1-9]|1[0-2])/[0-9]{4}$")
WHOLE = re.compile(r"^([+-]?[0-9]+)\.0+$")
_MOST = 10**8  # entries of one record
Whole = Annotated[int, Meta(ge=1)]
Bins = Annotated[int, Meta(ge=2, le=4096)]


class Column(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """What every kind of column has. The kind stands under `kind` in TOML and JSON.

    Attributes:
      nullable: a missing value has a code of its own; else it counts as unknown or, of
        numbers, as the lowest.

    Example:
      >>> as_column({"kind": "boolean", "nullable": True}, "smoker").nullable
      True
    """

    nullable: bool = False


class Categorical(Column, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """One of some values, compared as text: 1, "1" and 1.0 are the same.

    Attributes:
      categories: all that have a code of their own, in the order of their codes.
      other: whether all other values share one more code; else they count as the first.

    Example:
      >>> Categorical(categories=("teal", "rust")).size
      3
    """

    categories: tuple[str | bool | int | float, ...]
    other: bool = True

    def __post_init__(self) -> None:
        """Refuses a list without values, or with one twice."""
        texts = self.texts
        if not texts or "" in texts:
            raise ValueError(
                "categories must be at least one value, none of them empty"
            )
        if len(set(texts)) < len(texts):
            twice = next(t for n, t in enumerate(texts) if t in texts[:n])
            raise ValueError(f"categories has {twice!r} twice")

    @property
    def texts(self) -> tuple[str, ...]:
        """The categories as they are compared."""
        return tuple(map(as_text, self.categories))

    @property
    def size(self) -> int:
        """How many codes there are."""
        return len(self.categories) + self.other + self.nullable


class Tree(Categorical, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """One of some codes that begin with the codes of their groups, such as ICD or NACE.

    Attributes:
      categories: the finest codes.
      prefixes: how many characters name a group, from the coarsest level on.

    Example:
      >>> codes = Tree(categories=("A01", "A02", "B05"), prefixes=(1,))
      >>> codes.size
      4
    """

    prefixes: tuple[Whole, ...]

    def __post_init__(self) -> None:
        """Refuses levels that aren't finer and finer."""
        super().__post_init__()
        falling = any(a >= b for a, b in itertools.pairwise(self.prefixes))
        if not self.prefixes or falling:
            raise ValueError(
                f"prefixes={list(self.prefixes)} must be growing numbers of characters"
            )


class Boolean(Column, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """True or false, also written yes and no, 1 and 0; anything else counts as false.

    Example:
      >>> Boolean().texts
      ('false', 'true')
    """

    texts: ClassVar = ("false", "true")

    @property
    def size(self) -> int:
        """How many codes there are."""
        return 2 + self.nullable


class Numeric(Column, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """A number; what lies outside the bounds counts as the bound.

    Attributes:
      low: the lowest that can be told apart.
      high: the highest.
      scale: "linear", or "log1p" for amounts: networks see log(1 + value - low).
      bins: into how many it is cut where counts are released, 2 to 4096; left out, 32.
      edges: of the bins, from low to high, in place of `bins`; public.
      granularity: to which made-up values are rounded, such as 0.01.

    Example:
      >>> Numeric(low=18, high=90).scale
      'linear'
    """

    low: float
    high: float
    scale: Literal["linear", "log1p"] = "linear"
    bins: Bins | None = None
    granularity: Annotated[float, Meta(gt=0)] | None = None
    edges: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuses bounds that are none, and edges that aren't between them."""
        _check_bounds(self.low, self.high)
        if self.edges is None:
            return
        rising = all(a < b for a, b in itertools.pairwise(self.edges))
        ends = self.edges[:1] + self.edges[-1:] == (self.low, self.high)
        if not (rising and ends and len(self.edges) <= 4097) or self.bins is not None:
            raise ValueError(
                "edges must grow from low to high, at most 4097, and need no bins"
            )


class Ordinal(Column, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """A whole number within bounds.

    Example:
      >>> Ordinal(low=1, high=16).scale
      'linear'
    """

    low: Annotated[int, Meta(ge=-(2**53), le=2**53)]
    high: Annotated[int, Meta(ge=-(2**53), le=2**53)]
    scale: ClassVar = "linear"

    def __post_init__(self) -> None:
        """Refuses bounds that are none."""
        _check_bounds(self.low, self.high)


class Datetime(Column, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """A date or a moment within bounds, in ISO 8601; without a zone it is in UTC.

    Attributes:
      low: the first, such as "2020-01-01".
      high: the last.
      step: to how many seconds made-up moments are rounded.
      bins: into how many the time is cut where counts are released; left out, 32.
      form: how moments are written: "iso", or "mm/yyyy" for months.

    Example:
      >>> Datetime(low="2020-01-01", high="2020-01-02").seconds
      (1577836800.0, 1577923200.0)
    """

    low: str
    high: str
    step: Annotated[float, Meta(gt=0)] | None = None
    bins: Bins | None = None
    form: Literal["iso", "mm/yyyy"] = "iso"
    scale: ClassVar = "linear"

    def __post_init__(self) -> None:
        """Refuses bounds that are no moments, or in the wrong order."""
        for name in ("low", "high"):
            if moment(getattr(self, name)) is None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be a date or moment, such as "
                    "'2020-12-31' or '2020-12-31T23:59:59'"
                )
        low, high = self.seconds
        if low > high:
            raise ValueError(f"low={self.low!r} must not be after high={self.high!r}")

    @property
    def seconds(self) -> tuple[float, float]:
        """The bounds in seconds since 1970."""
        low, high = moment(self.low), moment(self.high)
        return low or 0.0, high or 0.0


class Array(Column, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Numbers of one shape, such as an embedding or a signal.

    Attributes:
      shape: of one record's.
      low: lower ones count as this, and missing ones.
      high: higher ones count as this.
      integer: they are kept as they are, such as tokens; else brought into [0, 1].

    Example:
      >>> Array(shape=(768,), low=-4, high=4).integer
      False
    """

    shape: tuple[Whole, ...]
    low: float
    high: float
    integer: bool = False

    def __post_init__(self) -> None:
        """Refuses bounds that are none."""
        _check_bounds(self.low, self.high)
        _check_size(self.shape)
        if self.integer and max(abs(self.low), abs(self.high)) >= 2**31:
            raise ValueError(
                f"low={self.low!r} and high={self.high!r} must be below 2**31 in size, "
                "where integer=true"
            )
        _no_null(self)


class Image(Column, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """A picture: PNG, JPEG and other files' bytes, or pixels from 0 to 255.

    Another size is resized, another number of channels converted; what can't be read
    counts as black.

    Attributes:
      shape: height, width and channels, 1 or 3.

    Example:
      >>> Image(shape=(28, 28, 1)).shape
      (28, 28, 1)
    """

    shape: tuple[Whole, Whole, Literal[1, 3]]

    def __post_init__(self) -> None:
        """Refuses a code for missing ones."""
        _check_size(self.shape)
        _no_null(self)


class Text(Column, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Text, character by character, cut or padded to one length.

    Attributes:
      length: characters that are kept, of at most 65,536.
      characters: those that have a symbol of their own; others share one. Left out,
        the printable ones of ASCII and the line break.

    Example:
      >>> Text(length=64, characters="abc").symbols
      5
    """

    length: Annotated[int, Meta(ge=2, le=65536)]
    characters: str | None = None

    def __post_init__(self) -> None:
        """Refuses a character twice."""
        if len(set(self.alphabet)) < len(self.alphabet) or not self.alphabet:
            raise ValueError("characters must be distinct, and at least one")
        _no_null(self)

    @property
    def alphabet(self) -> str:
        """The characters of symbols 1, 2, …; symbol 0 is any other one."""
        return VOCABULARY[1:] if self.characters is None else self.characters

    @property
    def symbols(self) -> int:
        """How many symbols there are; the last one pads what is shorter."""
        return len(self.alphabet) + 2


Kind = (
    Categorical | Tree | Boolean | Numeric | Ordinal | Datetime | Array | Image | Text
)
_KINDS = {kind.__name__.lower(): kind for kind in get_args(Kind)}
_LABELS = (Categorical, Boolean, Numeric, Ordinal)


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The public description of a table.

    Attributes:
      columns: by name, in order; columns of a file that aren't here are not read.
      label: the one that is predicted: categories, or a number.
      unit_column: the one that says whose a row is; never shown to a network.
      max_records: a public number that the units of the table never exceed.
      weight_column: how much a row counts in a survey; needs `max_weight`.
      max_weight: weights are cut to it; public.
      rules: what every row keeps, as is publicly known; see `dpkit.data.rules`.

    Raises:
      ValueError: no columns, or one that is named and isn't there.

    Example:
      >>> schema = Schema.read({"age": {"kind": "numeric", "low": 18, "high": 90}})
      >>> schema.columns["age"].low
      18.0
    """

    columns: Mapping[str, Kind]
    label: str | None = None
    unit_column: str | None = None
    max_records: Whole | None = None
    weight_column: str | None = None
    max_weight: Annotated[float, Meta(gt=0)] | None = None
    rules: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Refuses names that are no columns."""
        if not self.columns:
            raise ValueError("columns is empty: a schema needs at least one")
        for name in ("label", "unit_column", "weight_column"):
            if getattr(self, name) is not None:
                checks.text(**{name: getattr(self, name)})
        if self.max_records is not None:
            checks.integer_at_least(1, max_records=self.max_records)
        if self.label is not None:
            kind = self.columns.get(self.label)
            if kind is None:
                raise ValueError(f"label={self.label!r} {_not_there(self, self.label)}")
            if not isinstance(kind, _LABELS):
                raise ValueError(
                    f"label={self.label!r} is {_name_of(kind)}: a label must be "
                    "categorical, boolean, numeric or ordinal"
                )
        if (self.weight_column is None) != (self.max_weight is None):
            raise ValueError(
                f"weight_column={self.weight_column!r} with max_weight="
                f"{self.max_weight!r}: give both, or neither"
            )
        if self.max_weight is not None:
            checks.positive(max_weight=self.max_weight)
        if self.unit_column in self.columns:
            raise ValueError(
                f"unit_column={self.unit_column!r} must not be a column of the schema: "
                "a network would learn who is who"
            )

    @classmethod
    def read(cls, values: Mapping[str, Any] | Schema, **more: Any) -> Schema:
        """A schema out of plain values.

        Args:
          values: columns by name, {"kind": …} each; or {"columns": …} beside label,
            unit_column and the other attributes, as a file has them.
          **more: these, in the place of those.

        Raises:
          ValueError: one line that names the column, the value and what is allowed.

        Example:
          >>> Schema.read({"age": {"kind": "numeric", "low": 18}})
          Traceback (most recent call last):
          ValueError: schema.age lacks high: give a number
        """
        given = {name: value for name, value in more.items() if value is not None}
        if isinstance(values, Schema):
            return msgspec.structs.replace(values, **given)
        columns, known = values, {}
        whole = values.get("columns")
        if isinstance(whole, Mapping) and not isinstance(whole.get("kind"), str):
            columns, known = whole, {k: v for k, v in values.items() if k != "columns"}
            version = known.pop("version", VERSION)
            if version != VERSION:
                raise ValueError(f"version={version!r} of a schema must be {VERSION}")
        facts = known | given
        for name in facts:
            checks.one_of(cls.__struct_fields__[1:], setting=name)
        if "rules" in facts:
            facts["rules"] = tuple(facts["rules"])
        kinds = {name: as_column(value, name) for name, value in columns.items()}
        return cls(columns=kinds, **facts)

    @classmethod
    def load(cls, path: str | Path, **more: Any) -> Schema:
        """The schema in a JSON file; see `read`.

        Raises:
          ValueError: no such file, no JSON, or no schema.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"schema={str(path)!r} can't be read: {reason}") from None
        if not isinstance(values, dict):
            raise ValueError(f"schema={str(path)!r} must hold columns by name")
        return cls.read(values, **more)

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `read` makes an equal schema."""
        values = msgspec.to_builtins(self)
        given = {name: value for name, value in values.items() if value}
        return {"version": VERSION, **given}

    @property
    def text(self) -> str:
        """The JSON of a file, a line a column."""
        values = self.to_json()
        columns = values.pop("columns").items()
        lines = [f"  {_json(name)}: {_json(column)}" for name, column in columns]
        facts = "".join(f" {_json(name)}: {_json(v)},\n" for name, v in values.items())
        return "{\n" + facts + ' "columns": {\n' + ",\n".join(lines) + "\n }\n}\n"

    @property
    def sha256(self) -> str:
        """A digest: two schemas with the same one encode alike."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def features(self) -> dict[str, Kind]:
        """The columns that a network reads: all but the label."""
        return {name: c for name, c in self.columns.items() if name != self.label}


def as_column(value: Any, name: str) -> Kind:
    """One column out of plain values.

    Raises:
      ValueError: names the column, the setting and what is allowed.

    Example:
      >>> as_column({"kind": "numerical", "low": 0, "high": 1}, "pay")
      Traceback (most recent call last):
      ValueError: schema.pay.kind='numerical' is not known: did you mean 'numeric'?
    """
    if isinstance(value, Kind):
        return value
    where = f"schema.{name}"
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a column, such as {{ kind = 'boolean' }}")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        near = difflib.get_close_matches(str(kind), _KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(_KINDS)}"
        state = f".kind={kind!r} is not known" if "kind" in value else " lacks kind"
        raise ValueError(f"{where}{state}: {hint}")
    for number in ("low", "high"):
        if isinstance(value.get(number), float) and not math.isfinite(value[number]):
            raise ValueError(f"{where}.{number}={value[number]!r} must be finite")
    try:
        return msgspec.convert(value, _KINDS[kind])
    except msgspec.ValidationError as error:
        raise ValueError(f"{where} {_explained(error, _KINDS[kind])}") from None


def as_text(value: str | bool | int | float) -> str:
    """A value as it is compared: without blanks around it, whole numbers as such.

    Example:
      >>> as_text(" no "), as_text(1.0), as_text("1.00"), as_text(True)
      ('no', '1', '1', 'true')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value == value // 1:
        return str(int(value))
    text = str(value).strip()
    if text in ("True", "False"):
        return text.lower()
    return WHOLE.sub(r"\1", text)


def moment(text: str) -> float | None:
    """Seconds since 1970 of a date or moment in ISO 8601, or of a month as MM/YYYY.

    Example:
      >>> moment("1970-01-02"), moment("02/1970"), moment("soon")
      (86400.0, 2678400.0, None)
    """
    text = text.strip()
    if MONTH.match(text):
        text = f"{text[3:]}-{text[:2]}-01"
    try:
        found = datetime.datetime.fromisoformat(text)
        return (
            found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
        ).timestamp()
    except (ValueError, OverflowError):
        return None


def _json(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def _explained(error: Exception, kind: type[Any]) -> str:
    """What to say of values that make no column."""
    text, _, at = str(error).partition(" - at `$")
    names = [field.name for field in msgspec.structs.fields(kind)]
    if "unknown field" in text:
        key = text.split("`")[1]
        near = difflib.get_close_matches(key, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        return f"has {key!r}, which is no setting of {kind.__name__.lower()}: {hint}"
    if "missing required field" in text:
        key = text.split("`")[1]
        needed = {"categories": "a list", "shape": "a list", "length": "a whole number"}
        return f"lacks {key}: give {needed.get(key, 'a number')}"
    place = at.strip(".`")
    return f"has a wrong {place}: {text}" if place else text


def _check_bounds(low: float, high: float) -> None:
    """Refuses bounds in the wrong order, or endless."""
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"low={low!r} must be at most high={high!r}, both finite")


def _check_size(shape: tuple[int, ...]) -> None:
    """Refuses what no machine has the memory for."""
    if math.prod(shape) > _MOST:
        raise ValueError(f"shape={list(shape)} must have at most {_MOST:,} entries")


def _no_null(column: Column) -> None:
    """Refuses a code for missing ones."""
    if column.nullable:
        raise ValueError(f"nullable=true is no setting of {_name_of(column)}")


def _name_of(column: Any) -> str:
    """The word for a column's kind."""
    return type(column).__name__.lower()


def _not_there(schema: Schema, name: str) -> str:
    """What to say of a name that is no column."""
    near = difflib.get_close_matches(name, schema.columns, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "add it to the schema"
    return f"is no column of the schema: {hint}"
