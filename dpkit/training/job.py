"""Training as a job: what a configuration asks for, in the frame of `dpkit.jobs`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import msgspec
import optax
from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import BudgetExceeded, NotCertified
from dpkit.accountants.ledger import Ledger
from dpkit.data.layout import Layout
from dpkit.jobs import Outcome, Prepared, Run, Session, lifecycle
from dpkit.jobs.config import naming
from dpkit.jobs.progress import OnProgress
from dpkit.jobs.progress import Progress as Told
from dpkit.mechanisms.clips import PSAC, AutoS, HardDrop, Unit
from dpkit.models import (
    MODELS,
    LanguageModel,
    Network,
    build_for,
    build_language,
    build_own,
)
from dpkit.models.factory import find, source_sha256
from dpkit.models.language import base_sha256
from dpkit.report.words import number
from dpkit.training.config import Config
from dpkit.training.estimate import estimate
from dpkit.training.execution import Execution
from dpkit.training.input import Input, open_input
from dpkit.training.plan import DPSGDPlan, Number, check_delta
from dpkit.training.report import score_in_words
from dpkit.training.result import outcome
from dpkit.training.trainer import Evaluation, FitResult, Progress, fit


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """`dpkit train`: see `run`.

    Args:
      rows: in the place of data.path.
      test_rows: in the place of data.test.
    """

    rows: Any = None
    test_rows: Any = None

    name = "train"
    config = Config

    def prepare(
        self,
        config: Config,
        *,
        offline: bool,
        tell: Callable[[str], None] | None,
        data: bool = True,
    ) -> Training:
        """Makes everything that needs no folder, and refuses what can't be made."""
        _use_devices(config.training.devices)
        with naming(Config, "data"):
            given = {"rows": self.rows, "test_rows": self.test_rows}
            found = open_input(config, given, offline=offline, tell=tell, data=data)
        network = network_of(config, found.layout)
        with naming(Config, "data", "privacy", "training"):
            plan = _plan(config, found)
        terms = {
            "relation": config.privacy.relation,
            "unit": config.privacy.unit,
            "dataset": found.title,
        }
        budget = Budget(_limit(config, plan), config.privacy.delta)
        facts = _facts(config, found, network)
        made = Training(config, found, network, plan, budget, terms, facts)
        made.names_data = found.named
        return made


TRAINING = _Job()


