"""A run from a configuration to a folder that can be shown to others.

Order, so that a crash at any moment loses nothing and hides nothing: what can be
refused is refused before the folder exists, and what is refused later, before the
ledger is charged, takes back what this call made; configuration and secrets are durable
before the ledger is charged; the ledger is charged before the first noise;
`result.json` is written last and marks the end; then the secrets are deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import optax

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import BudgetExceeded, NotCertified
from dpkit.accountants.ledger import Ledger
from dpkit.data import Dataset, load
from dpkit.mechanisms.clips import PSAC, AutoS, HardDrop, Unit
from dpkit.models import MODELS, LanguageModel, Network, build, build_language
from dpkit.models.language import base_sha256
from dpkit.report.words import number
from dpkit.training import account
from dpkit.training.config import Config, load_config, naming
from dpkit.training.execution import Execution
from dpkit.training.folder import RunFolder, write
from dpkit.training.plan import DPSGDPlan, Number, check_delta
from dpkit.training.result import publish, summary
from dpkit.training.trainer import Evaluation, FitResult, Progress, fit


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


def run(
    config: Config,
    out: str | os.PathLike[str],
    *,
    offline: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Run:
    """Trains what a configuration says, into a folder.

    A folder with an unfinished run of the same configuration is resumed, without
    paying twice; a finished one is left as it is. A `ledger.db` that is already there
    is charged, if it is of the same relation, unit and data set; else one is made
    whose budget is what the configuration asks for. A run that is refused leaves
    nothing behind.

    Privacy: see `fit`. Everything outside `private/` is released: the parameters, the
    history of scores if evaluation rows are declared public, the configuration.

    Args:
      config: from `load_config`.
      out: the run's folder.
      offline: never fetch the data set, whatever the configuration allows.
      on_progress: called after each step.
      on_message: told in one line of what takes time before the first step.

    Raises:
      ValueError: the folder holds another configuration, or the configuration asks for
        something that can't be trained; nothing is spent.
      BudgetExceeded, Incompatible, LedgerCorrupt: from the ledger; nothing is spent.
      DataUnavailable, DataCorrupt: from the data set.
      OSError: the folder can't be written, or the secrets of the finished run can't be
        deleted.

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
    folder = RunFolder(out)
    if folder.finished:
        return _finished(folder, config)
    folder.check()
    _refuse_another(folder, config)
    job = _job(config, offline, on_message)
    account.check_ledger(folder, job.terms)
    made = folder.prepare()
    with folder.locked(), contextlib.ExitStack() as undo:
        undo.callback(folder.discard, made)
        _refuse_another(folder, config)  # which a process before us may have left
        resuming, known = folder.started, folder.config.exists()
        if not known:
            undo.callback(folder.config.unlink, missing_ok=True)
            write(folder.config, config.text.encode())
        with account.open_ledger(folder, job.budget, job.terms, undo) as ledger:
            try:
                done = _fit(folder, job, ledger, on_progress)
            except BudgetExceeded as error:
                if known and not resuming:
                    raise account.explained(error, ledger) from None
                raise
            finally:
                if account.may_be_charged(folder, ledger):
                    undo.pop_all()
            facts = {**_language_score(job, done), **_base(job)}
            result = summary(folder, config, done, ledger, **facts)
        publish(folder, config, done, result)
    folder.delete_private()
    return Run(result, folder.path, already_finished=False)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What a configuration asks for, checked as far as that goes without a folder."""

    config: Config
    dataset: Dataset
    network: Network | LanguageModel
    plan: DPSGDPlan
    budget: Budget

    @property
    def terms(self) -> dict[str, Any]:
        """What a ledger must agree with."""
        return {
            "relation": self.config.privacy.relation,
            "unit": self.config.privacy.unit,
            "dataset": f"{self.dataset.name} {self.dataset.version}",
        }


def _job(
    config: Config, offline: bool, on_message: Callable[[str], None] | None
) -> _Job:
    """Makes everything that needs no folder, and refuses what can't be made."""
    _use_devices(config.training.devices)
    with naming("data"):
        dataset = load(
            config.data.name,
            allow_download=config.data.allow_download and not offline,
            on_progress=on_message,
        )
    network = _network(config, dataset)
    with naming("data", "privacy", "training"):
        plan = _plan(config, dataset)
    budget = Budget(_limit(config, plan), config.privacy.delta)
    return _Job(config, dataset, network, plan, budget)


