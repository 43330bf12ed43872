"""What only a database server can do to a ledger: be gone, be unsafe, be shared.

The tests of ledgers, reservations, terms and processes run on PostgreSQL as well.
"""

import json
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from dpkit.accountants import (
    Budget,
    BudgetExceeded,
    Ledger,
    LedgerCorrupt,
    PureDpEvent,
)
from dpkit.accountants.ledger.merging import merge
from dpkit.accountants.storage import postgres as postgres_module
from dpkit.accountants.storage.store import Session
from dpkit.cli.app import app
from tests.accountants.postgres_server import new_folder
from tests.accountants.test_store import EDITS

TERMS: dict[str, Any] = {
    "budget": Budget(1.0, 0.0),
    "relation": "add_remove",
    "unit": "example",
    "dataset": "toy 1.0",
}
EIGHTH = PureDpEvent(0.125)
slow = pytest.mark.slow


def _spent(url) -> Any:
    """A ledger with a few entries of several kinds."""
    ledger = Ledger.open(url, **TERMS)
    ledger.charge(EIGHTH, label="one", key="k1")
    with ledger.reserve(EIGHTH, count=2, label="loop", key="k2") as grant:
        grant.commit(2)
    ledger.note("half way, µ and 漢")
    return ledger


def _schema(ledger) -> str:
    return ledger.path.rpartition("ledger=")[2]


# Addresses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@ho@st/db",
        "postgresql://me/x:hunter2@host/db",
        "postgresql://me:x@host:hunter2/db",
        "postgresql://me@host/db?password=hunter2",
        "postgresql://me:hunter2@host/db?ledger=pg_x",
        "postgresql://me:hunter2@host/db?ledger=public",
        "postgresql://me:hunter2@host/db?ledger=a&ledger=b",
        "postgresql://me:hunter2@host/db?ledger=Upper",
        'postgresql://me:hunter2@host/db?ledger=a"b',
        "postgresql://me:hunter2@host/db?ledger=" + "a" * 64,
        "postgresql://me:hunter2@host/db?options=-csynchronous_commit=off",
        "postgresql+psycopg2://me:hunter2@host/db",
        "mysql://me:hunter2@host/db",
        "://me:hunter2@host/db",
    ],
)
def test_addresses_that_are_refused_show_no_password(url):
    with pytest.raises(ValueError) as caught:
        Ledger.open(url, **TERMS)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"postgresql://me:hunter2@127.0.0.1:{silent.getsockname()[1]}/db"
        with pytest.raises(ConnectionError, match="nothing was charged") as caught:
            Ledger.open(url, **TERMS)
        shown = CliRunner().invoke(app, ["ledger", "verify", url])
    assert shown.exit_code == 2
    for text in (str(caught.value), shown.output):
        assert "me@127.0.0.1" in text
        assert "hunter2" not in text


def test_the_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match="extra `postgres`"):
        Ledger.open("postgresql://host/db", **TERMS)


def test_a_password_opens_and_is_never_shown(postgres, tmp_path):
    url = postgres.url("guarded_1", user="guarded:s3cret%3A%2F%40")
    ledger = _spent(url)
    lines = tmp_path / "lines"
    ledger.export_jsonl(lines)
    show = CliRunner().invoke(app, ["ledger", "show", url])
    verify = CliRunner().invoke(app, ["ledger", "verify", "--json", url])
    assert (show.exit_code, verify.exit_code) == (0, 0)
    assert json.loads(verify.output)["head"] == ledger.head
    said = [show.output, verify.output, lines.read_text(), f"{vars(ledger)}"]
    said.append(str(ledger.path))
    assert "guarded@" in str(ledger.path)

    def refused(kind, call, *arguments):
        with pytest.raises(kind) as caught:
            call(*arguments)
        said.append(f"{caught.value!r} {caught.value}")

    refused(FileExistsError, Ledger.import_jsonl, lines, url)
    refused(FileExistsError, merge, [Ledger.open(None, **TERMS)], url)
    refused(ValueError, Ledger.open, url.replace("guarded_1", "absent"))
    refused(OSError, Ledger.open, url.replace("%40", "%40s3cret"))
    assert "authentication failed" in said[-1]
    assert not any("s3cret" in text for text in said)


# Databases that hold other things ----------------------------------------------


def test_ledgers_share_a_database_and_nothing_else(postgres):
    first, second = _spent(postgres.url()), Ledger.open(postgres.url(), **TERMS)
    assert second.spent().upper == 0.0
    second.charge(EIGHTH, label="one", key="k1")
    assert (first.spent().upper, second.spent().upper) == (0.375, 0.125)


