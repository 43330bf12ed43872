"""A synthetic table as a job: the counts of a table, noise on them, and a search.

The table is read, and all is counted that a recipe counts, before anything is on disk,
and before the first time that is noted anywhere: how long that takes tells how many
rows there are, and no file and no entry of the ledger shows it. The charge follows, and
then the noise; the seconds of a run begin there, and depend on public numbers alone.
(What merf adds up, and gsd of half-spaces, it adds up once more before the charge.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events import sequential
from dpkit.accountants.ledger import Ledger
from dpkit.data.codes import Codebook
from dpkit.data.random_access import ArrayRows
from dpkit.data.schema import Schema
from dpkit.data.tables import adult_schema, load_adult
from dpkit.jobs import Outcome, Prepared, Progress, Session
from dpkit.jobs.config import naming
from dpkit.jobs.progress import OnProgress, Tell
from dpkit.synthetic import files, forecast
from dpkit.synthetic.config import Config
from dpkit.synthetic.counting import Held, Source, fingerprint, open_source
from dpkit.synthetic.model import FILE, Model
from dpkit.synthetic.recipe import Purse, Recipe, Sealed, affordable
from dpkit.synthetic.recipes import recipe_of
from dpkit.synthetic.report import told
from dpkit.synthetic.view import memory_limit

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "synthetic.csv"
_ROW_VALUE = 64  # bytes, of a column in a row while it is made
_COST = ("epsilon", "delta", "relation", "unit", "dataset", "ledger", "ledger_head")


class _Job:
    """`dpkit synth fit`."""

    name = "synth"
    config = Config

    def prepare(
        self, config: Config, *, offline: bool, tell: Tell | None, data: bool = True
    ) -> Synthesis:
        """Reads and counts the table, and refuses what can't be made."""
        with naming(Config, "data", "synthetic", "privacy"):
            codebook = Codebook.of(_schema(config))
            privacy = config.privacy
            recipe = recipe_of(
                config.synthetic.mechanism,
                epsilon=privacy.epsilon,
                delta=privacy.delta,
                **config.synthetic.options(),
            )
            made = Synthesis(config, recipe, codebook)
            if data:
                source = open_source(
                    _table(config, offline, tell),
                    codebook,
                    rows_per_unit=privacy.rows_per_unit,
                    on_progress=tell,
                )
                made.data = fingerprint(source)
                made.source = Held(source)
                _count(made.source, recipe, as_relation(privacy.relation))
        return made


SYNTH = _Job()


