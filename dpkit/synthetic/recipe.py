"""What every synthesis is: a recipe that measures a table privately, and then searches.

A new recipe is one frozen dataclass: its budget, what it will release, and `fit`, which
counts through a `Source`, pays through a `Purse` before each release, and hands over
measurements, targets and rows. Everything after the last payment is post-processing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import jax
import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.ledger import Ledger
from dpkit.jobs.roots import noise_key

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source
    from dpkit.synthetic.engine import Target

OnProgress = Callable[[int, int, str], None]  # done, total, doing
_HALVINGS = 12
_ENOUGH = 0.9  # of what was asked for; a filter of its own keeps back less


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """Noisy counts of one family of cells: released, public.

    Args:
      columns: numbers of the columns.
      values: counts, signed, float64, shaped by the columns' sizes.
      stddev: of the noise of one cell, in counts; 0: an exact public total.

    Example:
      >>> Measurement((0,), np.array([3.2, -0.4]), 1.0).precision
      1.0
    """

    columns: tuple[int, ...]
    values: np.ndarray
    stddev: float

    @property
    def precision(self) -> float:
        """One over the variance of a cell; of an exact total very large."""
        return 1 / max(self.stddev, 1e-6) ** 2


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """Counts that are public, or were measured elsewhere, such as by an office.

    Args:
      columns: names.
      values: counts, in the order of the columns' codes.
      stddev: of the error of one cell, in counts; 0: exact, and kept exactly.

    Example:
      >>> Known(("sex",), [120, 80]).stddev
      0.0
    """

    columns: tuple[str, ...]
    values: Any
    stddev: float = 0.0

    def measurement(self, codebook: Codebook) -> Measurement:
        """The same by the numbers of columns, in their order.

        Raises:
          ValueError: another column or shape than the schema has; no numbers.
        """
        names = list(codebook.names)
        if not set(self.columns) <= set(names) or len(set(self.columns)) < len(
            self.columns
        ):
            raise ValueError(f"known: {self.columns!r} must be columns of the schema")
        numbers = [names.index(name) for name in self.columns]
        values = np.asarray(self.values, np.float64)
        shape = tuple(codebook.sizes[n] for n in numbers)
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(
                f"known: counts of {self.columns!r} must be finite, of shape {shape}; "
                f"they are of {values.shape}"
            )
        if values.sum() <= 0:
            raise ValueError(f"known: counts of {self.columns!r} must sum to above 0")
        checks.non_negative(stddev=self.stddev)
        order = np.argsort(numbers)
        return Measurement(
            tuple(sorted(numbers)), values.transpose(order), float(self.stddev)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """What a recipe made of what it measured; all of it public.

    Args:
      measurements: everything that was released, in the order of release.
      targets: shares that the rows were fitted to.
      rows: codes, (N, d).
      records: the number of records as estimated, n-hat.
      estimates: by columns, what is now thought of counts, and their deviations.
      facts: JSON values about the fit, for reports.
    """

    measurements: tuple[Measurement, ...]
    targets: tuple[Target, ...]
    rows: np.ndarray
    records: float
    estimates: Mapping[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = (
        dataclasses.field(default_factory=dict)
    )
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Purse(Protocol):
    """Pays for releases, each before it is made, and gives the key of its noise."""

    relation: Relation

    def affordable(self, rho: float) -> float:
        """How much zCDP releases that are chosen along the way may have, at most rho.

        A ledger's filter may allow less than a plan that is fixed beforehand.
        """
        ...

    def pay(self, event: DpEvent, name: str) -> jax.Array:
        """Charges one release.

        Args:
          event: what it costs.
          name: of the release, once a synthesis.

        Returns:
          A typed key, secret, for the noise of this release alone.

        Raises:
          BudgetExceeded: nothing was charged, and nothing may be released.
        """
        ...


class Recipe(Protocol):
    """A way to make a table from noisy counts.

    Attributes:
      name: as on the command line.
      epsilon, delta: what it may cost in all.
    """

    name: ClassVar[str]

    @property
    def epsilon(self) -> float:
        """What it may cost."""
        ...

    @property
    def delta(self) -> float:
        """At which epsilon is meant."""
        ...

    def releases(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> Mapping[str, DpEvent] | None:
        """What will be released by name, if that is fixed beforehand; else None.

        Args:
          codebook: public.
          relation: of the ledger.
          reach: the most steps that one unit adds to a family of cells.

        Raises:
          ValueError: a table or relation that the recipe can't serve.
        """
        ...

    def fit(
        self,
        source: Source,
        purse: Purse,
        *,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Fitted:
        """Measures and searches.

        Args:
          source: private counts.
          purse: pays for each release, under its relation.
          seed: of the search alone, never of noise.
          on_progress: is told how far it has come; nothing private.
        """
        ...


class Sealed:
    """A purse for releases that are all fixed and paid together beforehand.

    Args:
      releases: what was paid, by name.
      relation: of the ledger.
      key_of: the secret key of a named release.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> paid = Sealed({"one": GaussianDpEvent(2.0)}, Relation.ADD_REMOVE,
      ...               lambda name: jax.random.key(0))
      >>> paid.pay(GaussianDpEvent(1.0), "one")
      Traceback (most recent call last):
      ValueError: one: another release than was paid for
    """

    def __init__(
        self,
        releases: Mapping[str, DpEvent],
        relation: Relation,
        key_of: Callable[[str], jax.Array],
    ) -> None:
        self.relation = relation
        self._left, self._key_of = dict(releases), key_of

    def affordable(self, rho: float) -> float:
        """All of it: it was paid."""
        return rho

    def pay(self, event: DpEvent, name: str) -> jax.Array:
        """The key of a release that was paid, once."""
        paid = self._left.get(name)
        if event != paid and not _cheaper(event, paid):
            raise ValueError(f"{name}: another release than was paid for")
        del self._left[name]
        return self._key_of(name)


def _cheaper(event: DpEvent, paid: DpEvent | None) -> bool:
    """Whether both are Gaussians, and the event has no less noise."""
    if not isinstance(event, GaussianDpEvent) or not isinstance(paid, GaussianDpEvent):
        return False
    return event.noise_multiplier >= paid.noise_multiplier


class Charging:
    """A purse that charges each release to a ledger, chosen perhaps on earlier ones.

    Args:
      ledger: it is charged.
      key: secret, of this synthesis alone.
      label: of the entries.
    """

    def __init__(self, ledger: Ledger, key: jax.Array, label: str) -> None:
        self.relation = ledger.relation
        self._ledger, self._key, self._label = ledger, key, label
        self._names: set[str] = set()

    def affordable(self, rho: float) -> float:
        """What the ledger's filter lets pass."""
        return affordable(self._ledger, rho, lambda one: self.pay(one, "first"))

    def pay(self, event: DpEvent, name: str) -> jax.Array:
        """Charges a release under its name, once."""
        if name in self._names:
            raise ValueError(f"{name}: paid before; its noise would be used twice")
        self._ledger.charge(event, label=f"{self._label}: {name}")
        self._names.add(name)
        return noise_key(self._key, name.encode(), np.zeros(0))


