"""What a finished run shows: its result, its report, its parameters."""

from __future__ import annotations

import io
import json
from typing import Any

import jax
import numpy as np

from dpkit.accountants.ledger import Ledger
from dpkit.training.config import Config
from dpkit.training.folder import RunFolder, write
from dpkit.training.plan import DPSGDPlan
from dpkit.training.session import now, versions
from dpkit.training.trainer import FitResult

SCHEMA_VERSION = 1


def summary(
    folder: RunFolder,
    config: Config,
    done: FitResult,
    ledger: Ledger,
    **of_model: Any,
) -> dict[str, Any]:
    """What `result.json` says; nothing in it is private.

    Args:
      folder: of the run, which knows when it started.
      config: what was asked for.
      done: what came of it.
      ledger: that was charged.
      **of_model: further facts of the model, public as well.
    """
    bound, plan = done.bound, done.plan
    _, facts = folder.load_state()
    # Otherwise the time tells how many records the batches held.
    timed = config.training.constant_time
    return {
        "schema_version": SCHEMA_VERSION,
        **plan.to_json(),
        "expected_batch_size": _whole(plan.to_json()["expected_batch_size"]),
        "sampling_rate": _rates(plan),
        "clip_norm": config.privacy.clip_norm,
        "clipping": config.privacy.clipping,
        "epsilon": bound.upper,
        "certified": bound.certified,
        "delta": bound.delta,
        "relation": str(bound.relation),
        "unit": ledger.unit,
        "accountant": bound.method_upper,
        "test_accuracy": done.history[-1]["test_accuracy"] if done.history else None,
        **of_model,
        "seconds": round(done.seconds, 3) if timed else None,
        "params_sha256": done.params_sha256,
        "ledger_head": ledger.head,
        "run_id": done.run_id,
        "started": facts["started"],
        "finished": now() if timed else None,
        "constant_time": timed,
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
            {**row, "epoch": _epochs(plan, row["step"])} for row in done.history
        ],
    }


def publish(
    folder: RunFolder, config: Config, done: FitResult, result: dict[str, Any]
) -> None:
    """Writes what may be shown; the result last, since it marks the end.

    Args:
      folder: where to.
      config: whose text the report shows.
      done: has the parameters.
      result: from `summary`.
    """
    from dpkit.training.report import render

    write(folder.params, _npz(done.params))
    report = render(result, result["history"], config.text)
    write(folder.report, report.encode())
    text = json.dumps(result, indent=1, allow_nan=False)
    write(folder.result, text.encode())


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


def _npz(params: Any) -> bytes:
    """Parameters as an .npz archive, each leaf under its path."""
    leaves: dict[str, Any] = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    buffer = io.BytesIO()
    np.savez(buffer, **leaves)
    return buffer.getvalue()
