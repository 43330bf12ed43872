"""Entries of a ledger: canonical JSON, hashed into a chain.

An entry is a JSON object with the fields v, seq, ts, ledger, kind, prev and body. Its
text is canonical (keys sorted, no spaces, UTF-8, no floats: numbers with a physical
meaning are decimal strings), its hash is the SHA-256 of that text, and `prev` is the
hash of the entry before. So every entry vouches for all earlier ones, and the hash of
the last one, the head, names the whole ledger. The chain shows edits; it can't prevent
them: whoever can rewrite the file can rewrite the chain, unless the head was noted
elsewhere (dpkit prints it in every report).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dpkit.accountants.answers.errors import LedgerCorrupt

VERSION = 1
NO_PREVIOUS = "0" * 64
KINDS = frozenset(
    "genesis plan reserve resume commit release spend abort note checkpoint "
    "close".split()
)

_FIELDS = dict(v=int, seq=int, ts=str, ledger=str, kind=str, prev=str, body=dict)
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def canonical(value: Any) -> str:
    """The one text of a JSON value, whose UTF-8 bytes are hashed.

    Args:
      value: None, bool, int, str, and lists and string-keyed mappings of them.

    Raises:
      TypeError: a float (write it as a decimal string) or a foreign type.

    Example:
      >>> canonical({"b": 1, "a": ["0.5", None]})
      '{"a":["0.5",null],"b":1}'
    """
    _refuse_floats(value)
    return _ENCODER.encode(value)


@dataclass(frozen=True)
class Entry:
    """One line of a ledger.

    Fields: seq (place in the chain, from 0), ts (RFC 3339, UTC; clocks may go
    backwards, the order is seq), ledger (its uuid), kind (one of `KINDS`), prev (hash
    of the entry before), body (depends on the kind; read only), v (version of the
    format).

    Example:
      >>> first = genesis({})
      >>> first.kind, len(first.hash), first.followed_by("note", {}).seq
      ('genesis', 64, 1)
    """

    seq: int
    ts: str
    ledger: str
    kind: str
    prev: str
    body: dict[str, Any]
    v: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """The entry as the JSON object that is hashed."""
        return {name: getattr(self, name) for name in _FIELDS}

    @cached_property
    def text(self) -> str:
        """The canonical text."""
        return canonical(self.to_json())

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def label(self) -> str:
        """What the user called it; empty for entries that carry no label."""
        return self.body.get("label", "")

    def followed_by(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """The next entry of the chain, stamped with the present time."""
        seq = self.seq + 1
        return Entry(seq, timestamp(), self.ledger, kind, self.hash, dict(body))


def genesis(body: Mapping[str, Any]) -> Entry:
    """The first entry of a new ledger, with a new random id."""
    name = str(uuid.uuid4())
    return Entry(0, timestamp(), name, "genesis", NO_PREVIOUS, dict(body))


def parse(text: str, digest: str, seq: int) -> Entry:
    """The entry stored as `text`, with the hash `digest` beside it, at place `seq`.

    Raises:
      LedgerCorrupt: anything is not exactly as it was written; the message names seq.
    """
    if hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() != digest:
        raise LedgerCorrupt(f"entry seq={seq}: its text and its hash differ")
    try:
        entry = _from_json(json.loads(text, parse_float=_refuse_float), seq)
        rewritten = _ENCODER.encode(entry.to_json())
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerCorrupt(f"entry seq={seq}: {error}") from None
    if rewritten != text or entry.seq != seq:
        raise LedgerCorrupt(f"entry seq={seq}: not in canonical form, or moved")
    vars(entry).update(text=text, hash=digest)  # both were checked just now
    return entry


def _from_json(value: Any, seq: int) -> Entry:
    """The entry of a JSON object, after checking its fields."""
    if not isinstance(value, dict) or value.keys() != _FIELDS.keys():
        raise LedgerCorrupt(f"entry seq={seq}: fields other than {sorted(_FIELDS)}")
    for name, kind in _FIELDS.items():
        if type(value[name]) is not kind:
            raise LedgerCorrupt(f"entry seq={seq}: {name} is not a {kind.__name__}")
    if value["v"] != VERSION:
        raise LedgerCorrupt(
            f"entry seq={seq}: v={value['v']}, but this dpkit reads {VERSION}: "
            "update dpkit, or the file was edited"
        )
    if value["kind"] not in KINDS or not _TIME.fullmatch(value["ts"]):
        raise LedgerCorrupt(f"entry seq={seq}: unknown kind or malformed ts")
    return Entry(**value)


def check_link(before: Entry | None, entry: Entry) -> None:
    """Raise LedgerCorrupt unless `entry` directly follows `before` in one chain."""
    due = (0, NO_PREVIOUS, entry.ledger)
    if before is not None:
        due = (before.seq + 1, before.hash, before.ledger)
    starts = (entry.kind == "genesis") == (before is None)
    if not starts or (entry.seq, entry.prev, entry.ledger) != due:
        raise LedgerCorrupt(f"entry seq={entry.seq}: the chain is broken before it")


def timestamp() -> str:
    """The present time, RFC 3339 in UTC, to the second."""
    now = datetime.datetime.now(datetime.UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def _refuse_float(text: str) -> None:
    """A number in JSON that Python reads as a binary float."""
    raise ValueError(f"value={text}: numbers are written as decimal strings")


def _refuse_floats(value: Any) -> None:
    """Binary floats have no canonical text that all languages share."""
    if isinstance(value, float):
        raise TypeError(f"value={value!r}: write numbers as decimal strings")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key={key!r} must be a string")
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)
