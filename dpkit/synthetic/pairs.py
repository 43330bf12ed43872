r"""PAIRS: every pair of columns in two Gaussian stages, shrunk, priced, then searched.

What is measured, with all noise Gaussian and the privacy of each stage fixed before
anything is seen:

    singles         a share of the budget, the wide columns more carefully
    pairs           all of them alike
    pairs again     all of them once more, the strong ones more carefully

One row lights one cell of each table, so a release of tables with deviations s_c is
mu-GDP with mu^2 = sum of 1 / s_c^2, and the three together are exactly mu-GDP with the
sum of theirs: which tables get how much of a stage may depend on what came before, how
much a stage costs may not.

The rest is post-processing: least squares of the columns over everything, shrinkage of
every pair (`shrinkage`), a price on pairs of values that nobody holds, rows drawn from
a forest of the strongest pairs (`start`), and the search.

Source: this library's own, in parts from McKenna et al., arXiv:2108.04978 (marginals),
Zhang et al., arXiv:2012.15128 (all pairs), Liu et al., arXiv:2306.03257 (row-wise
search); composition: Dong, Roth, Su, arXiv:1905.02383.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.tables import Marginals
from dpkit.synthetic.budgets import noise_multiplier
from dpkit.synthetic.recipe import (
    Fitted,
    Known,
    Measurement,
    OnProgress,
    Purse,
    measure,
    quiet,
)
from dpkit.synthetic.view import View, refuse_memory

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source

SINGLES, PAIRS_ONCE, PAIRS_AGAIN = "singles", "pairs", "pairs again"
PRICES = {"few": 3.0, "fewer": 8.0, "free": 0.0}
_WEAKEST = 0.02  # strength from which on a pair gets more of the second stage
_ROUNDING = 1 + 1e-9  # so that sums of precisions never pass what was paid
_Counted = dict[tuple[int, ...], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PAIRS:
    """All pairs of columns, measured twice; the default for tables.

    Args:
      epsilon, delta: what everything may cost.
      impossible: how much rows that hold a pair of values that nobody seems to hold are
        avoided: "few", "fewer" at some loss of accuracy, or "free" of any price.
      rows: how many to make; None: as many as there are estimated to be, at most
        250,000.
      pairs: names of those to measure; None: all.
      known: what is known of the table from elsewhere; public.
      sweeps, cooling: of the search.
      singles_share, first_share: of the budget for single columns, and of the rest for
        the first look at pairs.

    Raises:
      ValueError: a number out of its range.

    Example:
      >>> PAIRS(epsilon=1.0, delta=1e-6).name
      'pairs'
    """

    epsilon: float
    delta: float
    impossible: Literal["few", "fewer", "free"] = "few"
    rows: int | None = None
    pairs: Sequence[tuple[str, str]] | None = None
    known: Sequence[Known] = ()
    sweeps: int = 8
    cooling: float = 0.7
    singles_share: float = 0.2
    first_share: float = 0.4

    name: ClassVar[str] = "pairs"

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.open_probability(delta=self.delta)
        checks.one_of(tuple(PRICES), impossible=self.impossible)
        checks.integer_at_least(1, sweeps=self.sweeps)
        for name in ("singles_share", "first_share", "cooling"):
            checks.open_probability(**{name: getattr(self, name)})
        if self.rows is not None:
            checks.integer_at_least(1, rows=self.rows)

    def releases(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> Mapping[str, DpEvent]:
        """The three Gaussian releases, by name."""
        del reach
        families = self._families(codebook)
        refuse_memory(codebook, families, rows=self.rows)
        shares = {SINGLES: self.singles_share}
        if families:
            rest = 1 - self.singles_share
            shares[PAIRS_ONCE] = rest * self.first_share
            shares[PAIRS_AGAIN] = rest * (1 - self.first_share)
        else:
            shares[SINGLES] = 1.0
        noise = noise_multiplier(self.epsilon, self.delta, relation)
        return {
            name: GaussianDpEvent(noise / math.sqrt(share))
            for name, share in shares.items()
        }

    def planned(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> dict[tuple[int, ...], float]:
        """The noise that a count of each family will have, were all pairs as strong.

        Both looks at a pair together; in counts, a deviation.
        """
        releases = self.releases(codebook, relation, reach)
        budget = _Budget.of(releases, self._families(codebook), relation, reach, 1.0)
        sizes = np.array(codebook.sizes, float) ** (2 / 3)
        precisions = budget.whole[SINGLES] * sizes / sizes.sum()
        noises: dict[tuple[int, ...], float] = {
            (n,): float(one**-0.5) for n, one in enumerate(precisions)
        }
        pairs = sum(budget.whole.values()) - budget.whole[SINGLES]
        for family in budget.families:
            noises[family] = (pairs / len(budget.families)) ** -0.5
        return noises

    def fit(
        self,
        source: Source,
        purse: Purse,
        *,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Fitted:
        """Measures, estimates, and searches for rows; see the module."""
        codebook = source.codebook
        tell = on_progress or quiet
        tell(0, 1, "counting pairs")
        releases = self.releases(codebook, purse.relation, source.reach)
        budget = _Budget.of(
            releases,
            self._families(codebook),
            purse.relation,
            source.reach,
            source.unit,
        )
        known = [one.measurement(codebook) for one in self.known]
        measured = _measured(source, purse, budget)
        tell(0, 1, "estimating")
        view = View.of(codebook, [*measured, *known])
        return view.fitted(
            [*measured, *known],
            price=PRICES[self.impossible],
            rows=self.rows,
            sweeps=self.sweeps,
            cooling=self.cooling,
            seed=seed,
            tell=tell,
        )

    def _families(self, codebook: Codebook) -> list[tuple[int, int]]:
        """The pairs to measure, of columns with more than one value."""
        wide = [n for n, size in enumerate(codebook.sizes) if size > 1]
        if self.pairs is None:
            return list(itertools.combinations(wide, 2))
        numbers = {name: n for n, name in enumerate(codebook.names)}
        chosen = set()
        for pair in self.pairs:
            if len(set(pair)) != 2 or not set(pair) <= set(numbers):
                raise ValueError(
                    f"pairs has {pair!r}: needed two columns of the schema"
                )
            chosen.add(tuple(sorted(numbers[name] for name in pair)))
        return sorted(pair for pair in chosen if set(pair) <= set(wide))  # type: ignore


@dataclasses.dataclass(frozen=True)
class _Budget:
    """What a synthesis may measure: sums of precisions, in counts."""

    families: list[tuple[int, int]]
    whole: dict[str, float]  # of each stage
    step: float
    reach: int

    @classmethod
    def of(
        cls,
        events: Mapping[str, Any],
        families: list[tuple[int, int]],
        relation: Relation,
        reach: int,
        step: float,
    ) -> _Budget:
        """The events as precisions: one unit moves a family by reach steps."""
        # Marginals of one family with deviation 1 say what a precision costs.
        plain: Any = Marginals(
            families=((0,),), sizes=(1,), stddevs=(1.0,), reach=reach
        ).event(relation)
        whole = {
            name: (plain.noise_multiplier / event.noise_multiplier / step) ** 2
            for name, event in events.items()
        }
        return cls(families, whole, step, reach)


def _measured(source: Source, purse: Purse, budget: _Budget) -> list[Measurement]:
    """Everything that is released."""
    codebook, pairs = source.codebook, budget.families
    singles = [(n,) for n in range(len(codebook.sizes))]
    families = [*singles, *pairs]
    counts: _Counted = dict(zip(families, source.count(families), strict=True))

    def release(name: str, precisions: Mapping[Any, float]) -> list[Measurement]:
        """One stage."""
        chosen = list(precisions)
        deviations = [float(p) ** -0.5 * _ROUNDING for p in precisions.values()]
        sums = Marginals(
            families=tuple(chosen),
            sizes=tuple(codebook.sizes),
            stddevs=tuple(one / budget.step for one in deviations),
            reach=budget.reach,
        )
        total = np.concatenate([counts[family].ravel() for family in chosen])
        tables = sums.split(measure(sums, total, purse, name))
        return [
            Measurement(family, table * budget.step, deviation)
            for family, table, deviation in zip(chosen, tables, deviations, strict=True)
        ]

    sizes = np.array([codebook.sizes[n] for (n,) in singles], float) ** (2 / 3)
    wanted = budget.whole[SINGLES] * sizes / sizes.sum()
    found = release(SINGLES, dict(zip(singles, wanted, strict=True)))
    if not pairs:
        return found
    each = budget.whole[PAIRS_ONCE] / len(pairs)
    found += release(PAIRS_ONCE, dict.fromkeys(pairs, each))
    view = View.of(codebook, found)
    strong = np.array([max(view.strength(pair), _WEAKEST) for pair in pairs])
    again = budget.whole[PAIRS_AGAIN] * strong / strong.sum()
    return found + release(PAIRS_AGAIN, dict(zip(pairs, again, strict=True)))
