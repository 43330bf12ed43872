"""A reservation: what a loop may release, paid for before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.events.notation import from_json
from dpkit.accountants.ledger.book import Book
from dpkit.accountants.ledger.pricing import bound_from_json
from dpkit.accountants.ledger.request import flat
from dpkit.accountants.storage.entry import Entry
from dpkit.accountants.storage.store import Sole


class Grant(Sole):
    """Leave to release a reserved event up to `count` times; made by `Ledger.reserve`.

    Privacy: all of it was charged, durably, before this object existed. Leaving the
    block without `commit`, by an exception or by a crash keeps all of it spent.

    Attributes:
      entry: the reservation in the ledger.
      resumed: whether `key` met an earlier identical reservation: nothing was charged,
        and the same releases may be made, not others.
      committed: whether the reservation has been committed, now or earlier.

    Example:
      >>> from dpkit.accountants import Budget, Ledger, PureDpEvent
      >>> ledger = Ledger.open(None, budget=Budget(3.0, 0.0), relation="add_remove",
      ...                      unit="example", dataset="toy")
      >>> with ledger.reserve(PureDpEvent(0.5), count=4, label="loop") as grant:
      ...     entry = grant.commit(ran=4)
      >>> grant.committed, ledger.spent().upper
      (True, 2.0)
    """

    def __init__(self, book: Book, entry: Entry, resumed: bool):
        self._book = book
        self._left = False
        self.entry = entry
        self.resumed = resumed
        self.committed = resumed and book.committed(entry)

    @property
    def count(self) -> int:
        """How many steps were paid; a sweep is one."""
        return self.entry.body["count"]

    @property
    def bound(self) -> PrivacyBound:
        """The static bound of the whole reservation by itself, as it was counted."""
        return bound_from_json(self.entry.body["bound"])

    @property
    def runs(self) -> list[Run]:
        """The runs of a sweep, in order (`grant[i]` is one); of one plan none."""
        runs = flat(self.entry.body.get("runs", ()))
        return [
            Run(self, index, from_json(run["event"]), run["count"])
            for index, run in enumerate(runs)
        ]

    def __getitem__(self, index: int) -> Run:
        return self.runs[index]

    def commit(self, ran: int) -> Entry:
        """Closes the reservation, once all releases are made.

        What did not run is given back only where it was counted step by step (the
        entry's `counted` is "renyi" or "zcdp"): a sealed plan counted as one
        (epsilon, delta) is never made cheaper after looking. And only where no one
        resumed the reservation by its key: another holder may have run further.

        Args:
          ran: how many copies of the event were begun, 0 to `count`; one that was begun
            (a tree, a stream of correlated noise) counts as a whole,
            and so does a sweep.

        Returns:
          The commit entry; the same one when repeated with the same number.

        Raises:
          ValueError: outside the range, below a checkpoint, or settled otherwise.
          RuntimeError: the block was left already.
        """
        self._refuse_left("commit")
        ran = self._steps(ran=ran)
        entry = self._book.settle(self.entry, "commit", {"ran": ran})
        self.committed = True
        return entry

    def checkpoint(self, step: int) -> Entry:
        """Notes that steps up to `step` are released and saved; costs nothing.

        Args:
          step: 0 to `count`.

        Raises:
          ValueError: outside the range, or the reservation is settled.
          RuntimeError: the block was left already.
        """
        self._refuse_left("checkpoint")
        step = self._steps(step=step)
        return self._book.settle(self.entry, "checkpoint", {"step": step})

    def _made(self, run: int) -> Entry:
        """Notes that a run of a sweep was made."""
        self._refuse_left("commit")
        return self._book.settle(self.entry, "checkpoint", {"run": run, "step": 1})

    def abort(self, *, nothing_released: bool) -> Entry:
        """Gives everything back: only if no output was computed, seen or stored.

        Args:
          nothing_released: must be True: your word, which the entry records.

        Raises:
          ValueError: not True, a checkpoint says otherwise, it was resumed (another
            holder may have released something), or it is settled.
          RuntimeError: the block was left already.
        """
        self._refuse_left("abort")
        if nothing_released is not True:
            raise ValueError(
                f"nothing_released={nothing_released!r} must be True; if anything was "
                "released, commit instead"
            )
        return self._book.settle(self.entry, "abort", {"nothing_released": True})

    def __enter__(self) -> Grant:
        return self

    def __exit__(self, *exception: object) -> None:
        self._left = True

    def _refuse_left(self, action: str) -> None:
        """Outside the block a reservation is settled: all spent, or committed."""
        if self._left:
            raise RuntimeError(f"{action} after the block was left: all of it is spent")

    def _steps(self, **value: int) -> int:
        """A number of steps within the reservation."""
        name, steps = next(iter(value.items()))
        steps = checks.integer_at_least(0, **value)
        if steps > self.count:
            raise ValueError(f"{name}={steps} is more than the {self.count} reserved")
        return steps


@dataclass(frozen=True)
class Run:
    """One run of a sealed sweep: leave to release its event `count` times.

    Attributes:
      grant: of the whole sweep.
      index: its place in it.
      event: what one step of it costs.
      count: how many steps.

    Example:
      >>> from dpkit.accountants import Budget, Ledger, PureDpEvent
      >>> ledger = Ledger.open(None, budget=Budget(3.0, 0.0), relation="add_remove",
      ...                      unit="example", dataset="toy")
      >>> sweep = [PureDpEvent(0.5), (PureDpEvent(0.25), 4)]
      >>> with ledger.reserve(sweep, label="sweep") as grant:
      ...     entry = grant[1].commit()
      >>> grant[1].bound.upper, ledger.spent().upper
      (1.0, 1.5)
    """

    grant: Grant
    index: int
    event: DpEvent
    count: int

    @property
    def bound(self) -> PrivacyBound:
        """The static bound of this run by itself, at the delta of the whole."""
        prices = self.grant._book.prices(self.event)
        return prices.bound(self.count, self.grant.bound.delta)

    def commit(self) -> Entry:
        """Notes in the ledger that this run was made; it gives nothing back.

        Raises:
          ValueError: the whole sweep is settled.
          RuntimeError: the block was left already.
        """
        return self.grant._made(self.index)
