"""Several ledgers made into one; ledgers as lines of text."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from typing import Any

import dp_accounting as dp
import pytest

from dpkit.accountants import (
    ApproxDpEvent,
    Budget,
    BudgetExceeded,
    Incompatible,
    Ledger,
    LedgerCorrupt,
    PureDpEvent,
)
from dpkit.accountants.ledger.merging import merge
from dpkit.accountants.storage.entry import Entry, canonical
from dpkit.accountants.storage.store import Store

TERMS: dict[str, Any] = {
    "relation": "add_remove",
    "unit": "example",
    "dataset": "toy 1.0",
}


def _ledger(path=None, budget=None, **options) -> Any:
    budget = budget or Budget(2.0, 1e-6)
    return Ledger.open(path, budget=budget, **TERMS | options)


def _spent(path=None) -> Any:
    """A ledger with charges of several kinds."""
    ledger = _ledger(path, adaptive=Budget(1.0, 5e-7))
    ledger.charge(dp.GaussianDpEvent(30.0), count=2, label="look")
    ledger.reserve(PureDpEvent(0.5), count=2, label="plan", delta=0.0)
    ledger.note("µ-note")
    return ledger


# Merging -----------------------------------------------------------------------


def test_epsilons_and_deltas_add_up():
    parts = [_spent(), _spent(), _ledger()]
    reports = [Fraction(repr(part.spent().upper)) for part in parts]
    merged = merge(parts, None)
    assert merged.budget == Budget(6.0, 3e-6)
    found = merged.entries()[-1].body["after"]["totals"]["all"]
    assert Fraction(found["epsilon"]) == sum(reports)
    assert Fraction(found["delta"]) == 2 * Fraction("1e-6")
    merged.verify()


def test_epsilon_zero_at_a_delta_takes_the_delta():
    part, event = _ledger(budget=Budget(1.0, 1e-6)), ApproxDpEvent(0.0, 5e-7)
    part.charge(event, label="nearly nothing")
    assert part.spent().upper == 0.0
    merged = merge([part], None)
    found = merged.entries()[-1].body["after"]["totals"]["all"]
    assert Fraction(found["delta"]) == Fraction("1e-6")
    with pytest.raises(BudgetExceeded):
        merged.charge(event, label="again")
    merged.charge(PureDpEvent(0.125), label="pure")
    merged.verify(recount=True)


def test_what_was_never_charged_takes_nothing():
    aborted: Any = _ledger()
    with aborted.reserve(dp.GaussianDpEvent(9.0), label="no") as grant:
        grant.abort(nothing_released=True)
    merged = merge([_ledger(), aborted], None)
    assert merged.spent().upper == 0.0
    whole = merged.budget.delta
    assert merged.reserve(ApproxDpEvent(0.5, whole), label="all of delta").bound.upper


def test_the_old_ledgers_are_retired_and_named():
    parts = [_spent(), _spent()]
    merged = merge(parts, None)
    for part, entry in zip(parts, merged.entries()[1:], strict=True):
        assert part.retired
        last, close = part.entries()[-2:]
        facts = entry.body["provenance"]
        assert (facts["head"], facts["entries"]) == (last.hash, close.seq)
        with pytest.raises(ValueError, match="closed"):
            part.charge(PureDpEvent(0.1), label="late")


def test_the_rest_of_a_smaller_budget_is_enforced():
    merged: Any = merge([_spent(), _spent()], None, budget=Budget(3.5, 1e-5))
    left = 3.5 - merged.spent().upper
    with pytest.raises(BudgetExceeded):
        merged.charge(PureDpEvent(left + 1e-9), label="too much")
    merged.charge(PureDpEvent(left - 1e-9), label="fits")
    with pytest.raises(BudgetExceeded):
        merge([_spent(), _spent()], None, budget=Budget(1.0, 1e-5))


@pytest.mark.parametrize("name", ["relation", "unit", "dataset"])
def test_other_terms_are_incompatible(name):
    other = {"relation": "zero_out", "unit": "user", "dataset": "other"}[name]
    with pytest.raises(Incompatible, match=name):
        merge([_ledger(), _ledger(**{name: other})], None)


def test_forks_are_refused(tmp_path):
    ledger = _spent(tmp_path / "a.db")
    (tmp_path / "b.db").write_bytes((tmp_path / "a.db").read_bytes())
    fork = Ledger.open(tmp_path / "b.db")
    fork.charge(PureDpEvent(0.125), label="fork")
    with pytest.raises(Incompatible, match=ledger.id):
        merge([ledger, fork], None)
    with pytest.raises(Incompatible):
        merge([ledger, ledger], None)
    assert not ledger.retired


def test_a_ledger_is_not_merged_twice_by_a_detour():
    first, second = _spent(), _spent()
    merged = merge([first, second], None)
    with pytest.raises(Incompatible, match=first.id):
        merge([merged, first], None)
    merge([merged, _spent()], None).verify()


def test_nothing_to_merge_and_a_place_taken(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        merge([], None)
    _ledger(tmp_path / "a.db").close()
    with pytest.raises(FileExistsError):
        merge([_ledger()], tmp_path / "a.db")


def test_a_merge_over_budget_leaves_everything_as_it_was(tmp_path):
    parts = [_ledger(tmp_path / name) for name in ("a.db", "b.db")]
    parts[0].charge(PureDpEvent(0.5), label="a")
    parts[1].charge(PureDpEvent(1.8), label="b")
    heads = [part.head for part in parts]
    with pytest.raises(BudgetExceeded):
        merge(parts, tmp_path / "m.db", budget=Budget(2.0, 1e-6))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.db", "b.db"]
    assert [part.head for part in parts] == heads
    assert merge(parts, tmp_path / "m.db").spent().upper == pytest.approx(2.3)


@pytest.mark.parametrize("place", ["full", "taken", "charged"])
def test_a_merge_that_fails_late_leaves_everything_as_it_was(
    tmp_path, monkeypatch, place
):
    parts = [_spent(tmp_path / "a.db"), _spent(tmp_path / "b.db"), _ledger()]
    create, spent = Store.create, Ledger.spent

    def fail(store, *entries):
        if store.path is None:
            return create(store, *entries)
        if place == "full":
            raise OSError("disk full")
        return False

    def charge_after(ledger):
        found = spent(ledger)
        ledger.note("meanwhile")
        return found

    with monkeypatch.context() as patch:
        if place == "charged":
            patch.setattr(Ledger, "spent", charge_after)
        else:
            patch.setattr(Store, "create", fail)
        with pytest.raises((OSError, RuntimeError)):
            merge(parts, tmp_path / "m.db")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.db", "b.db"]
    assert not any(part.retired for part in parts)
    merge(parts, tmp_path / "m.db").verify()
    assert all(part.retired for part in parts)


KILLED = """
import contextlib, os, sys
from pathlib import Path
from dpkit.accountants import Ledger
from dpkit.accountants.storage import sqlite, store
from dpkit.accountants.ledger.merging import merge
from dpkit.accountants.storage.store import Store
writing = store.Store.writing
@contextlib.contextmanager
def die_after(own):
    with writing(own) as session:
        yield session
    if own.path and own.path.name in ("a.db", "b.db"):
        os._exit(9)