@dataclasses.dataclass
class Synthesis(Prepared):
    """A recipe, and the counts that it will measure: private, without noise yet."""

    settings: Config
    recipe: Recipe
    codebook: Codebook
    source: Source | None = dataclasses.field(default=None, repr=False)
    # What the releases depend on, as a hash: private.
    data: np.ndarray | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        """What the frame asks of every job."""
        data, privacy = self.settings.data, self.settings.privacy
        name = data.dataset or data.name or Path(data.path or "").name
        self.names_data = data.dataset is not None or data.name is not None
        self.terms = {
            "relation": privacy.relation,
            "unit": privacy.unit,
            "dataset": name,
        }
        self.title = name
        self.budget = Budget(privacy.epsilon, privacy.delta)
        self.facts = {"schema_sha256": self.codebook.schema.sha256}
        self._refuse_rows()
        self._releases = self.recipe.releases(
            self.codebook, as_relation(privacy.relation), self._reach
        )
        if self._releases is None and self.settings.share is not None:
            raise ValueError(
                f"ledger.share with mechanism={self.recipe.name!r}: releases that are "
                "chosen along the way would each be counted by itself, and soon pass "
                "the share; leave it out, privacy.epsilon is the limit as well"
            )

    def _refuse_rows(self) -> None:
        """Refuses more rows than memory holds, whatever the mechanism."""
        rows = getattr(self.recipe, "rows", None) or 0
        needed, limit = _ROW_VALUE * rows * len(self.codebook.names), memory_limit()
        if needed > limit:
            raise ValueError(
                f"rows={rows}: they would need some {needed:,} bytes, above {limit:,}; "
                "more can be drawn from the model in parts, by dpkit synth sample"
            )

    @property
    def _reach(self) -> int:
        """As the source will have it."""
        from dpkit.synthetic.counting import STEPS

        weighed = self.codebook.schema.weight_column is not None
        return (self.settings.privacy.rows_per_unit or 1) * (STEPS if weighed else 1)

    def cost(self) -> DpEvent | None:
        """All releases, where they are fixed beforehand."""
        releases = self._releases
        return None if releases is None else sequential(list(releases.values()))

    def estimate(self) -> Mapping[str, Any]:
        """The forecast, in short."""
        privacy = self.settings.privacy
        return forecast.forecast(
            self.codebook,
            self.recipe,
            privacy.relation,
            rows_per_unit=privacy.rows_per_unit,
        ).short()

    def run(self, session: Session, ledger: Ledger, on_progress: OnProgress) -> Outcome:
        """Charges, measures, searches."""
        if self.source is None:
            raise ValueError("data: a dry run has no table")
        session.agree(data=session.secrets.fingerprint(ArrayRows([self.data])))
        paid = functools.cache(time.monotonic)  # the moment of the first payment
        purse = self._purse(session, ledger, paid)
        counted = self.settings.privacy.epsilon

        def tell(done: int, total: int, doing: str) -> None:
            """Passes on how far the search has come."""
            on_progress(Progress(done, total, doing, counted))

        seed = self.settings.synthetic.seed
        fitted = self.recipe.fit(self.source, purse, seed=seed, on_progress=tell)
        model = Model.of(self.codebook.schema, fitted, {"mechanism": self.recipe.name})
        outcome = told(self.settings, model, self.title, self._releases)
        facts = {
            "mechanism": self.recipe.name,
            "rows": len(fitted.rows),
            "columns": len(self.codebook.names),
            "records": round(fitted.records, 1),
            "peak_memory_mb": forecast.search_megabytes(self.codebook, fitted),
            **outcome.pop("facts", {}),
        }

        def content(result: Mapping[str, Any]) -> bytes:
            """The model, with what it cost."""
            receipt = {name: result[name] for name in _COST}
            if result["insecure_seed"]:
                receipt["insecure_seed"] = True
            whole = {"mechanism": self.recipe.name} | receipt
            return files.content(dataclasses.replace(model, receipt=whole))

        written = {
            FILE: content,
            "schema.json": self.codebook.schema.text.encode(),
            **self._tables(model.sample(seed=seed, kind="arrow")),
        }
        timed = {"seconds": round(time.monotonic() - paid(), 3)}
        return Outcome(facts={**facts, **timed}, files=written, **outcome)

    def _tables(self, rows: pa.Table) -> dict[str, bytes]:
        """The rows as CSV, and as Parquet where the table is."""
        found = {TABLE: files.csv(rows)}
        path = self.settings.folder / (self.settings.data.path or "")
        if path.suffix == ".parquet" or any(path.glob("*.parquet")):
            found["synthetic.parquet"] = files.parquet(rows)
        return found

    def _purse(
        self, session: Session, ledger: Ledger, paid: Callable[[], float]
    ) -> Purse:
        """Pays through the session."""
        event, relation = self.cost(), ledger.relation
        if event is None or self._releases is None:
            return _Session(session, ledger, paid)
        delta, label = self.settings.privacy.delta, f"synthetic table of {self.title}"

        @functools.cache
        def settled() -> None:
            """The whole plan, before its first release."""
            session.reserve(ledger, event, 1, label=label, delta=delta).commit(1)

        def key_of(name: str) -> jax.Array:
            """The key of a release."""
            settled()
            paid()
            return session.secrets.key(name)

        return Sealed(self._releases, relation, key_of)


def _count(source: Source, recipe: Recipe, relation: Relation) -> None:
    """Counts all that a recipe counts before its first payment."""
    with contextlib.suppress(_Unpaid):
        recipe.fit(source, _Empty(relation), seed=0)


class _Unpaid(Exception):
    """A recipe has counted, and would pay now."""


class _Empty:
    """A purse that pays for nothing."""

    def __init__(self, relation: Relation) -> None:
        self.relation = relation

    def affordable(self, rho: float) -> float:
        """Whatever is asked."""
        return rho

    def pay(self, event: DpEvent, name: str) -> jax.Array:
        """Stops the recipe."""
        raise _Unpaid


class _Session:
    """A purse that charges each release through the session of a run."""

    def __init__(
        self, session: Session, ledger: Ledger, paid: Callable[[], float]
    ) -> None:
        self.relation: Relation = ledger.relation
        self._session, self._ledger, self._paid = session, ledger, paid

    def affordable(self, rho: float) -> float:
        """What the ledger's filter let pass when the run began."""
        known = self._session.facts.get("affordable")
        if known is None:
            known = affordable(self._ledger, rho, lambda one: self.pay(one, "first"))
            self._session.agree(affordable=known)
        return known

    def pay(self, event: DpEvent, name: str) -> jax.Array:
        """Charges a release, once, however often the run is resumed."""
        key = self._session.charge(self._ledger, event, name)
        self._paid()
        return key


def _schema(config: Config) -> Schema:
    """The public schema that is meant."""
    given = config.data.schema
    if given is None:
        return adult_schema()
    if isinstance(given, dict):
        return Schema.read(given)
    return Schema.load((config.folder / given).resolve())


def _table(config: Config, offline: bool, tell: Tell | None) -> Any:
    """The table itself, or where it is."""
    if config.data.path is not None:
        return (config.folder / config.data.path).resolve()
    allowed = config.data.allow_download and not offline
    return load_adult(allow_download=allowed, on_progress=tell)[0]