def run(
    config: Config,
    out: str | os.PathLike[str],
    *,
    rows: Any = None,
    test_rows: Any = None,
    ledger: str | Path | None = None,
    offline: bool = False,
    on_progress: OnProgress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Run:
    """Trains what a configuration says, into a folder.

    Privacy: see `fit`. Everything outside `private/` is released: the parameters, the
    history of scores if evaluation rows are declared public, the configuration.

    Args:
      config: from `load_config`.
      out: the run's folder; see `dpkit.jobs.run` for this and what follows.
      rows: what is trained on, in the place of the file that `data.path` names: an
        object with `__arrow_c_stream__`, such as a DataFrame, or a dict of arrays;
        private. See `dpkit.data.read`.
      test_rows: what is scored on, in the place of `data.test`.

    Raises:
      DataUnavailable, DataCorrupt: from the data set. See `dpkit.jobs.run` for others.

    Example:
      >>> import tempfile
      >>> from dpkit.training import load_config
      >>> config = load_config('''
      ... data = {name = "digits", evaluation = "public"}
      ... model = {name = "linear"}
      ... [training]
      ... steps = 2
      ... expected_batch_size = 100
      ... learning_rate = 2.0
      ... microbatch_size = 100
      ... [privacy]
      ... noise_multiplier = 2.0
      ... delta = 1e-4
      ... relation = "add_remove"
      ... unit = "example"
      ... sampling = "poisson"
      ... clip_norm = 1.0
      ... ''')
      >>> with tempfile.TemporaryDirectory() as out:
      ...     done = run(config, out)
      >>> done.result["certified"], done.result["steps"]
      (True, 2)
    """
    return lifecycle.run(
        _Job(rows, test_rows),
        config,
        out,
        ledger=ledger,
        offline=offline,
        on_progress=on_progress,
        on_message=on_message,
    )


@dataclasses.dataclass
class Training(Prepared):
    """What a configuration asks for, checked as far as that goes without a folder."""

    config: Config
    input: Input
    network: Network | LanguageModel
    plan: DPSGDPlan
    budget: Budget | None
    terms: Mapping[str, Any]
    facts: Mapping[str, Any]

    def cost(self) -> DpEvent:
        """All steps together."""
        return self.plan.event(self.config.privacy.relation)

    def estimate(self) -> Mapping[str, Any]:
        """Noise and steps, and what was measured on a step over zeros."""
        return estimate(self, self.execution)

    @property
    def execution(self) -> Execution:
        """How steps are computed."""
        settings = self.config.training
        return Execution(
            mode=settings.mode,
            microbatch_size=settings.microbatch_size,
            devices=settings.devices,
            generator=self.config.privacy.generator,
            constant_time=settings.constant_time,
        )

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser that the configuration names."""
        settings = self.config.training
        rate: Any = settings.learning_rate
        if settings.schedule == "cosine":
            rate = optax.cosine_decay_schedule(rate, self.plan.steps)
        if settings.optimizer == "adamw":
            return optax.adamw(rate, weight_decay=settings.weight_decay)
        decay = optax.add_decayed_weights(settings.weight_decay)
        if settings.optimizer == "sgd":
            momentum = settings.momentum or None
            return optax.chain(decay, optax.sgd(rate, momentum=momentum))
        return optax.chain(decay, optax.adam(rate))

    def start(self) -> Any:
        """The parameters before the first step."""
        return self.network.init(jax.random.key(self.config.model.init_seed))

    def run(self, session: Session, ledger: Ledger, on_progress: OnProgress) -> Outcome:
        """The training itself."""
        try:
            done = _fit(self, session, ledger, on_progress)
        except BudgetExceeded as error:
            raise _advised(error, self, ledger) from None
        facts = {**self._language_score(done), **self.facts}
        return outcome(self.config, done, self.input, self.terms, facts)

    def _language_score(self, done: FitResult) -> dict[str, float]:
        """Bits per character of the final model on public rows, if it is of text."""
        public = self.config.data.evaluation == "public"
        if not public or not isinstance(self.network, LanguageModel):
            return {}
        scores = self.network.scores_fn(self.input.test())(done.params)
        return {"test_bits_per_character": scores["bits_per_character"]}


def _fit(
    job: Training, session: Session, ledger: Ledger, on_progress: OnProgress
) -> FitResult:
    """One call of `fit`, with the words of the configuration."""
    config = job.config
    return fit(
        job.network.loss,
        job.start(),
        job.input.train(),
        plan=job.plan,
        optimizer=job.optimizer,
        ledger=ledger,
        delta=config.privacy.delta,
        label=f"train {config.model.called} on {job.input.title}",
        unit_ids=None if config.privacy.unit == "example" else job.input.unit_ids(),
        rows_per_unit=config.privacy.rows_per_unit,
        evaluation=_evaluation(job),
        average_decay=config.training.average_decay,
        session=session,
        execution=job.execution,
        insecure_seed=None if config.test is None else config.test.insecure_seed,
        allow_insecure_ledger=config.test is not None,
        on_progress=lambda progress: on_progress(_told(progress, config)),
    )


def _evaluation(job: Training) -> Evaluation | None:
    """How the run is scored, if it is."""
    rows = job.input.test()
    if rows is None:
        return None
    name = job.network.score
    scores = job.network.scores_fn(rows)
    return Evaluation(
        lambda params: scores(params)[name],
        public=job.config.data.evaluation == "public",
        every=job.config.training.evaluate_every or max(1, job.plan.steps // 20),
        name=name,
    )


def _advised(error: BudgetExceeded, job: Training, ledger: Ledger) -> BudgetExceeded:
    """The refusal of a run, with the largest target that would fit, which was tried."""
    target, fits = job.config.privacy.epsilon, 0.0
    if target is None or job.config.share is not None:
        return error
    low, high = 0.0, target
    for _ in range(6):
        middle = float(number((low + high) / 2, digits=2, side="down"))
        privacy = msgspec.structs.replace(job.config.privacy, epsilon=middle)
        config = msgspec.structs.replace(job.config, privacy=privacy)
        try:
            event = _plan(config, job.input).event(ledger.relation)
            admitted = middle > 0 and ledger.remaining(event) >= 1
        except (ValueError, NotCertified):
            admitted = False
        low, high = (middle, high) if admitted else (low, middle)
        fits = low
    if not fits:
        return error
    advice = f"{error.advice}; with privacy.epsilon={fits!r} the run would fit"
    return BudgetExceeded(error.asked, error.spent, error.budget, error.scope, advice)


def _told(progress: Progress, config: Config) -> Told:
    """Progress in the words of the frame."""
    shown = [f"{n} {score_in_words(n, x)}" for n, x in progress.scores.items()]
    timed = config.training.constant_time
    if timed:
        shown.append(f"{progress.examples_per_second:,.0f}/s")
    return Told(
        progress.step,
        progress.steps,
        "training",
        progress.epsilon,
        tuple(shown),
        timed=timed,
    )


def _use_devices(wanted: int | None) -> None:
    """Lets one CPU process use several cores as devices; refuses more than exist."""
    # Fails where the backend has started: what it has is what `fit` will use.
    with contextlib.suppress(RuntimeError):
        count = min(wanted or 2, os.cpu_count() or 1)
        jax.config.update("jax_num_cpu_devices", count)
    available = len(jax.devices())
    if wanted is not None and wanted > available:
        raise ValueError(
            f"training.devices={wanted} must be from 1 to {available}, the devices of "
            "this machine: lower it, or leave it out"
        )


def network_of(config: Config, layout: Layout) -> Network | LanguageModel:
    """The network, in the public layout of the rows."""
    model, weights = config.model, config.training.class_weights
    if model.factory is not None:
        _refuse_unlabelled(config, layout)
        return build_own(
            model.factory,
            layout,
            folder=config.folder,
            seed=model.init_seed,
            settings=model.settings,
            weights=weights,
        )
    if model.name == "decoder":
        return _decoder(config, layout)
    _refuse_unlabelled(config, layout)
    return build_for(layout, model.called, model.hidden, weights)


def _decoder(config: Config, layout: Layout) -> LanguageModel:
    """The decoder, of the only text."""
    if list(layout.inputs) != list(layout.symbols) or len(layout.symbols) != 1:
        raise ValueError(
            f"model.name='decoder' can't read {_source(config)}: it reads one text and "
            f"nothing else, not {', '.join(layout.inputs)}; use "
            f"{', '.join(MODELS)}, or model.factory"
        )
    ((name, symbols),) = layout.symbols.items()
    with naming(Config, "model"):
        return build_language(
            vocabulary=symbols,
            length=layout.inputs[name].shape[0] - 1,
            base_seed=config.model.init_seed,
            field=name,
            padding=None if config.data.name is not None else symbols - 1,
            **config.model.decoder,
        )


def _refuse_unlabelled(config: Config, layout: Layout) -> None:
    """Refuses rows that say nothing to be predicted."""
    if layout.target is not None:
        return
    state = f"model.name={config.model.called!r} can't read {_source(config)}, which is"
    if layout.symbols:
        raise ValueError(f"{state} text: use decoder, or name a label by data.label")
    raise ValueError(f"{state} without a label: name its column by data.label")


def _source(config: Config) -> str:
    """What the configuration calls its rows."""
    data = config.data
    return str(data.name or data.path or data.tfds)


def _plan(config: Config, found: Input) -> DPSGDPlan:
    """The plan: with the noise given, or the least that meets the target."""
    privacy, training = config.privacy, config.training
    numbers: dict[str, Any] = {
        "max_records": found.units(privacy.unit),
        "expected_batch_size": training.expected_batch_size,
        **_clipping(config),
        "steps": training.steps,
        "epochs": training.epochs,
        "max_batch_size": privacy.max_batch_size,
        "sampling": privacy.sampling,
        "bins": privacy.bins,
        "noise": privacy.noise,
        "bands": privacy.bands,
    }
    if privacy.epsilon is None:
        check_delta(privacy.delta, numbers["max_records"], privacy.allow_large_delta)
        return DPSGDPlan.create(
            noise_multiplier=cast(Number, privacy.noise_multiplier), **numbers
        )
    return DPSGDPlan.for_budget(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        relation=privacy.relation,
        allow_large_delta=privacy.allow_large_delta,
        **numbers,
    )


def _clipping(config: Config) -> dict[str, Any]:
    """What bounds a gradient, as `DPSGDPlan.create` takes it."""
    privacy = config.privacy
    if privacy.clipping == "flat":
        return {"clip_norm": privacy.clip_norm, "quantile": privacy.clip_quantile}
    made = {"unit": Unit, "auto_s": AutoS, "psac": PSAC, "hard_drop": HardDrop}
    return {"clip": made[privacy.clipping](cast(float, privacy.clip_norm))}


def _limit(config: Config, plan: DPSGDPlan) -> float:
    """The epsilon that the run may cost: what was asked for, or what the plan costs.

    Rounded up, since a ledger rounds costs up before it compares.
    """
    privacy = config.privacy
    if privacy.epsilon is not None:
        return privacy.epsilon
    bound = plan.epsilon(privacy.delta, relation=privacy.relation)
    if bound.upper is None:
        raise NotCertified(
            f"privacy.delta={privacy.delta!r} is too small to be certified"
        )
    if not math.isfinite(bound.upper):
        raise ValueError(
            f"privacy.noise_multiplier={privacy.noise_multiplier!r} has no finite "
            f"epsilon at privacy.delta={privacy.delta!r}: raise it, or give "
            "privacy.epsilon and let it be solved for"
        )
    return float(number(bound.upper, digits=6, side="up"))


def _facts(
    config: Config, found: Input, network: Network | LanguageModel
) -> dict[str, Any]:
    """What a resumption must share besides the configuration: digests of other files.

    Of what the model starts from, if it is a file's or frozen; of the schema; of the
    file in which a factory stands.
    """
    facts = {}
    if isinstance(network, LanguageModel) and network.base is not None:
        facts["base_sha256"] = base_sha256(network.base)
    if found.schema is not None:
        facts["schema_sha256"] = found.schema.sha256
    if config.model.factory is not None:
        make = find(config.model.factory, config.folder)
        facts |= {
            "factory": config.model.factory,
            "factory_sha256": source_sha256(make),
        }
    return facts