def affordable(ledger: Ledger, rho: float, pay: Callable[[DpEvent], Any]) -> float:
    """The most zCDP, up to rho, that a ledger would let pass release by release.

    Curves of releases add up, and none of ours is above that of one Gaussian with the
    same rho: if that may be charged, so may they.

    Args:
      ledger: is asked.
      rho: that is wanted.
      pay: charges what can't be paid, so that the refusal says what is left.

    Raises:
      BudgetExceeded: less than nine tenths: ask for less.
    """
    low, high, share = 0.0, 1.0, 1.0
    far = 2.0 if ledger.relation is Relation.REPLACE_ONE else 1.0  # as accountants say
    for _ in range(_HALVINGS):
        event = GaussianDpEvent(far * (2 * rho * share) ** -0.5)
        if ledger.remaining(event, sealed=False) >= 1:
            low = share
        else:
            high = share
        if low == high:
            break
        share = (low + high) / 2
    if low < _ENOUGH:  # says what is left
        pay(GaussianDpEvent(far * (2 * rho) ** -0.5))
    return rho * low


def measure(mechanism: Any, total: Any, purse: Purse, name: str) -> np.ndarray:
    """Pays for a bounded sum, then publishes it.

    Args:
      mechanism: has `event` and `privatize`.
      total: the exact sum; private.
      purse: pays first.
      name: of the release.

    Raises:
      BudgetExceeded: nothing was released.
    """
    key = purse.pay(mechanism.event(purse.relation), name)
    own = noise_key(key, repr(mechanism).encode(), total)
    return mechanism.privatize(own, total)


def select(choice: Any, scores: np.ndarray, purse: Purse, name: str) -> tuple[int, ...]:
    """Pays for a private choice, then makes it.

    Args:
      choice: a `Selection`.
      scores: of the candidates; private.
      purse, name: as for `measure`.
    """
    key = purse.pay(choice.event(purse.relation), name)
    own = noise_key(key, repr(choice).encode(), scores)
    return choice.choose(own, scores)


def quiet(done: int, total: int, doing: str) -> None:
    """Tells nobody."""
    del done, total, doing
