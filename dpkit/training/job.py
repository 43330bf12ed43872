"""A run from a configuration to a folder that can be shown to others.

Order, so that a crash at any moment loses nothing and hides nothing: everything that
can be refused is refused before the folder exists; configuration and secrets are
durable before the ledger is charged; the ledger is charged before the first noise;
`result.json` is written last and marks the end; then the secrets are deleted.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from dpkit.accountants import _check
from dpkit.accountants.bounds import Budget
from dpkit.accountants.errors import NotCertified
from dpkit.accountants.ledger import Ledger
from dpkit.data import Dataset, load
from dpkit.models import Network, build
from dpkit.training.config import Config
from dpkit.training.folder import RunFolder, write
from dpkit.training.plan import DPSGDPlan, check_delta
from dpkit.training.session import now, versions
from dpkit.training.trainer import Evaluation, FitResult, Progress, fit

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
      result: what `result.json` holds.
      folder: where everything is.
      already_finished: True if there was nothing left to do.
    """

    result: dict[str, Any]
    folder: Path
    already_finished: bool


def run(
    config: Config,
    out: str | os.PathLike[str],
    *,
    allow_download: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Run:
    """Trains what a configuration says, into a folder.

    A folder with an unfinished run of the same configuration is resumed, without
    paying twice; a finished one is left as it is. A `ledger.db` that is already there
    is charged, if it is of the same relation, unit and data set; else one is made
    whose budget is what the configuration asks for.

    Privacy: see `fit`. Everything outside `private/` is released: the parameters, the
    history of scores if evaluation rows are declared public, the configuration.

    Args:
      config: from `load_config`.
      out: the run's folder.
      allow_download: whether the data set may be fetched.
      on_progress: called after each step.
      on_message: told in one line of what takes time before the first step.

    Raises:
      ValueError: the folder holds another configuration's run, or something that can't
        be trained; nothing is spent.
      BudgetExceeded, Incompatible, LedgerCorrupt: from the ledger; nothing is spent.
      DataUnavailable, DataCorrupt: from the data set.
      OSError: the folder can't be written.
    """
    folder = RunFolder(out)
    if folder.finished:
        return _finished(folder, config)
    if folder.started:
        _same_config(folder, config)
    _ask_for_devices(config.training.devices or min(2, os.cpu_count() or 1))
    dataset = load(
        config.data.name, allow_download=allow_download, on_progress=on_message
    )
    network = _network(config, dataset)
    plan = _plan(config, dataset)
    optimizer = _optimizer(config, plan)
    folder.prepare()
    with folder.locked():
        if not folder.started:
            write(folder.config, config.text.encode())
        with _ledger(folder, config, plan, dataset) as ledger:
            done = _fit(
                folder, config, dataset, network, plan, optimizer, ledger, on_progress
            )
            result = _result(folder, config, dataset, done, ledger)
        _publish(folder, config, done, result)
    folder.delete_private()
    return Run(result, folder.path, already_finished=False)


def _finished(folder: RunFolder, config: Config) -> Run:
    """The result that is there, if it is this configuration's."""
    try:
        result = json.loads(folder.result.read_bytes())
    except ValueError as error:
        raise ValueError(f"{folder.result} is damaged ({error})") from None
    if result.get("config_sha256") != config.sha256:
        raise ValueError(_another(folder))
    if folder.private.exists():
        folder.delete_private()
    return Run(result, folder.path, already_finished=True)


def _same_config(folder: RunFolder, config: Config) -> None:
    """Refuses to go on with another configuration's run."""
    _, facts = folder.load_state()
    if facts.get("config_sha256") != config.sha256:
        raise ValueError(_another(folder))


def _another(folder: RunFolder) -> str:
    """What to say of a folder that is taken."""
    return (
        f"out={str(folder.path)!r} holds the run of another configuration (see its "
        "config.toml): name a new folder"
    )


def _ask_for_devices(count: int) -> None:
    """Lets one CPU process use several cores as devices, if it isn't too late."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        # The backend has started: what it has is what `fit` will use.
        return


def _network(config: Config, dataset: Dataset) -> Network:
    """The network, in the public shape of the data."""
    schema = dataset.schema
    return build(
        config.model.name,
        num_classes=schema.num_classes,
        shape=tuple(schema.shape),
        pixel_scale=float(schema.pixel_scale),
        hidden=config.model.hidden,
    )


def _plan(config: Config, dataset: Dataset) -> DPSGDPlan:
    """The plan: with the noise given, or the least that meets the target."""
    privacy, training = config.privacy, config.training
    if privacy.unit != "example":
        raise ValueError(
            f"privacy.unit={privacy.unit!r}: {config.data.name} says nothing about who "
            "its rows belong to; use unit='example'"
        )
    numbers: dict[str, Any] = {
        "max_records": config.data.max_records or dataset.schema.split_sizes["train"],
        "expected_batch_size": training.expected_batch_size,
        "clip_norm": privacy.clip_norm,
        "steps": training.steps,
        "epochs": training.epochs,
        "max_batch_size": privacy.max_batch_size,
    }
    if privacy.epsilon is None:
        noise = _check.positive(noise_multiplier=privacy.noise_multiplier)
        check_delta(privacy.delta, numbers["max_records"], privacy.allow_large_delta)
        return DPSGDPlan.create(noise_multiplier=noise, **numbers)
    return DPSGDPlan.for_budget(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        relation=privacy.relation,
        allow_large_delta=privacy.allow_large_delta,
        **numbers,
    )


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


def _ledger(
    folder: RunFolder, config: Config, plan: DPSGDPlan, dataset: Dataset
) -> Ledger:
    """The folder's ledger, checked if it exists, else with the run's own budget."""
    privacy = config.privacy
    same = {
        "relation": privacy.relation,
        "unit": privacy.unit,
        "dataset": f"{dataset.name} {dataset.version}",
    }
    if folder.ledger.exists():
        ledger = Ledger.open(folder.ledger, **same)
        ledger.verify()
        return ledger
    epsilon = privacy.epsilon
    if epsilon is None:
        bound = plan.epsilon(privacy.delta, relation=privacy.relation)
        if bound.upper is None:
            raise NotCertified(f"delta={privacy.delta:g} is too small to be certified")
        epsilon = bound.upper
    return Ledger.open(folder.ledger, budget=Budget(epsilon, privacy.delta), **same)


def _fit(
    folder: RunFolder,
    config: Config,
    dataset: Dataset,
    network: Network,
    plan: DPSGDPlan,
    optimizer: optax.GradientTransformation,
    ledger: Ledger,
    on_progress: Callable[[Progress], None] | None,
) -> FitResult:
    """The training itself."""
    settings = config.training
    evaluation = Evaluation(
        network.accuracy_fn(dataset.arrays("test")),
        public=config.data.evaluation == "public",
        every=settings.evaluate_every or max(1, plan.steps // 20),
    )
    return fit(
        network.loss,
        network.init(jax.random.key(config.model.init_seed)),
        dict(dataset.arrays("train")),
        plan=plan,
        optimizer=optimizer,
        ledger=ledger,
        delta=config.privacy.delta,
        label=f"train {config.model.name} on {dataset.name}",
        evaluation=evaluation,
        average_decay=settings.average_decay,
        folder=folder,
        facts={"config_sha256": config.sha256},
        microbatch_size=settings.microbatch_size,
        devices=settings.devices,
        insecure_seed=None if config.test is None else config.test.insecure_seed,
        allow_insecure_ledger=config.test is not None,
        on_progress=on_progress,
    )


def _result(
    folder: RunFolder,
    config: Config,
    dataset: Dataset,
    done: FitResult,
    ledger: Ledger,
) -> dict[str, Any]:
    """What `result.json` says; nothing in it is private."""
    bound, plan = done.bound, done.plan
    _, facts = folder.load_state()
    return {
        "schema_version": SCHEMA_VERSION,
        **plan.to_json(),
        "epsilon": bound.upper,
        "certified": bound.certified,
        "delta": bound.delta,
        "relation": str(bound.relation),
        "unit": ledger.unit,
        "accountant": bound.method_upper,
        "test_accuracy": done.history[-1]["test_accuracy"] if done.history else None,
        "seconds": round(done.seconds, 3),
        "params_sha256": done.params_sha256,
        "ledger_head": ledger.head,
        "run_id": done.run_id,
        "started": facts["started"],
        "finished": now(),
        "dataset": ledger.dataset,
        "model": config.model.name,
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(done.params)),
        "microbatch_size": done.microbatch_size,
        "devices": done.devices,
        "insecure_seed": config.test is not None,
        "evaluation": config.data.evaluation,
        "config_sha256": config.sha256,
        "versions": versions(),
        "history": [
            {**row, "epoch": row["step"] * plan.sampler.sampling_rate}
            for row in done.history
        ],
    }


def _publish(
    folder: RunFolder, config: Config, done: FitResult, result: dict[str, Any]
) -> None:
    """Writes what may be shown; the result last, since it marks the end."""
    from dpkit.report import render

    write(folder.params, _npz(done.params))
    report = render(result, result["history"], config.text)
    write(folder.report, report.encode())
    text = json.dumps(result, indent=1, allow_nan=False)
    write(folder.result, text.encode())


def _npz(params: Any) -> bytes:
    """Parameters as an .npz archive, each leaf under its path."""
    leaves: dict[str, Any] = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    buffer = io.BytesIO()
    np.savez(buffer, **leaves)
    return buffer.getvalue()