def test_a_schema_of_somebody_else_is_no_ledger(postgres):
    postgres.sql("create schema foreign_1; create table foreign_1.t (x int)")
    for terms in ({}, TERMS):
        with pytest.raises(LedgerCorrupt, match="not a dpkit ledger"):
            Ledger.open(postgres.url("foreign_1"), **terms)
    postgres.sql("create schema foreign_2")
    for name in ("meta", "entries"):
        postgres.sql(f"create table foreign_2.{name} (x int)")
    with pytest.raises(LedgerCorrupt):
        Ledger.open(postgres.url("foreign_2"), **TERMS)


def test_a_newer_version_is_refused(postgres):
    ledger = _spent(postgres.url())
    postgres.sql(f"update {_schema(ledger)}.meta set value = '2' where name = 'schema'")
    with pytest.raises(LedgerCorrupt, match="update dpkit"):
        Ledger.open(postgres.url(_schema(ledger)))


@pytest.mark.parametrize("statement", EDITS)
def test_rows_taken_away_added_or_retyped_are_noticed(postgres, statement):
    ledger = _spent(postgres.url())
    postgres.sql(f"set search_path = {_schema(ledger)}; {statement}")
    done = CliRunner().invoke(app, ["ledger", "verify", str(ledger.path)])
    assert done.exit_code == 3, statement


@slow
def test_every_column_of_every_row_is_protected(postgres):
    """One character changed in a stored row, at some places: verify raises."""
    ledger = _spent(postgres.url())
    table = f"{_schema(ledger)}.entries"
    rows = postgres.sql(f"select seq, hash, key, entry from {table}")
    for seq, *texts in rows:
        for name, text in zip(("hash", "key", "entry"), texts, strict=True):
            known = text or "-"
            for place in range(0, len(known), max(1, len(known) // 4)):
                other = chr(ord(known[place]) ^ 1)
                edited = known[:place] + other + known[place + 1 :]
                query = f"update {table} set {name} = %s where seq = %s"
                postgres.sql(query, edited, seq)
                with pytest.raises(LedgerCorrupt):
                    ledger.verify()
                postgres.sql(query, text, seq)
    ledger.verify()


def test_lines_and_merges_go_from_one_database_to_another(postgres, tmp_path):
    ledger = _spent(postgres.url())
    ledger.export_jsonl(tmp_path / "a.jsonl")
    copy = Ledger.import_jsonl(tmp_path / "a.jsonl", postgres.url())
    assert copy.entries() == ledger.entries()
    other = Ledger.open(tmp_path / "other.db", **TERMS)
    other.charge(EIGHTH, label="x")
    merged = merge([ledger, other], postgres.url())
    assert merged.spent().upper == 0.5
    assert ledger.retired and other.retired
    merged.verify()


# Rights ------------------------------------------------------------------------


def test_a_clerk_may_charge_and_can_rewrite_nothing(postgres):
    ledger = _spent(postgres.url())
    name = _schema(ledger)
    postgres.sql(f"""
        create role clerk login;
        grant usage on schema {name} to clerk;
        grant select, insert on {name}.entries to clerk;
        grant select, update on {name}.meta to clerk""")
    clerk = Ledger.open(postgres.url(name, user="clerk"))
    clerk.charge(EIGHTH, label="by the clerk")
    clerk.verify()
    assert ledger.spent().upper == 0.5
    target = f"host={postgres.folder} user=clerk dbname=postgres"
    with psycopg.connect(target, autocommit=True) as connection:
        for statement in ("delete from", "truncate"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"{statement} {name}.entries".encode())
    with pytest.raises(PermissionError, match="nothing was charged"):
        Ledger.open(postgres.url(user="clerk"), **TERMS)
    postgres.sql("create schema made authorization clerk")
    _spent(postgres.url("made", user="clerk")).verify()


def test_who_may_only_read_cannot_charge(postgres):
    ledger = _spent(postgres.url())
    name = _schema(ledger)
    postgres.sql(f"""
        create role reader login;
        grant usage on schema {name} to reader;
        grant select on all tables in schema {name} to reader""")
    reader = Ledger.open(postgres.url(name, user="reader"))
    reader.verify()
    with pytest.raises(PermissionError):
        reader.charge(EIGHTH, label="x")


# Two writers -------------------------------------------------------------------


def test_a_writer_sees_what_the_writer_before_has_spent(ledger_url):
    """The second starts while the first is between its check and its commit."""
    first, second = (Ledger.open(ledger_url, **TERMS) for _ in range(2))
    append = Session.append
    waiting = threading.Event()

    def slow_append(session, entry):
        if entry.label == "first":
            waiting.set()
            time.sleep(0.5)
        append(session, entry)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(Session, "append", slow_append)
        charge = pool.submit(first.charge, EIGHTH, count=5, label="first")
        assert waiting.wait(10)
        with pytest.raises(BudgetExceeded) as caught:
            second.charge(EIGHTH, count=5, label="second")
        charge.result()
    assert caught.value.spent == 0.625
    assert first.spent().upper == 0.625


@slow
def test_a_lock_held_too_long_ends_in_a_timeout(postgres, monkeypatch):
    monkeypatch.setattr(postgres_module, "_WAIT_SECONDS", 1)
    ledger = _spent(postgres.url())
    with ledger._store.writing():
        other = Ledger.open(postgres.url(_schema(ledger)))
        with pytest.raises(TimeoutError, match="nothing was charged"):
            other.charge(EIGHTH, label="x")
        assert other.spent().upper == 0.375
    other.charge(EIGHTH, label="x")


@slow
def test_of_many_creators_one_succeeds(postgres):
    for name in ("raced", "raced_empty"):
        if name == "raced_empty":
            postgres.sql(f"create schema {name}")
        url = postgres.url(name)
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda _, url=url: Ledger.open(url, **TERMS), "12345678")
            )
        assert len({ledger.id for ledger in found}) == 1
        found[0].verify()


