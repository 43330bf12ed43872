"""From a table and a ledger to a model, in one call."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import Incompatible
from dpkit.accountants.events import sequential
from dpkit.accountants.ledger import Ledger
from dpkit.data.codes import Codebook
from dpkit.data.schema import Schema as Schema
from dpkit.jobs.roots import noise_key, secret_key
from dpkit.mechanisms import _check
from dpkit.synthetic.counting import Source, open_source
from dpkit.synthetic.model import Model, kind_of
from dpkit.synthetic.recipe import Charging, OnProgress, Purse, Recipe, Sealed

RECORDS = ("record", "example", "row")  # units that have one row


class Synthesizer:
    """Makes a table that may be shared from one that may not.

    Args:
      schema: public: columns, their values and bounds, rules.
      mechanism: `PAIRS`, `AIM`, … with the budget of this synthesis.

    Raises:
      ValueError: a schema without columns that can be counted.

    Example:
      >>> import numpy as np
      >>> from dpkit.synthetic import PAIRS, Schema, Synthesizer
      >>> schema = Schema.read({"pet": {"kind": "categorical",
      ...                               "categories": ["cat", "dog"]},
      ...                       "old": {"kind": "boolean"}})
      >>> table = {"pet": ["cat", "dog"] * 500, "old": [True] * 1000}
      >>> maker = Synthesizer(schema, PAIRS(epsilon=1.0, delta=1e-6))
      >>> model = maker.fit(table, key=jax.random.key(0))
      >>> len(model.sample(3, seed=1)["pet"])  # a dict, as it came
      3
    """

    def __init__(self, schema: Schema | Mapping[str, Any], mechanism: Recipe) -> None:
        self.schema = Schema.read(schema)
        self.codebook = Codebook.of(self.schema)
        self.mechanism = mechanism
        self._fitted = False

    def fit(
        self,
        table: Any,
        ledger: Ledger | None = None,
        *,
        rows_per_unit: int | None = None,
        key: jax.Array | None = None,
        seed: int = 0,
        label: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Model:
        """Counts, pays, measures, and searches.

        Privacy: (epsilon, delta) of the mechanism for one unit, under the ledger's
        relation, charged before anything is released. Logs, progress and the model
        hold nothing else about the table.

        Args:
          table: private: anything with `__arrow_c_stream__` (pandas, Polars, DuckDB,
            datasets), a dict of arrays, the path of a CSV, Parquet or Arrow file or of
            a folder of them, or a `Source`.
          ledger: it is charged; None: one in memory, for add_remove of one record, with
            just this budget.
          rows_per_unit: the most rows of one unit; more are left out. Needed
            where the schema has a unit_column.
          key: of the noise, secret, used for this call alone; None: from the operating
            system.
          seed: of the search; never of noise.
          label: of the ledger's entries.
          on_progress: is told (done, total, doing).

        Returns:
          The model: public.

        Raises:
          ValueError: a table that doesn't fit the schema; a second fit. Nothing is
            charged.
          BudgetExceeded: the ledger can't pay. Nothing is released.
          Incompatible: the ledger protects units of several rows, and nobody says of
            how many.
        """
        if self._fitted:
            raise ValueError("fit: this synthesizer was fitted; make another for it")
        if ledger is not None and rows_per_unit is None:
            _refuse_other_units(ledger)
        key = secret_key() if key is None else _check.typed_key(key)
        recipe = self.mechanism
        label = label or f"synthetic table by {recipe.name}"
        source = open_source(table, self.codebook, rows_per_unit=rows_per_unit)
        with _ledger(ledger, recipe, rows_per_unit) as book:
            made = synthesize(
                recipe,
                source,
                book,
                lambda releases: _purse(recipe, releases, book, key, label),
                seed=seed,
                on_progress=on_progress,
            )
        self._fitted = True
        return dataclasses.replace(made, kind=kind_of(table))


def synthesize(
    recipe: Recipe,
    source: Source,
    ledger: Ledger,
    purse_for: Callable[[Mapping[str, DpEvent] | None], Purse],
    *,
    seed: int,
    on_progress: OnProgress | None = None,
) -> Model:
    """Runs a recipe on a ledger.

    Args:
      recipe: with its budget.
      source: private counts.
      ledger: whose terms the model repeats.
      purse_for: charges what is fixed beforehand, and gives the purse.
      seed: of the search.
      on_progress: is told how far it has come.
    """
    releases = recipe.releases(source.codebook, ledger.relation, source.reach)
    purse = purse_for(releases)
    fitted = recipe.fit(source, purse, seed=seed, on_progress=on_progress)
    receipt = {
        "mechanism": recipe.name,
        "epsilon": recipe.epsilon,
        "delta": recipe.delta,
        "relation": str(ledger.relation),
        "unit": ledger.unit,
        "dataset": ledger.dataset,
        "ledger": ledger.id,
        "ledger_head": ledger.head,
    }
    return Model.of(source.codebook.schema, fitted, receipt)


def _purse(
    recipe: Recipe,
    releases: Mapping[str, DpEvent] | None,
    ledger: Ledger,
    key: jax.Array,
    label: str,
) -> Purse:
    """Pays for a sealed plan at once, or lets each release be charged."""
    if releases is None:
        return Charging(ledger, key, label)
    event = sequential(list(releases.values()))
    if ledger.remaining(event, delta=recipe.delta) < 1:
        ledger.reserve(event, label=label, delta=recipe.delta)  # says what is left

    @functools.cache
    def settled() -> None:
        """The whole plan is paid before its first release, after all counting."""
        with ledger.reserve(event, label=label, delta=recipe.delta) as grant:
            grant.commit(1)

    def key_of(name: str) -> jax.Array:
        """The key of a release."""
        settled()
        return noise_key(key, name.encode(), np.zeros(0))

    return Sealed(releases, ledger.relation, key_of)


def _refuse_other_units(ledger: Ledger) -> None:
    """Refuses a guarantee for single rows on a ledger that protects more."""
    if ledger.unit not in RECORDS:
        raise Incompatible(
            f"rows_per_unit is missing: the ledger protects {ledger.unit!r}, which may "
            "have several rows; name the schema's unit_column and give rows_per_unit, "
            "or rows_per_unit=1 if none has more"
        )


def _ledger(ledger: Ledger | None, recipe: Recipe, rows_per_unit: int | None) -> Any:
    """The ledger, which stays open, or one in memory with just this budget."""
    if ledger is not None:
        return contextlib.nullcontext(ledger)
    return Ledger.open(
        None,
        budget=Budget(recipe.epsilon, recipe.delta),
        relation="add_remove",
        unit="record" if rows_per_unit is None else "unit",
        dataset="table",
    )
