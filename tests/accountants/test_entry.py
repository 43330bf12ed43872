"""Entries: canonical text, hashes, links."""

import hashlib
import json
from typing import Any

import pytest

from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.storage.entry import Entry, canonical, check_link, parse

ID = "00000000-0000-4000-8000-000000000001"
GENESIS = Entry(
    seq=0,
    ts="2030-01-01T00:00:00Z",
    ledger=ID,
    kind="genesis",
    prev="0" * 64,
    body={
        "budget": {"delta": "1e-05", "epsilon": "3.0"},
        "dataset": "toy",
        "filter": "zcdp",
        "relation": "add_remove",
        "unit": "example",
    },
)


def _second(**changes: Any) -> Entry:
    body = {
        "adaptive": True,
        "count": 10,
        "event": {"kind": "gaussian", "noise_multiplier": "10.0", "v": 1},
        "plan": None,
    }
    fields: dict[str, Any] = {
        "seq": 1,
        "ts": "2030-01-01T00:00:01Z",
        "ledger": ID,
        "kind": "spend",
    }
    return Entry(**fields | {"prev": GENESIS.hash, "body": body} | changes)


def test_hash_of_a_genesis_entry():
    """SHA-256 of the canonical text, computed with sha256sum on text typed by hand."""
    assert GENESIS.hash == (
        "229d786eb188996218b9f6c91be5233b685c751a3068c6893dd4fc47a09d0a0c"
    )


def test_hash_of_the_entry_after_it():
    """As above; it contains the hash of the entry before."""
    assert _second().hash == (
        "eea8fb8f5319ebb7ba7c5000c3fd40eb6b59d462db03d1b759a6e2001cf6431f"
    )


def test_canonical_text_is_sorted_dense_and_utf8():
    assert canonical({"b": [1, True, None], "a": "ε"}) == '{"a":"ε","b":[1,true,null]}'


@pytest.mark.parametrize("bad", [1.5, {"a": [0.1]}, {1: "a"}, float("nan"), {"a": {2}}])
def test_what_has_no_canonical_text_is_refused(bad):
    with pytest.raises(TypeError):
        canonical(bad)


def test_an_entry_reads_back():
    entry = _second()
    assert parse(entry.text, entry.hash, 1) == entry


def test_every_single_character_of_the_text_matters():
    entry = _second()
    for place in range(len(entry.text)):
        other = chr(ord(entry.text[place]) ^ 1)
        edited = entry.text[:place] + other + entry.text[place + 1 :]
        with pytest.raises(LedgerCorrupt, match="seq=1"):
            parse(edited, entry.hash, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": True},
        {"kind": "refund"},
        {"ts": "yesterday"},
        {"seq": 2},
        {"body": []},
        {"extra": 1},
        {"prev": None},
    ],
)
def test_malformed_entries_are_refused_even_with_a_right_hash(change):
    text = json.dumps(
        _second().to_json() | change, sort_keys=True, separators=(",", ":")
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(LedgerCorrupt, match="seq=1"):
        parse(text, digest, 1)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"a": 1}', "[" * 100_000])
def test_text_that_is_no_entry_is_refused(text):
    with pytest.raises(LedgerCorrupt):
        parse(text, hashlib.sha256(text.encode()).hexdigest(), 0)


def test_spaces_and_other_spellings_are_refused():
    entry = _second()
    text = json.dumps(entry.to_json(), sort_keys=True)
    with pytest.raises(LedgerCorrupt, match="canonical"):
        parse(text, hashlib.sha256(text.encode()).hexdigest(), 1)


def test_links():
    check_link(None, GENESIS)
    check_link(GENESIS, _second())


@pytest.mark.parametrize(
    ("before", "entry"),
    [
        (None, _second()),
        (GENESIS, _second(prev="1" * 64)),
        (GENESIS, _second(seq=2)),
        (GENESIS, _second(ledger="other")),
        (GENESIS, _second(kind="genesis")),
    ],
)
def test_broken_links_are_refused(before, entry):
    with pytest.raises(LedgerCorrupt, match="chain"):
        check_link(before, entry)


def test_the_clock_may_go_backwards():
    check_link(GENESIS, _second(ts="1999-12-31T23:59:59Z"))


def test_the_next_entry_names_the_one_before():
    following = GENESIS.followed_by("note", {"text": "x"})
    check_link(GENESIS, following)
    assert following.ts.endswith("Z")