# Servers that forget, and servers that are gone ---------------------------------


def _configured(server, setting):
    """Changes a setting of the running server."""
    name, _, value = setting.partition("=")
    server.sql(
        f"alter system set {name} = {value}" if value else f"alter system reset {name}"
    )
    server.sql("select pg_reload_conf()")
    deadline = time.monotonic() + 10
    while value and server.sql(f"show {name}") != [(value,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_that_does_not_flush_is_refused(postgres):
    ledger = _spent(postgres.url())
    _configured(postgres, "fsync=off")
    try:
        for url in (postgres.url(_schema(ledger)), postgres.url()):
            with pytest.raises(OSError, match="fsync=off"):
                Ledger.open(url, **TERMS)
    finally:
        _configured(postgres, "fsync=on")
        _configured(postgres, "fsync")
    Ledger.open(postgres.url(_schema(ledger)))


def test_commits_wait_for_the_disk_whatever_the_defaults(postgres):
    postgres.sql("alter role dpkit set synchronous_commit = off")
    postgres.sql("alter role dpkit set default_transaction_read_only = on")
    try:
        ledger = _spent(postgres.url())
        with ledger._store.writing() as session:
            found = session._connection.exec_driver_sql("show synchronous_commit")
            assert found.scalar_one() == "on"
    finally:
        target = f"host={postgres.folder} user=guarded dbname=postgres"
        with psycopg.connect(target, password=postgres.PASSWORD) as connection:
            connection.execute("alter role dpkit reset all")


def test_a_database_in_another_encoding_is_refused(postgres):
    postgres.sql(
        "create database latin encoding 'LATIN1' locale 'C' template template0"
    )
    with pytest.raises(OSError, match="server_encoding=LATIN1"):
        Ledger.open(postgres.url().replace("/postgres?", "/latin?"), **TERMS)


def test_a_failed_transaction_is_never_taken_for_a_commit(postgres):
    ledger = _spent(postgres.url())
    with pytest.raises(OSError, match="had failed"), ledger._store.writing() as session:
        with pytest.raises(Exception, match="no_such_table"):
            session._connection.exec_driver_sql("select * from no_such_table")


def _lose(server, session):
    """Ends the server's side of a connection."""
    mine = "select pg_backend_pid()"
    pid = session._connection.exec_driver_sql(mine).scalar_one()
    server.sql("select pg_terminate_backend(%s)", pid)


@pytest.mark.parametrize("written", [False, True])
def test_a_server_lost_before_the_commit(postgres, monkeypatch, written):
    """From the last moment on, nobody can know whether the commit arrived."""
    ledger = _spent(postgres.url())
    head, append = ledger.head, Session.append

    def lose(session, entry):
        if written:
            append(session, entry)
        _lose(postgres, session)
        if not written:
            append(session, entry)

    words = "may have been written or not" if written else "nothing was charged"
    with monkeypatch.context() as patch:
        patch.setattr(Session, "append", lose)
        with pytest.raises(ConnectionError, match=words):
            ledger.charge(EIGHTH, label="x", key="k3")
    assert ledger.head == head
    ledger.charge(EIGHTH, label="x", key="k3")
    ledger.verify()


def _backend(ledger):
    with ledger._store.reading() as session:
        mine = "select pg_backend_pid()"
        return session._connection.exec_driver_sql(mine).scalar_one()


def test_one_connection_serves_until_it_is_lost(postgres):
    ledger = _spent(postgres.url())
    first = _backend(ledger)
    ledger.charge(EIGHTH, label="x")
    assert _backend(ledger) == first
    postgres.sql("select pg_terminate_backend(%s)", first)
    ledger.charge(EIGHTH, label="x")
    assert _backend(ledger) != first
    # What failed half way never serves again.
    second = _backend(ledger)
    with pytest.raises(KeyError), ledger._store.writing():
        raise KeyError
    assert _backend(ledger) != second
    ledger.close()
    query = "select count(*) from pg_stat_activity where application_name = 'dpkit'"
    assert postgres.sql(query + " and pid = %s", second) == [(0,)]
    Ledger.open(postgres.url(_schema(ledger))).verify()


@slow
def test_a_forked_child_opens_a_connection_of_its_own(postgres):
    """In a process without JAX, whose threads a fork would lose."""
    url = postgres.url(_schema(_spent(postgres.url())))
    program = """
import os, sys
from dpkit.accountants import Ledger, PureDpEvent
ledger = Ledger.open(sys.argv[1])
child = os.fork()
for number in range(10):
    ledger.charge(PureDpEvent(1 / 256), label="x", key=f"{bool(child)} {number}")
if child:
    sys.exit(os.waitpid(child, 0)[1])
os._exit(0)
"""
    run = [sys.executable, "-c", program, url]
    done = subprocess.run(run, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    ledger = Ledger.open(url)
    ledger.verify()
    assert ledger.spent().upper == 0.375 + 20 / 256


class _Gap:
    """A socket before the server's: told so, it hangs up on a writer's COMMIT.

    The server gets the COMMIT; its answer is swallowed.
    """

    def __init__(self, server):
        self.folder = new_folder()
        self.swallows = False
        self._target = f"{server.folder}/.s.PGSQL.5432"
        self._own = socket.socket(socket.AF_UNIX)
        self._own.bind(f"{self.folder}/.s.PGSQL.5432")
        self._own.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            with self._own.accept()[0] as client, socket.socket(socket.AF_UNIX) as far:
                far.connect(self._target)
                self._copy(client, far)

    def _copy(self, client, far):
        writes = last = False
        while True:
            source = select.select([client, far], [], [])[0][0]
            data = source.recv(1 << 16)
            if not data or (last and source is far):
                return
            writes = writes or b"LOCK TABLE" in data
            last = last or (self.swallows and writes and b"COMMIT" in data)
            (far if source is client else client).sendall(data)


def test_an_answer_lost_after_the_commit_is_counted_once(postgres):
    ledger = _spent(postgres.url())
    gap = _Gap(postgres)
    behind = str(postgres.folder), str(gap.folder)
    far = Ledger.open(postgres.url(_schema(ledger)).replace(*behind))
    gap.swallows = True
    with pytest.raises(ConnectionError, match="the same key charges it once"):
        far.charge(EIGHTH, label="x", key="k3")
    gap.swallows = False
    assert ledger.spent().upper == 0.5
    assert far.charge(EIGHTH, label="x", key="k3") == ledger.entries()[-1]
    assert ledger.spent().upper == 0.5
    ledger.verify()
    shutil.rmtree(gap.folder)


@slow
def test_a_crash_of_the_server_loses_nothing_that_was_promised(postgres):
    """Killed three times while four threads charge; retried with the same keys."""
    url = postgres.url()
    ledger = Ledger.open(url, **TERMS | {"budget": Budget(1e6, 0.0)})
    ended = threading.Event()
    promised: list[str] = []
    troubles: list[OSError] = []

    def work(name):
        own = Ledger.open(url)
        number = 0
        while not ended.is_set():
            key = f"{name}-{number}"
            try:
                own.charge(EIGHTH, label="x", key=key)
            except OSError as error:
                troubles.append(error)
                time.sleep(0.05)
            else:
                promised.append(key)
                number += 1

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, name) for name in "abcd"]
        for _ in range(3):
            time.sleep(1.0)
            postgres.stop("immediate")
            postgres.start()
        time.sleep(1.0)
        ended.set()
        for worker in workers:
            worker.result()
    ledger.verify()
    stored = [e.body["key"] for e in ledger.entries()[1:]]
    assert sorted(stored) == sorted(promised)
    assert len(promised) > 50
    assert troubles