for moment in ("_publish", "_sync_folder", "writing"):
    if os.fork() == 0:
        folder = Path(sys.argv[1]) / moment
        if moment == "writing":
            store.Store.writing = die_after
        else:
            setattr(sqlite, moment, lambda *_: os._exit(9))
        parts = [Ledger.open(folder / name) for name in ("a.db", "b.db")]
        merge(parts, folder / "m.db")
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 9
"""


@pytest.mark.slow
def test_a_merge_killed_at_any_moment_can_be_made_again(tmp_path):
    """Killed before the new file has its name, after, and between two retirements."""
    moments = {"_publish": (False, 0), "_sync_folder": (True, 0), "writing": (True, 1)}
    for moment in moments:
        (tmp_path / moment).mkdir()
        for name in ("a.db", "b.db"):
            _spent(tmp_path / moment / name)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], check=True, env=environment
    )
    for moment, (there, retired) in moments.items():
        folder = tmp_path / moment
        parts: Any = [Ledger.open(folder / name) for name in ("a.db", "b.db")]
        sums = [Fraction(repr(part.spent().upper)) for part in parts]
        assert (folder / "m.db").exists() == there
        assert sum(part.retired for part in parts) == retired
        if there:
            Ledger.open(folder / "m.db").verify()
        merged = merge(parts, folder / "m.db")
        merged.verify()
        assert all(part.retired for part in parts)
        assert len(merged.entries()) == 3
        found = merged.entries()[-1].body["after"]["totals"]["all"]
        assert Fraction(found["epsilon"]) == sum(sums)


def test_a_killed_merge_is_not_finished_once_an_old_ledger_went_on(tmp_path):
    parts = [_spent(tmp_path / "a.db"), _spent(tmp_path / "b.db")]
    before = (tmp_path / "a.db").read_bytes()
    merge(parts, tmp_path / "m.db").close()
    # As if it had been killed before it retired this one.
    (tmp_path / "a.db").write_bytes(before)
    parts[0].charge(PureDpEvent(0.125), label="went on")
    with pytest.raises(FileExistsError):
        merge(parts, tmp_path / "m.db")
    assert not parts[0].retired
    # The other one's budget was handed on already.
    with pytest.raises(Incompatible, match="merged into"):
        merge(parts, tmp_path / "again.db")


# Lines of text -----------------------------------------------------------------


def test_lines_lose_nothing(tmp_path):
    ledger = _spent()
    ledger.export_jsonl(tmp_path / "a.jsonl")
    copy = Ledger.import_jsonl(tmp_path / "a.jsonl", tmp_path / "b.db")
    assert copy.entries() == ledger.entries()
    assert copy.spent() == ledger.spent()
    assert copy.head == ledger.head
    copy.charge(PureDpEvent(0.125), label="goes on")
    copy.verify()


def test_lines_are_not_overwritten(tmp_path):
    ledger = _spent()
    ledger.export_jsonl(tmp_path / "a.jsonl")
    with pytest.raises(FileExistsError):
        ledger.export_jsonl(tmp_path / "a.jsonl")
    _ledger(tmp_path / "b.db").close()
    with pytest.raises(FileExistsError):
        Ledger.import_jsonl(tmp_path / "a.jsonl", tmp_path / "b.db")


@pytest.mark.parametrize("line", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("how", ["drop", "edit", "repeat", "space"])
def test_edited_lines_are_refused(tmp_path, line, how):
    _spent().export_jsonl(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(lines) == 5
    if how == "drop":
        del lines[line]
    elif how == "repeat":
        lines.insert(line, lines[line])
    elif how == "space":
        lines[line] = lines[line].replace(",", ", ", 1)
    else:
        # A hash of the last line may have no 1; it counts 4 entries.
        old = "1" if "1" in lines[line] else "4"
        lines[line] = lines[line].replace(old, "2", 1)
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    if how == "space" and line == 4:
        return
    with pytest.raises(LedgerCorrupt):
        Ledger.import_jsonl(tmp_path / "a.jsonl", tmp_path / "b.db")
    assert not (tmp_path / "b.db").exists()


@pytest.mark.parametrize("size", [0, 1, 100, 500, -1, -2])
def test_lines_cut_short_are_refused(tmp_path, size):
    _spent().export_jsonl(tmp_path / "a.jsonl")
    text = (tmp_path / "a.jsonl").read_text()
    (tmp_path / "a.jsonl").write_text(text[:size])
    with pytest.raises(LedgerCorrupt):
        Ledger.import_jsonl(tmp_path / "a.jsonl", tmp_path / "b.db")


def test_totals_rewritten_with_a_fresh_chain_are_found(tmp_path):
    """An editor who recomputes every hash still has to make the totals add up."""
    _spent().export_jsonl(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    entries: list[str] = []
    previous: Any = None
    for line in lines[:-1]:
        fields = json.loads(line)["entry"]
        if previous is not None:
            fields["prev"] = previous.hash
        if fields["seq"] == 2:
            fields["body"]["after"]["totals"]["all"]["epsilon"] = "0.25"
        previous = Entry(**fields)
        entries.append(canonical({"entry": fields, "hash": previous.hash}))
    entries.append(canonical({"entries": len(entries), "head": previous.hash}))
    (tmp_path / "a.jsonl").write_text("\n".join(entries) + "\n")
    with pytest.raises(LedgerCorrupt, match="seq=2: its totals"):
        Ledger.import_jsonl(tmp_path / "a.jsonl", None)


def test_costs_too_small_to_be_true_are_found_by_a_recount(tmp_path):
    """A consistent forgery: costs, totals and hashes all rewritten."""
    ledger = _ledger(filter="approx")
    ledger.charge(PureDpEvent(0.5), label="x")
    ledger.export_jsonl(tmp_path / "a.jsonl")
    text = (tmp_path / "a.jsonl").read_text()
    genesis, charge = (json.loads(line)["entry"] for line in text.splitlines()[:2])
    charge["body"]["cost"]["all"]["epsilon"] = "0.125"
    charge["body"]["after"]["totals"]["all"]["epsilon"] = "0.125"
    entries = [Entry(**genesis), Entry(**charge)]
    lines = [canonical({"entry": e.to_json(), "hash": e.hash}) for e in entries]
    lines.append(canonical({"entries": 2, "head": entries[-1].hash}))
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    forged = Ledger.import_jsonl(tmp_path / "a.jsonl", None)
    with pytest.raises(LedgerCorrupt, match="seq=1"):
        forged.verify(recount=True)


def test_a_ledger_is_merged_once(tmp_path):
    """Merged twice, its budget would be handed on twice."""
    parts = [_ledger(tmp_path / name) for name in ("a.db", "b.db")]
    merge(parts, tmp_path / "first.db")
    with pytest.raises(Incompatible, match="merged into"):
        merge(parts, tmp_path / "second.db")
    assert not (tmp_path / "second.db").exists()
