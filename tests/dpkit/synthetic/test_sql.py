"""Counts made in a database are those made here, to the last row."""

import datetime
import decimal
import functools
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pytest

from dpkit.data.codes import Codebook
from dpkit.data.schema import Schema
from dpkit.data.values import compute
from dpkit.synthetic.counting import open_source

ibis = pytest.importorskip("ibis")
from dpkit.synthetic.sql import BLANKS, sql_source  # noqa: E402

pytestmark = pytest.mark.slow

NULL = {"nullable": True}
NAMED = {
    "kind": "categorical",
    "categories": ["red", "Red", "true", "1", "2.5", "0.1", "é", "x'y\\"],
}
WHOLE = {"kind": "ordinal", "low": -2, "high": 5}
BINNED = {"kind": "numeric", "low": -1, "high": 3, "bins": 8}
UNEVEN = {"kind": "numeric", "low": -1, "high": 3, "edges": [-1, 0, 0.1, 0.3, 3]}
TRUTH = {"kind": "boolean"}
TIMES = {"kind": "datetime", "low": "2020-01-01", "high": "2020-01-02T00:00:01"}
DAYS = {"kind": "datetime", "low": "2020-01-01", "high": "2020-03-01"}
TEXTS = (
    "red|Red|RED| red |red\u00a0|\u3000red|true|True|TRUE|1|1.0|1.000 |+1.0|01|2.5|2.50"
    "|0.1|.1|1e0|1E1|1e-1|-0|nan|NaN|inf||  |é|e\u0301|yes|Y|no|F|-1.5|0.5|1.5|3|-1|2|4"
    "|5|6|1_0|0x1|٣|x'y\\|1e300x|0.99999999999999999999|9e99|-9e-99"
).split("|")
FLOATS = [1.0, -0.0, 2.5, 0.1, 0.3, 0.5, 1.5, -0.5, -1.5, 4.5, 5.5, 3.0, -1.0]
FLOATS += [1e300, 5e-324, 2.4999999999999996, float("inf"), -float("inf"), float("nan")]
NUMBERS = [0, 1, 2, -2, -3, 5, 6, 2**62, -(2**62)]
PENNIES = ["1.50", "2.50", "1.00", "0.10", "-0.00", "3.00", "-1.00"]
START = datetime.datetime(2019, 12, 31, 23)
MOMENTS = [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2, 0, 0, 1)]
MOMENTS += [datetime.datetime(2020, 1, 1, 3, 25, 42, n) for n in (857142, 857143)]
MOMENTS += [START + datetime.timedelta(microseconds=n * 10**9 + 1) for n in range(99)]
# Type in the database, type here, values, and what the schema says they are.
KINDS: list[tuple[str, pa.DataType, list[Any], list[dict[str, Any]]]] = [
    (
        "text",
        pa.string(),
        TEXTS,
        [
            *(NAMED, NAMED | NULL, NAMED | NULL | {"other": False}),
            *(WHOLE | NULL, BINNED | NULL, UNEVEN, TRUTH, TRUTH | NULL),
        ],
    ),
    ("char(6)", pa.string(), ["red", "é", "true", "1"], [NAMED | NULL]),
    (
        "double precision",
        pa.float64(),
        FLOATS,
        [
            *(NAMED | NULL, NAMED | {"other": False}, WHOLE, WHOLE | NULL),
            *(BINNED | NULL, UNEVEN | NULL, TRUTH | NULL),
        ],
    ),
    ("real", pa.float32(), FLOATS, [NAMED, NAMED | NULL, WHOLE, BINNED, UNEVEN]),
    (
        "bigint",
        pa.int64(),
        NUMBERS,
        [NAMED, WHOLE | NULL, WHOLE, BINNED, TRUTH, TRUTH | NULL],
    ),
    ("boolean", pa.bool_(), [True, False], [NAMED | NULL, TRUTH | NULL, BINNED]),
    (
        "numeric(10,2)",
        pa.decimal128(10, 2),
        [decimal.Decimal(text) for text in PENNIES],
        [NAMED | NULL, BINNED | NULL, WHOLE],
    ),
    (
        "date",
        pa.date32(),
        [datetime.date(2019, 12, 25) + datetime.timedelta(n) for n in range(80)],
        [DAYS | NULL, DAYS | {"bins": 7}],
    ),
    ("timestamp", pa.timestamp("us"), MOMENTS, [TIMES | {"bins": 7}, TIMES | NULL]),
    (
        "timestamp with time zone",
        pa.timestamp("us", "UTC"),
        [moment.replace(tzinfo=datetime.UTC) for moment in MOMENTS],
        [TIMES | {"bins": 7}, TIMES | NULL],
    ),
]
UNITS = [None, "", " ", "a", "A", "a ", "1", "1.0", *(f"u{n}" for n in range(150))]
WEIGHTS = [0.1, 2.0**-15, 3 * 2.0**-15, 4.0, 5.0, -1.0, 1.7, float("nan"), None]


@functools.cache
def rows_and_columns(n=400):
    """The table here, its columns' types there, and its schema."""
    draws = np.random.default_rng(0)
    table, types, columns = {}, {}, {}
    for k, (there, here, values, kinds) in enumerate(KINDS):
        picked = [[*values, None][i] for i in draws.integers(0, len(values) + 1, n)]
        for m, column in enumerate(kinds):
            name = f"{k}_{m}"
            table[name], types[name] = pa.array(picked, here), there
            columns[name] = column
    for name, there, here, values in (
        ("who", "text", pa.string(), UNITS),
        ("w", "double precision", pa.float64(), WEIGHTS),
    ):
        picked = [values[i] for i in draws.integers(0, len(values), n)]
        table[name], types[name] = pa.array(picked, here), there
    return pa.table(table), types, columns


