"""A run from a configuration to a folder that can be shown to others.

Order, so that a crash at any moment loses nothing and hides nothing: what can be
refused is refused before the folder exists, and what is refused later, before the
ledger is charged, takes back what this call made; configuration and secrets are durable
before the ledger is charged; the ledger is charged before the first noise;
`result.json` is written last and marks the end; then the secrets are deleted.

A job has three parts to write: a struct of settings, `Job.prepare`, which refuses all
that can be refused, and `Prepared.run`, which charges through its session and then
works. It gets from here: the folder and its lock, a ledger of its own or a shared one,
resumption without a second payment, the report, the dry run and its command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget, PrivacyBound
from dpkit.accountants.answers.errors import BudgetExceeded
from dpkit.accountants.ledger import Ledger
from dpkit.accountants.readings.best import epsilon
from dpkit.jobs import ledger as ledgers
from dpkit.jobs.config import JobConfig, checked, load
from dpkit.jobs.folder import RunFolder, write
from dpkit.jobs.progress import OnProgress, Outcome, Progress, Tell
from dpkit.jobs.result import publish, summary
from dpkit.jobs.session import Session, environment
from dpkit.report.guarantee import KNOWN_SEED
from dpkit.report.words import number

C = TypeVar("C", bound=JobConfig, contravariant=True)


class Prepared(Protocol):
    """A job that was refused nothing, before anything is on disk.

    Attributes:
      terms: relation, unit and dataset, with which a ledger must agree.
      budget: what the run may cost, the budget of a ledger of its own; None: it is
        charged to a shared ledger alone, and needs a share of it.
      facts: JSON values that a resumption must share with the beginning.
      names_data: False where the configuration doesn't name the data: a ledger that is
        there then keeps its own name of them, and only a new one takes that of terms.

    Example:
      >>> from dpkit.accountants import PureDpEvent
      >>> class Coin(Prepared):
      ...     terms = {"relation": "zero_out", "unit": "user", "dataset": "toy"}
      ...     budget, facts = Budget(1.0, 0.0), {}
      ...     def cost(self):
      ...         return PureDpEvent(1.0)
      >>> Coin().cost(), Coin().estimate()
      (PureDpEvent(epsilon=1.0), {})
    """

    terms: Mapping[str, Any]
    budget: Budget | None
    facts: Mapping[str, Any]
    names_data: bool = True

    def cost(self) -> DpEvent | None:
        """All that the run will release, as one event; None: chosen along the way."""
        return None

    def estimate(self) -> Mapping[str, Any]:
        """What the run takes, for people and machines: noise, steps, memory, time."""
        return {}

    def run(self, session: Session, ledger: Ledger, on_progress: OnProgress) -> Outcome:
        """Agrees on the data, charges through the session alone, works."""
        ...


class Job(Protocol[C]):
    """A kind of run. What every run needs besides is in this package.

    Attributes:
      name: of the job and its command.
      config: the struct of its configuration.

    Example:
      >>> from dpkit.training.job import TRAINING
      >>> TRAINING.name, TRAINING.config.__name__
      ('train', 'Config')
    """

    name: str
    config: type[Any]

    def prepare(
        self, config: C, *, offline: bool, tell: Tell | None, data: bool = True
    ) -> Prepared:
        """Refuses all that can be refused; puts nothing on disk.

        Args:
          config: checked.
          offline: fetch nothing.
          tell: is told in one line of what takes time.
          data: False: only the cost is asked; read no rows, their public facts will do.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
      result: what `result.json` holds.
      folder: where everything is.
      already_finished: True if there was nothing left to do.

    Example:
      >>> Run({"epsilon": 3.0}, Path("runs/mine"), already_finished=True).folder.name
      'mine'
    """

    result: dict[str, Any]
    folder: Path
    already_finished: bool


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run would cost; nothing was spent or written.

    Args:
      terms: relation, unit and dataset.
      event: all that it would release, or None: chosen along the way.
      budget: what it may cost, and the delta at which that is meant.
      estimate: noise, steps, memory, time, by name.
      warnings: what a reader of the bound must know, one sentence each.

    Example:
      >>> Cost({}, None, Budget(1.0, 0.0), {"steps": 3}).to_json()["estimate"]
      {'steps': 3}
    """

    terms: Mapping[str, Any]
    event: DpEvent | None
    budget: Budget
    estimate: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @functools.cached_property
    def bound(self) -> PrivacyBound | None:
        """Its epsilon at the budget's delta; None: chosen along the way."""
        if self.event is None:
            return None
        terms = {name: self.terms[name] for name in ("relation", "unit")}
        return epsilon(self.event, self.budget.delta, **terms)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        bound = None if self.bound is None else self.bound.to_json()
        told = {"bound": bound, "estimate": dict(self.estimate)}
        return {**self.terms, **told, "warnings": list(self.warnings)}