def _finished(folder: RunFolder, config: Config) -> Run:
    """The result that is there, if it is this configuration's."""
    try:
        result = json.loads(folder.result.read_bytes())
    except ValueError as error:
        raise ValueError(f"{folder.result} is damaged ({error})") from None
    if result.get("config_sha256") != config.sha256:
        raise ValueError(_another(folder))
    folder.delete_private()
    return Run(result, folder.path, already_finished=True)


def _refuse_another(folder: RunFolder, config: Config) -> None:
    """Refuses a folder in which another configuration stands, run or not."""
    found = []
    if folder.started:
        _, facts = folder.load_state()
        found.append(facts.get("config_sha256"))
    if folder.config.exists():
        try:
            found.append(load_config(folder.config).sha256)
        except (ValueError, TypeError):
            found.append(None)
    if any(digest != config.sha256 for digest in found):
        raise ValueError(_another(folder))


def _another(folder: RunFolder) -> str:
    """What to say of a folder that is taken."""
    return (
        f"out={str(folder.path)!r} holds another configuration, or its run (see its "
        "config.toml): name a new folder"
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
        with naming("model"):
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


def _rows(job: _Job, split: str) -> dict[str, np.ndarray]:
    """The arrays of a split that the network reads."""
    arrays = job.dataset.arrays(split)
    return {name: arrays[name] for name in job.network.fields}


def _base(job: _Job) -> dict[str, str]:
    """The digest of what the model starts from, if it is a file's or frozen."""
    if not isinstance(job.network, LanguageModel) or job.network.base is None:
        return {}
    return {"base_sha256": base_sha256(job.network.base)}


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


def _optimizer(config: Config, plan: DPSGDPlan) -> optax.GradientTransformation:
    """The optimiser that the configuration names."""
    settings = config.training
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        rate = optax.cosine_decay_schedule(settings.learning_rate, plan.steps)
    if settings.optimizer == "sgd":
        decay = optax.add_decayed_weights(settings.weight_decay)
        momentum = settings.momentum or None
        return optax.chain(decay, optax.sgd(rate, momentum=momentum))
    if settings.optimizer == "adam":
        decay = optax.add_decayed_weights(settings.weight_decay)
        return optax.chain(decay, optax.adam(rate))
    return optax.adamw(rate, weight_decay=settings.weight_decay)


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


def _fit(
    folder: RunFolder,
    job: _Job,
    ledger: Ledger,
    on_progress: Callable[[Progress], None] | None,
) -> FitResult:
    """The training itself."""
    config, dataset, network, plan = job.config, job.dataset, job.network, job.plan
    settings = config.training
    evaluation = Evaluation(
        network.accuracy_fn(_rows(job, "test")),
        public=config.data.evaluation == "public",
        every=settings.evaluate_every or max(1, plan.steps // 20),
    )
    return fit(
        network.loss,
        network.init(jax.random.key(config.model.init_seed)),
        _rows(job, "train"),
        plan=plan,
        optimizer=_optimizer(config, plan),
        ledger=ledger,
        delta=config.privacy.delta,
        label=f"train {config.model.name} on {dataset.name}",
        unit_ids=_unit_ids(job),
        rows_per_unit=config.privacy.rows_per_unit,
        evaluation=evaluation,
        average_decay=settings.average_decay,
        folder=folder,
        facts={"config_sha256": config.sha256, **_base(job)},
        execution=Execution(
            mode=settings.mode,
            microbatch_size=settings.microbatch_size,
            devices=settings.devices,
            generator=config.privacy.generator,
            constant_time=settings.constant_time,
        ),
        insecure_seed=None if config.test is None else config.test.insecure_seed,
        allow_insecure_ledger=config.test is not None,
        on_progress=on_progress,
    )


def _unit_ids(job: _Job) -> np.ndarray | None:
    """Whom each row belongs to, where that is what is protected."""
    if job.config.privacy.unit == "example":
        return None
    return np.asarray(job.dataset.arrays("train")["user"])


def _language_score(job: _Job, done: FitResult) -> dict[str, float]:
    """Bits per character of the final model on public rows, if it is one of text."""
    public = job.config.data.evaluation == "public"
    if not public or not isinstance(job.network, LanguageModel):
        return {}
    scores = job.network.scores_fn(_rows(job, "test"))(done.params)
    return {"test_bits_per_character": scores["bits_per_character"]}