def created(types, after=""):
    """The statement that creates the table; texts are compared by `after`."""
    columns = [
        f'"{name}" {there}{after if there == "text" else ""}'
        for name, there in types.items()
    ]
    return f"create table rows ({', '.join(columns)})"


@pytest.fixture(scope="module")
def duckdb():
    rows, types, _ = rows_and_columns()
    connection = ibis.duckdb.connect()
    connection.raw_sql("set timezone = 'UTC'")
    connection.raw_sql(created(types, " collate nocase"))
    connection.con.register("here", rows)
    connection.raw_sql("insert into rows select * from here")
    return connection.table("rows")


@pytest.fixture(scope="module")
def postgresql(postgres):
    import psycopg

    rows, types, _ = rows_and_columns()
    postgres.sql("drop table if exists rows")
    postgres.sql(created(types))
    target = f"host={postgres.folder} user=dpkit dbname=postgres"
    with psycopg.connect(target, autocommit=True) as connection:
        with connection.cursor().copy("copy rows from stdin") as copy:
            for row in zip(*(c.to_pylist() for c in rows.columns), strict=True):
                copy.write_row(row)
    backend = ibis.postgres.connect(
        host=str(postgres.folder), user="dpkit", database="postgres"
    )
    yield backend.table("rows")
    backend.disconnect()


@pytest.fixture(params=["duckdb", "postgresql"])
def there(request):
    return request.getfixturevalue(request.param)


def compared(there, families, **more):
    """Where counts there and here differ."""
    rows, _, columns = rows_and_columns()
    book = Codebook.of(Schema.read({"columns": columns, **more}))
    source, here = sql_source(there, book), open_source(rows, book)
    assert (source.reach, source.unit) == (here.reach, here.unit)
    pairs = zip(source.count(families), here.count(families), strict=True)
    for family, (found, expected) in zip(families, pairs, strict=True):
        names = [book.schema.columns[book.names[n]] for n in family]
        np.testing.assert_array_equal(found, expected, err_msg=str(names))


def test_every_kind_of_every_type(there):
    compared(there, [(n,) for n in range(len(rows_and_columns()[2]))])


def test_families_and_weights(there):
    compared(there, [(30, 0)])
    compared(there, [(9, 2, 4)], weight_column="w", max_weight=4.0)


def test_at_most_so_many_rows_of_each_unit(there):
    rows, _, _ = rows_and_columns()
    book = Codebook.of(Schema.read({"0_0": NAMED}, unit_column="who"))
    for most in (1, 2, 400):
        source = sql_source(there, book, rows_per_unit=most)
        here = open_source(rows, book, rows_per_unit=most, key=jax.random.key(0))
        assert source.reach == most
        assert source.count([(0,)])[0].sum() == here.count([(0,)])[0].sum()


def test_which_rows_count_is_drawn_anew(there):
    book = Codebook.of(Schema.read({"0_0": NAMED}, unit_column="who"))
    source = sql_source(there, book, rows_per_unit=1)
    counts = {tuple(source.count([(0,)])[0].tolist()) for _ in range(3)}
    assert len(counts) > 1


def test_blanks_are_those_that_arrow_trims():
    points = [chr(n) for n in range(0x110000) if not 0xD800 <= n < 0xE000]
    trimmed = compute().utf8_trim_whitespace(pa.array(points)).to_pylist()
    assert {p for p, t in zip(points, trimmed, strict=True) if not t} == set(BLANKS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"nothing": TRUTH}, "no column 'nothing'"),
        ({"7_0": NAMED}, "schema.7_0: the database has it as date"),
        ({"0_0": TIMES}, "schema.0_0 is datetime"),
    ],
)
def test_columns_that_do_not_fit_are_refused(duckdb, columns, message):
    with pytest.raises(ValueError, match=message):
        sql_source(duckdb, Codebook.of(columns))


def test_rows_stay_where_they_are(duckdb):
    source = sql_source(duckdb, Codebook.of({"0_0": NAMED}), memory_limit=100)
    with pytest.raises(ValueError, match="they stay in the database"):
        source.rows()
    with pytest.raises(ValueError, match="families has"):
        source.count([(0, 0)])


def test_what_a_database_says_of_a_failure_is_not_repeated(duckdb):
    table = duckdb.get_backend().sql("select cast(w as text) as secret from rows")
    broken = table.mutate(secret=table.secret.cast("int64"))
    with pytest.raises(ValueError, match="can't answer") as caught:
        sql_source(broken, Codebook.of({"secret": WHOLE})).count([(0,)])
    assert caught.value.__suppress_context__ and "0.1" not in str(caught.value)


def test_another_digest_is_refused(duckdb, monkeypatch):
    monkeypatch.setattr("dpkit.synthetic.sql._md5", lambda text: "00")
    with pytest.raises(ValueError, match="duckdb: its digests"):
        sql_source(duckdb, Codebook.of({"0_0": NAMED}))


def test_where_no_temporary_table_may_be_made(duckdb, monkeypatch):
    def refused(self):
        raise RuntimeError("permission denied")

    monkeypatch.setattr("ibis.expr.types.Table.cache", refused)
    compared(duckdb, [(0,), (1, 9)])