def run(
    job: Job[Any],
    config: JobConfig,
    out: str | os.PathLike[str],
    *,
    ledger: str | Path | None = None,
    offline: bool = False,
    on_progress: OnProgress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Run:
    """Does what a configuration says, into a folder.

    A folder with an unfinished run of the same configuration is resumed, without
    paying twice; a finished one is left as it is. The run is charged to the ledger that
    is named, or else to a `ledger.db` of its folder, which is made if it isn't there,
    with what the configuration asks for as its budget. A run that is refused leaves
    nothing behind.

    Privacy: everything outside `private/` is released, and covered by the charge.

    Args:
      out: the run's folder.
      ledger: a shared ledger's file or URL, in the place of the configuration's.
      offline: never fetch anything, whatever the configuration allows.
      on_progress: called while it works.
      on_message: told in one line of what takes time before.

    Raises:
      ValueError: the folder holds another configuration, or the configuration asks for
        something that can't be done; nothing is spent.
      BudgetExceeded, Incompatible, LedgerCorrupt: from the ledger; nothing is spent.
      OSError: the folder can't be written, or the secrets of the finished run can't be
        deleted.

    Example:
      >>> import tempfile
      >>> class Nothing(Prepared):
      ...     terms = {"relation": "zero_out", "unit": "user", "dataset": "toy"}
      ...     budget, facts = Budget(0.0, 0.0), {}
      ...     def run(self, session, ledger, on_progress):
      ...         return Outcome(title="Nothing was released")
      >>> class Idle:
      ...     name, config = "idle", JobConfig
      ...     def prepare(self, config, *, offline, tell, data=True):
      ...         return Nothing()
      >>> config = load(JobConfig, "# nothing to set\\n")
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     run(Idle(), config, folder).result["epsilon"] is None
      True
    """
    config = checked(config)
    folder = RunFolder(out)
    if folder.finished:
        return _finished(folder, config)
    folder.check()
    _refuse_another(folder, config)
    place = ledgers.Place.of(config, ledger, folder)
    prepared = job.prepare(config, offline=offline, tell=on_message)
    budget = _budget(config, prepared)
    place = dataclasses.replace(place, names_data=prepared.names_data)
    place.check(folder, prepared.terms, budget)
    made = folder.prepare()
    with folder.locked(), contextlib.ExitStack() as undo:
        undo.callback(folder.discard, made)
        _refuse_another(folder, config)  # which a process before us may have left
        resuming, known = folder.started, folder.config.exists()
        if not known:
            undo.callback(folder.config.unlink, missing_ok=True)
            write(folder.config, config.text.encode())
        with place.open(budget, prepared.terms, undo) as book:
            tell = _telling(on_progress, budget, prepared.terms)
            with contextlib.closing(_session(job, config, folder, prepared)) as session:
                try:
                    session.agree(ledger=book.id)
                    book.run_id = session.run_id
                    done = prepared.run(session, book, tell)
                    if prepared.cost() is not None and not book.charged(session.run_id):
                        raise RuntimeError(
                            f"the job {job.name!r} has a cost and charged nothing: "
                            "call session.reserve or session.charge before the release"
                        )
                except BudgetExceeded as error:
                    if known and not resuming and not place.shared:
                        raise ledgers.explained(error, book) from None
                    raise
                finally:
                    if ledgers.may_be_charged(folder, book):
                        undo.pop_all()
            result = summary(job.name, config, session, book, done)
        publish(folder, config, done, result)
    folder.delete_private()
    return Run(result, folder.path, already_finished=False)


def dry_run(
    job: Job[Any],
    config: JobConfig,
    *,
    ledger: str | Path | None = None,
    estimate: bool = True,
) -> Cost:
    """What a run would cost and take; spends, fetches and writes nothing.

    Args:
      ledger: as for `run`.
      estimate: whether to ask as well for memory and time, which may be measured, and
        whether a shared ledger that is there agrees.

    Returns:
      The cost, at the delta of the run's share of a ledger, or else its own.

    Raises:
      ValueError, Incompatible: as for `run`.

    Example:
      >>> from dpkit.training import load_config
      >>> from dpkit.training.job import TRAINING
      >>> config = load_config("demo.toml")  # doctest: +SKIP
      >>> dry_run(TRAINING, config).bound.upper  # doctest: +SKIP
      2.99...
    """
    config = checked(config)
    prepared = job.prepare(config, offline=True, tell=None, data=False)
    told, terms = {}, prepared.terms
    if estimate:
        place = ledgers.Place.of(config, ledger, RunFolder("."))
        place = dataclasses.replace(place, names_data=prepared.names_data)
        terms = {**terms, "dataset": place.dataset(terms)}
        told = prepared.estimate()
    budget = _budget(config, prepared)
    warnings = () if config.test is None else (KNOWN_SEED,)
    return Cost(terms, prepared.cost(), budget, told, warnings)


def _budget(config: JobConfig, prepared: Prepared) -> Budget:
    """What the run may cost: its share of a ledger, or what it asks for itself."""
    if config.share is not None:
        return Budget(config.share.epsilon, config.share.delta)
    if prepared.budget is None:
        raise ValueError(
            "ledger is missing: this job has no budget of its own; name a shared "
            "ledger and ledger.share"
        )
    return prepared.budget


def _session(
    job: Job[Any], config: JobConfig, folder: RunFolder, prepared: Prepared
) -> Session:
    """The session of a run, agreed on all that the frame knows."""
    seed = None if config.test is None else config.test.insecure_seed
    session = Session.begin(folder, seed)
    if config.ledger is not None:
        session.label = config.ledger.label
    if config.share is not None:
        session.part = _budget(config, prepared)
    session.agree(
        job=job.name,
        config_sha256=config.sha256,
        insecure_seed=seed,
        **environment(),
        **prepared.facts,
    )
    return session


def _telling(
    on_progress: OnProgress | None, budget: Budget, terms: Mapping[str, Any]
) -> OnProgress:
    """What tells progress, with what its epsilon is meant at."""
    delta = number(budget.delta, side="up")
    at = f"at delta {delta}, {terms['relation']}, unit {terms['unit']}"

    def tell(progress: Progress) -> None:
        if on_progress is not None:
            on_progress(dataclasses.replace(progress, at=at))

    return tell


def _finished(folder: RunFolder, config: JobConfig) -> Run:
    """The result that is there, if it is this configuration's."""
    try:
        result = json.loads(folder.result.read_bytes())
    except ValueError as error:
        raise ValueError(f"{folder.result} is damaged ({error})") from None
    if result.get("config_sha256") != config.sha256:
        raise ValueError(_another(folder))
    folder.delete_private()
    return Run(result, folder.path, already_finished=True)


def _refuse_another(folder: RunFolder, config: JobConfig) -> None:
    """Refuses a folder in which another configuration stands, run or not."""
    digests = []
    if folder.started:
        _, facts = folder.load_state()
        digests.append(facts.get("config_sha256"))
    if folder.config.exists():
        try:
            digests.append(load(type(config), folder.config).sha256)
        except (ValueError, TypeError):
            digests.append(None)
    if any(digest != config.sha256 for digest in digests):
        raise ValueError(_another(folder))


def _another(folder: RunFolder) -> str:
    """What to say of a folder that is taken."""
    return (
        f"out={str(folder.path)!r} holds another configuration, or its run (see its "
        "config.toml): name a new folder"
    )
