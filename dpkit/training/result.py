"""What a training run shows besides what every run does: its numbers and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dpkit.jobs import Outcome
from dpkit.models.parameters import as_files
from dpkit.training.card import card
from dpkit.training.config import Config
from dpkit.training.input import Input
from dpkit.training.plan import DPSGDPlan
from dpkit.training.report import told
from dpkit.training.trainer import FitResult

SCHEMA = "schema.json"


def outcome(
    config: Config,
    done: FitResult,
    found: Input,
    terms: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Outcome:
    """What the frame publishes of a training run; nothing in it is private."""
    plan, numbers = done.plan, done.plan.to_json()
    # Otherwise the time tells how many records the batches held.
    timed = config.training.constant_time
    history = [{**row, "epoch": _epochs(plan, row["step"])} for row in done.history]
    facts = {
        **numbers,
        "expected_batch_size": _whole(numbers["expected_batch_size"]),
        "sampling_rate": _rates(plan),
        "clip_norm": config.privacy.clip_norm,
        "clipping": config.privacy.clipping,
        **_last_scores(history),
        "seconds": round(done.seconds, 3) if timed else None,
        "constant_time": timed,
        "params_sha256": done.params_sha256,
        "model": config.model.called,
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(done.params)),
        "microbatch_size": done.microbatch_size,
        "devices": done.devices,
        "evaluation": config.data.evaluation,
        "history": history,
        **more,
    }
    bound = {"delta": done.bound.delta, "accountant": done.bound.method_upper}
    said = told({**facts, **terms, **bound}, history)
    files: dict[str, Any] = dict(as_files(done.params))
    if found.schema is not None:
        files[SCHEMA] = found.schema.text.encode()
    files["README.md"] = lambda result: card(result, said, found.layout).encode()
    return Outcome(facts=facts, timed=timed, files=files, **said)


def _last_scores(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The last scores; without any, the accuracy is unknown."""
    last = history[-1] if history else {"test_accuracy": None}
    return {name: value for name, value in last.items() if name.startswith("test_")}


def _whole(number: Any) -> Any:
    """The number, as an integer if it is one; a schedule as it is."""
    whole = not isinstance(number, list) and number == int(number)
    return int(number) if whole else number


def _rates(plan: DPSGDPlan) -> Any:
    """The share of a batch; if it changes during the run, [[steps, share], ...]."""
    rates = [[piece.steps, _share(piece)] for piece in plan.pieces]
    changing = len({rate for _, rate in rates}) > 1
    return rates if changing else _share(plan)


def _share(plan: DPSGDPlan) -> float:
    """The share of the records that a batch is expected to hold."""
    return plan.expected_batch_size / plan.sampler.max_records


def _epochs(plan: DPSGDPlan, steps: int) -> float:
    """How often the first steps are expected to read each record."""
    epochs, left = 0.0, steps
    for piece in plan.pieces or (plan,):
        epochs += _share(piece) * min(left, piece.steps)
        left -= min(left, piece.steps)
    return epochs
