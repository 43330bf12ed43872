"""The ledger: every release is charged here, durably, before it is made.

A ledger has one budget, one relation, one privacy unit and one data set, fixed when it
is created. It is append-only: entries are chained by hashes (storage/entry.py) in an
SQLite file or a PostgreSQL schema (storage/store.py), each carries the totals after it
(state.py), and how charges are counted so that adaptive choices stay valid is in
rules/filters.py and rules/counting.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget, PrivacyBound
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.ledger import spending, verification
from dpkit.accountants.ledger.book import Book, remark
from dpkit.accountants.ledger.grant import Grant
from dpkit.accountants.ledger.request import Facts, Request, Sweep, one_line, plan_items
from dpkit.accountants.ledger.tracing import refuse_inside_trace
from dpkit.accountants.rules.terms import ALL, Terms
from dpkit.accountants.storage import lines
from dpkit.accountants.storage.entry import Entry, genesis
from dpkit.accountants.storage.store import Sole, Store

__all__ = ["Entry", "Grant", "Ledger"]


class Ledger(Sole):
    """A durable account of privacy loss that refuses before it is overdrawn.

    Privacy: the releases charged to it are together (epsilon, delta)-DP for its budget,
    under its relation and unit, also when later events are chosen from earlier outputs
    (regime "adaptive"; rules/filters.py proves it). What is not charged is not covered.

    Example:
      >>> from dpkit.accountants import PureDpEvent
      >>> ledger = Ledger.open(None, budget=Budget(1.0, 0.0), relation="add_remove",
      ...                      unit="example", dataset="toy 1.0")
      >>> entry = ledger.charge(PureDpEvent(0.4), label="first look")
      >>> ledger.spent().upper, ledger.remaining(PureDpEvent(0.4))
      (0.4, 1)
      >>> ledger.charge(PureDpEvent(0.7), label="second look")
      Traceback (most recent call last):
      dpkit.accountants.answers.errors.BudgetExceeded: asked for epsilon=0.7 with ...
    """

    def __init__(self, store: Store):
        """Use `Ledger.open`."""
        self.author: str | None = None
        self._store = store
        self._book = Book(store)
        self.terms = self._book.terms

    @classmethod
    def open(
        cls,
        path: str | Path | None,
        *,
        budget: Budget | None = None,
        relation: Relation | str | None = None,
        unit: str | None = None,
        dataset: str | None = None,
        regime: str = "adaptive",
        filter: str = "auto",
        adaptive: Budget | None = None,
        scopes: Mapping[str, Budget] | None = None,
        author: str | None = None,
    ) -> Self:
        """Opens a ledger, a context manager; creates it where there is none.

        Args:
          path: a file; a URL, `sqlite:///FILE` or `postgresql://USER@HOST/DB?ledger=NAME`
            (in the schema NAME, or "ledger"; needs the extra `postgres`); or None for a
            ledger in memory. Keep passwords in ~/.pgpass or PGPASSWORD.
          budget: needed to create; on opening it must agree, as the next three.
          relation: "add_remove", "replace_one" or "zero_out".
          unit: what one record is: "example", "user", …
          dataset: name and version of the data; never anything computed from rows.
          regime: "adaptive", or "static" for one sealed plan.
          filter: "auto" lets the first charge decide: where it fits by its Rényi
            curve, all charges share one Rényi filter, of which many runs take little
            each; else it is "approx", in which plans count by the tightest accountant.
            Or "zcdp", or "pure".
          adaptive: part of the budget kept for charges chosen along the way; without
            it the first such charge takes all that is left, or shares it ("auto").
          scopes: budgets of named, index-based blocks of the data. "all" counts every
            charge; a scope counts those that name it and those on "all".
          author: who charges through this object, in a line of free text; it stands in
            the provenance of its entries. Not checked: it proves nothing.

        Raises:
          ValueError: a term is missing or malformed.
          Incompatible: a given term is not the ledger's.
          LedgerCorrupt: truncated, edited, written by a newer dpkit, or no ledger.
          OSError: the file or the server can't be reached, or the server isn't durable.
        """
        if author is not None:
            one_line(author=author)
        if filter == "auto" and adaptive is not None and adaptive == budget:
            adaptive = None  # all of it: what "auto" does by itself
        store = Store(lines.location(path))
        needed = dict(budget=budget, relation=relation, unit=unit, dataset=dataset)
        more = dict(regime=regime, filter=filter, adaptive=adaptive, scopes=scopes)
        terms: dict[str, Any] = needed | more
        try:
            if not store.exists():
                missing = [name for name, value in needed.items() if value is None]
                if missing:
                    raise ValueError(
                        f"path={store.path} holds no ledger; to create one give "
                        f"{', '.join(missing)}"
                    )
                new = Terms(**terms | {"scopes": dict(scopes or {})})
                store.create(genesis(new.to_body()))
            store.check()
            ledger = cls(store)
            ledger.terms.refuse_other(**terms)
            ledger.author = author
        except BaseException:
            store.close()
            raise
        return ledger

    @classmethod
    def import_jsonl(cls, path: str | Path, into: str | Path | None) -> Ledger:
        """A new ledger, verified: entry for entry what `export_jsonl` wrote.

        Args:
          path: the file of JSON lines.
          into: where the ledger is made; nothing may be there yet.

        Raises:
          FileExistsError: `into` is there.
          LedgerCorrupt: the lines are not a whole, unedited ledger.
        """
        store = Store(lines.location(into))
        if store.exists() or not store.create(*lines.read_lines(Path(path))):
            raise FileExistsError(
                f"into={store.path} is there already; choose another path"
            )
        ledger = cls(store)
        ledger.verify()
        return ledger

    def charge(
        self,
        event: DpEvent,
        *,
        count: int = 1,
        label: str,
        key: str | None = None,
        scope: str | Sequence[str] = ALL,
        provenance: Facts | None = None,
    ) -> Entry:
        """Charges a release made elsewhere; call it before the release.

        Args:
          event: what one release costs.
          count: how many releases.
          label: what to call it, one line.
          key: makes a retry safe: the same key with the same event is the same charge.
          scope: "all", or one or several declared scopes that alone are touched.
          provenance: flat public facts (run id, config hash, code version); never data.

        Returns:
          The entry, on disk; its `counted` says how it was counted.

        Raises:
          BudgetExceeded: it would pass a budget; nothing was written.
          UnsupportedEvent: the ledger's filter can't count it.
          ValueError: a bad value, or a key that belongs to another charge.
          RuntimeError: inside a function that JAX traces.
        """
        refuse_inside_trace("ledger.charge")
        how = dict(count=count, key=key, scope=scope, provenance=provenance)
        wanted = self._request("spend", event, label=label, **how)
        return self._book.enter(wanted)[0]

    def release(
        self,
        mechanism: Any,
        key: Any,
        records: Any,
        *,
        label: str,
        scope: str | Sequence[str] = ALL,
    ) -> Any:
        """Charges a mechanism, then calls it, for what it returns: the ordinary way.

        Args:
          mechanism: has `event(relation)` and `mechanism(key, records)`.
          key: the random key of the release.
          records: private data.
          label: what to call it, one line.
          scope: as for `charge`.

        Raises:
          BudgetExceeded: and the mechanism was not called. See `charge` for the others.
            What the mechanism raises passes through; the charge stays.
        """
        refuse_inside_trace("ledger.release")
        event = mechanism.event(self.relation)
        wanted = self._request("release", event, label=label, scope=scope)
        self._book.enter(wanted)
        return mechanism(key, records)

    def reserve(
        self,
        event: DpEvent | Sweep,
        *,
        count: int = 1,
        delta: float | None = None,
        label: str,
        key: str | None = None,
        scope: str | Sequence[str] = ALL,
        provenance: Facts | None = None,
    ) -> Grant:
        """Charges a whole sealed plan, durably, before its first step.

        The grant that it gives is a context manager.

        Args:
          event: what one step costs; or a list of events, or of (event, count): a sweep
            of runs, sealed together, `grant[i]` for each. Counted as one plan, many
            more fit than one by one; all of it is spent, whichever of them are made.
          count: how many steps, all with these parameters; 1 for a sweep.
          delta: at which its own bound is stated, and where it is counted as a plan its
            share of delta; None: the ledger's, and all that is left.
          label: what to call it, one line.
          key: makes a restart safe: meeting an earlier identical reservation resumes
            it, free of charge. It stands for one run: whoever resumes must repeat the
            same releases, random keys included, as `fit` does. Once resumed, a
            reservation gives nothing back: it can't be aborted, and is charged in full
            whatever is committed, for its other holder may still be at work. One that
            gave steps back can't be resumed.
          scope, provenance: as for `charge`.

        Raises:
          BudgetExceeded: it would pass a budget; nothing was written. See `charge`.
          ValueError: the key's reservation gave steps back already.
        """
        refuse_inside_trace("ledger.reserve")
        how = dict(count=count, key=key, scope=scope, provenance=provenance)
        wanted = self._request("reserve", event, label=label, delta=delta, **how)
        if self.regime == "static" and self._book.state().plan is None:
            items = {label: (wanted.prices.event, count)}
            self.plan(items, label=label, delta=delta, scope=scope)
        return Grant(self._book, *self._book.enter(wanted))

    def granted(self, key: str) -> Grant:
        """The reservation that `reserve` gave this key, for the one who settles it.

        Nothing is entered, so it still counts as held once: settle it where nobody else
        may be at work. To repeat its releases, `reserve` again with the key.

        Raises:
          ValueError: no reservation has the key, or it was aborted.
        """
        with self._store.reading() as session:
            found = [e for e in session.with_key(key) if e.kind == "reserve"]
            if not found:
                raise ValueError(f"key={key!r} names no reservation of this ledger")
            entry = found[-1]
            kinds = {other.kind for other in session.about(entry.seq)}
        if "abort" in kinds:
            raise ValueError(f"key={key!r}: entry seq={entry.seq} was aborted")
        grant = Grant(self._book, entry, False)
        grant.committed = "commit" in kinds
        return grant

    def plan(
        self,
        items: Mapping[str, tuple[DpEvent, int]],
        *,
        label: str,
        delta: float | None = None,
        scope: str | Sequence[str] = ALL,
        provenance: Facts | None = None,
    ) -> Entry:
        """Seals the one plan of a static ledger: all releases, before the first.

        The plan is charged as a whole, by the tightest certified accountant. After it,
        `charge`, `release` and `reserve` take its items by their labels, at no cost.

        Args:
          items: label -> (event, count).
          label: what to call the plan.
          delta: its share of delta; None takes all.
          scope, provenance: as for `charge`; items must repeat the scope.

        Raises:
          BudgetExceeded: it would pass the budget; nothing was written.
          ValueError: the ledger is not static, or has its plan.
        """
        refuse_inside_trace("ledger.plan")
        if self.regime != "static":
            raise ValueError(f"regime={self.regime!r} has no plan; use ledger.reserve")
        event, written = plan_items(items)
        how = dict(label=label, delta=delta, scope=scope, provenance=provenance)
        wanted = self._request("plan", event, items=written, **how)
        return self._book.enter(wanted)[0]

    def _request(self, kind: str, event: DpEvent | Sweep, **asked: Any) -> Request:
        """What a charge asks for; a subclass may refuse it, before anything else."""
        if self.author is not None:
            told = asked.get("provenance") or {}
            asked["provenance"] = {"author": self.author, **told}
        return self._book.request(kind, event, **asked)

    def spent(self, delta: float | None = None, *, scope: str = ALL) -> PrivacyBound:
        """What the ledger has spent: a certified, conservative bound.

        Args:
          delta: where to report epsilon, fixed beforehand; None is the budget's.
          scope: "all" (every charge), or one scope: the loss of a record in it alone.

        Returns:
          The bound, which holds whatever follows, and whatever that depends on. Its
          regime is "static" while one sealed plan, that no filter counts, is all there
          is. An upper side of inf, at a smaller delta than the budget's, says nothing.

        Raises:
          ValueError: delta outside [0, 1), or an unknown scope.
        """
        return spending.spent(self._book, delta, scope)

    def charged(self, key: str) -> PrivacyBound | None:
        """What the charges of one run cost by themselves, as they were counted.

        Args:
          key: of the run: its charges have this key, or key/NAME.

        Returns:
          Of these releases alone: for one reservation its own bound, at its own delta;
          else the sum by the ledger's filter, at the ledger's delta, or for one charge
          that has a delta of its own at that; None: nothing has the key.

        Example:
          >>> from dpkit.accountants import PureDpEvent
          >>> ledger = Ledger.open(None, budget=Budget(9.0, 0.0), relation="add_remove",
          ...                      unit="example", dataset="toy 1.0")
          >>> for key in ("run/a", "run/b", "other"):
          ...     entry = ledger.charge(PureDpEvent(0.5), label=key, key=key)
          >>> ledger.charged("run").upper
          1.0
        """
        return spending.charged(self._book, key)

    def parts(self) -> dict[int, float]:
        """The part that each charge has in what is spent, by the number of its entry.

        They sum to 1, at the order whose report is the ledger's where it counts by
        Rényi curves; what was given back has no part. Empty where nothing is spent, or
        no finite bound is left.

        Example:
          >>> from dpkit.accountants import PureDpEvent
          >>> ledger = Ledger.open(None, budget=Budget(9.0, 0.0), relation="add_remove",
          ...                      unit="example", dataset="toy 1.0")
          >>> for epsilon in (0.5, 1.5):
          ...     entry = ledger.charge(PureDpEvent(epsilon), label="look")
          >>> ledger.parts()
          {1: 0.25, 2: 0.75}
        """
        return spending.parts(self._book)

    def remaining(
        self,
        event: DpEvent,
        *,
        delta: float | None = None,
        sealed: bool = True,
        scope: str | Sequence[str] = ALL,
    ) -> int:
        """The largest count of an event that would be accepted now, at most 10**9.

        Args:
          event: what one release costs.
          delta: the share of delta, as for `reserve`.
          sealed: count them as one plan (`reserve`), else as charges (`charge`).
          scope: as for `charge`.
        """
        how = dict(label="?", delta=delta, scope=scope)
        wanted = self._book.request("reserve", event, **how)
        return spending.remaining(self._book, wanted, sealed)

    def note(self, text: str) -> Entry:
        """Adds a remark, one line; costs nothing."""
        with self._store.writing() as session:
            return remark(session, "note", text)

    def retire(self, reason: str) -> Entry:
        """Closes the books for ever: every later charge is refused."""
        with self._store.writing() as session:
            return remark(session, "close", reason)

    def entries(self) -> list[Entry]:
        """Every entry, in order; each is checked against its own hash."""
        with self._store.reading() as session:
            return list(session.all())

    def verify(self, *, recount: bool = False) -> None:
        """Checks everything: pages, chain, form of each entry, and all totals again.

        Args:
          recount: also ask the accountants again whether each entered number can be
            true; slow where plans are many.

        Raises:
          LedgerCorrupt: naming the first entry that is not as it was written.
        """
        with self._store.reading() as session:
            verification.verify(session, self._book.prices if recount else None)

    def export_jsonl(self, path: str | Path) -> None:
        """Writes every entry as a line of JSON, and the head as the last line.

        Raises:
          FileExistsError: the path is there already.
        """
        lines.write_lines(self.entries(), Path(path))

    def close(self) -> None:
        """Forgets the connection; a ledger in memory is lost."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def path(self) -> Path | str | None:
        """The file, the URL without its password, or None for a ledger in memory."""
        return self._store.path

    @property
    def id(self) -> str:
        """The random id given at creation."""
        return self._book.genesis.ledger

    @property
    def head(self) -> str:
        """The hash of the last entry: it names the whole ledger."""
        with self._store.reading() as session:
            return session.head().hash

    @property
    def retired(self) -> bool:
        """Whether the books are closed."""
        return self._book.state().closed

    @property
    def budget(self) -> Budget:
        """The most that may be spent."""
        return self.terms.budget

    @property
    def relation(self) -> Relation:
        """The neighbouring relation of every event."""
        return Relation(self.terms.relation)

    @property
    def unit(self) -> str:
        """The privacy unit."""
        return self.terms.unit

    @property
    def dataset(self) -> str:
        """The name that the user gave the data."""
        return self.terms.dataset

    @property
    def regime(self) -> str:
        """ "adaptive", or "static" (one sealed plan, fixed before any output)."""
        return self.terms.regime
