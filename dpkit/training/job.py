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
import numpy as np
import optax
from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import NotCertified
from dpkit.accountants.ledger import Ledger
from dpkit.data import Dataset, load
from dpkit.data.loading import described
from dpkit.jobs import Outcome, Prepared, Run, Session, lifecycle
from dpkit.jobs.config import naming
from dpkit.jobs.progress import OnProgress
from dpkit.jobs.progress import Progress as Told
from dpkit.mechanisms.clips import PSAC, AutoS, HardDrop, Unit
from dpkit.models import MODELS, LanguageModel, Network, build, build_language
from dpkit.models.language import base_sha256
from dpkit.report.words import number
from dpkit.training.config import Config
from dpkit.training.estimate import estimate
from dpkit.training.execution import Execution
from dpkit.training.plan import DPSGDPlan, Number, check_delta
from dpkit.training.result import outcome
from dpkit.training.trainer import Evaluation, FitResult, Progress, fit


class _Job:
    """`dpkit train`: see `run`."""

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
            if data:
                dataset = load(
                    config.data.name,
                    allow_download=config.data.allow_download and not offline,
                    on_progress=tell,
                )
            else:
                dataset = described(config.data.name)
        network = _network(config, dataset)
        with naming(Config, "data", "privacy", "training"):
            plan = _plan(config, dataset)
        terms = {
            "relation": config.privacy.relation,
            "unit": config.privacy.unit,
            "dataset": f"{dataset.name} {dataset.version}",
        }
        budget = Budget(_limit(config, plan), config.privacy.delta)
        facts = _base(network)
        return Training(config, dataset, network, plan, budget, terms, facts)


TRAINING = _Job()


def run(
    config: Config,
    out: str | os.PathLike[str],
    *,
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
        TRAINING,
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
    dataset: Dataset
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
        done = _fit(self, session, ledger, on_progress)
        facts = {**self._language_score(done), **self.facts}
        return outcome(self.config, done, self.terms, facts)

    def rows(self, split: str) -> dict[str, np.ndarray]:
        """The arrays of a split that the network reads."""
        arrays = self.dataset.arrays(split)
        return {name: arrays[name] for name in self.network.fields}

    def _language_score(self, done: FitResult) -> dict[str, float]:
        """Bits per character of the final model on public rows, if it is of text."""
        public = self.config.data.evaluation == "public"
        if not public or not isinstance(self.network, LanguageModel):
            return {}
        scores = self.network.scores_fn(self.rows("test"))(done.params)
        return {"test_bits_per_character": scores["bits_per_character"]}


def _fit(
    job: Training, session: Session, ledger: Ledger, on_progress: OnProgress
) -> FitResult:
    """One call of `fit`, with the words of the configuration."""
    config = job.config
    evaluation = Evaluation(
        job.network.accuracy_fn(job.rows("test")),
        public=config.data.evaluation == "public",
        every=config.training.evaluate_every or max(1, job.plan.steps // 20),
    )
    return fit(
        job.network.loss,
        job.start(),
        job.rows("train"),
        plan=job.plan,
        optimizer=job.optimizer,
        ledger=ledger,
        delta=config.privacy.delta,
        label=f"train {config.model.name} on {job.dataset.name}",
        unit_ids=_unit_ids(job),
        rows_per_unit=config.privacy.rows_per_unit,
        evaluation=evaluation,
        average_decay=config.training.average_decay,
        session=session,
        execution=job.execution,
        insecure_seed=None if config.test is None else config.test.insecure_seed,
        allow_insecure_ledger=config.test is not None,
        on_progress=lambda progress: on_progress(_told(progress, config)),
    )


def _told(progress: Progress, config: Config) -> Told:
    """Progress in the words of the frame."""
    shown = []
    if progress.test_accuracy is not None:
        shown.append(f"accuracy {100 * progress.test_accuracy:.2f} %")
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


def _network(config: Config, dataset: Dataset) -> Network | LanguageModel:
    """The network, in the public shape of the data."""
    schema, model = dataset.schema, config.model
    reads_text = model.name == "decoder"
    if reads_text != (schema.kind == "text"):
        fitting = ("decoder",) if schema.kind == "text" else MODELS
        raise ValueError(
            f"model.name={model.name!r} can't read {dataset.name}, which is "
            f"{schema.kind}: use {', '.join(fitting)}"
        )
    if reads_text:
        with naming(Config, "model"):
            return build_language(
                vocabulary=schema.num_classes,
                length=schema.shape[0],
                base_seed=model.init_seed,
                **model.decoder,
            )
    return build(
        model.name,
        num_classes=schema.num_classes,
        shape=tuple(schema.shape),
        pixel_scale=float(schema.pixel_scale),
        hidden=model.hidden,
    )


def _plan(config: Config, dataset: Dataset) -> DPSGDPlan:
    """The plan: with the noise given, or the least that meets the target."""
    privacy, training = config.privacy, config.training
    size, most = _units(config, dataset), config.data.max_records
    if most is not None and most < size:
        raise ValueError(
            f"max_records={most} is below the {size} published units of "
            f"{dataset.name}: raise it, or leave it out"
        )
    numbers: dict[str, Any] = {
        "max_records": size if most is None else most,
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


def _units(config: Config, dataset: Dataset) -> int:
    """How many units of privacy the data set is published to have, at most."""
    unit, schema = config.privacy.unit, dataset.schema
    if unit == "example":
        return schema.split_sizes["train"]
    if unit != "user" or not schema.num_users:
        known = "'user' or 'example'" if schema.num_users else "'example'"
        raise ValueError(
            f"privacy.unit={unit!r}: {config.data.name} doesn't say who that is of its "
            f"rows; use unit={known}"
        )
    return schema.num_users


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


def _base(network: Network | LanguageModel) -> dict[str, str]:
    """The digest of what the model starts from, if it is a file's or frozen."""
    if not isinstance(network, LanguageModel) or network.base is None:
        return {}
    return {"base_sha256": base_sha256(network.base)}


def _unit_ids(job: Training) -> np.ndarray | None:
    """Whom each row belongs to, where that is what is protected."""
    if job.config.privacy.unit == "example":
        return None
    return np.asarray(job.dataset.arrays("train")["user"])
