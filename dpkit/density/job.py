"""A density build as a job: points of a file, one release, in the frame of `dpkit.jobs`.

The points are read and added up before anything is on disk, and before the first time
that is noted anywhere: how long that takes tells how many they are, and no file and no
entry of the ledger shows it. The charge follows, and then the noise: what is timed
depends on public numbers alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.ledger import Ledger
from dpkit.data.random_access import ArrayRows
from dpkit.density import files
from dpkit.density.choice import Choice, choose
from dpkit.density.config import Config
from dpkit.density.points import Points, open_points
from dpkit.density.released import FILE, Release
from dpkit.density.report import told
from dpkit.density.shards import Shard
from dpkit.jobs import Outcome, Prepared, Progress, Session
from dpkit.jobs.config import naming
from dpkit.jobs.progress import OnProgress, Tell

_FACTS = ("epsilon", "delta", "relation", "unit", "dataset", "ledger", "ledger_head")


class _Job:
    """`dpkit density build`."""

    name = "density"
    config = Config

    def prepare(
        self, config: Config, *, offline: bool, tell: Tell | None, data: bool = True
    ) -> Build:
        """Reads and adds up the points, and refuses what can't be made."""
        del offline
        with naming(Config, "data", "density", "privacy"):
            landmarks = _landmarks(config)
            unknown = config.density.domain is None and landmarks is None
            points = _points(config) if data or unknown else None
            choice = _choice(config, points, landmarks)
        digest = None
        if landmarks is not None:
            digest = hashlib.sha256(np.ascontiguousarray(landmarks)).hexdigest()
        made = Build(config, choice, Shard(choice.structure), digest)
        if data and points is not None:
            _fill(made.shard, points, config.privacy.points_per_unit, tell)
        return made


DENSITY = _Job()


@dataclasses.dataclass
class Build(Prepared):
    """A structure, and the sum of the points in it: private, without noise yet."""

    config: Config
    choice: Choice
    shard: Shard
    landmarks_sha256: str | None

    def __post_init__(self) -> None:
        """What the frame asks of every job."""
        data, privacy = self.config.data, self.config.privacy
        title = Path(data.path).name if data.dataset is None else data.dataset
        self.terms = {
            "relation": privacy.relation,
            "unit": privacy.unit,
            "dataset": title,
        }
        self.names_data = data.dataset is not None
        self.budget = Budget(privacy.epsilon, privacy.delta)
        self.facts = {"landmarks_sha256": self.landmarks_sha256}

    def cost(self) -> DpEvent:
        """The one release."""
        return self.choice.structure.event(self.config.privacy.relation)

    def estimate(self) -> Mapping[str, Any]:
        """The structure, why it was taken, and how far answers are to be off."""
        structure = self.choice.structure
        return {
            "structure": type(structure).__name__,
            "reason": self.choice.reason,
            "expected_error": self.choice.expected_error,
            "floor": self.choice.floor,
            "numbers": structure.size,
        }

    def run(self, session: Session, ledger: Ledger, on_progress: OnProgress) -> Outcome:
        """Charges, then adds the noise."""
        began = time.monotonic()
        privacy, structure = self.config.privacy, self.choice.structure
        # What is released depends on the points through their sum alone.
        total = self.shard.private_total
        session.agree(data=session.secrets.fingerprint(ArrayRows([total])))
        label = f"density of {self.terms['dataset']}"
        grant = session.reserve(
            ledger, self.cost(), 1, label=label, delta=privacy.delta
        )
        values = structure.privatize(session.secrets.key("density"), total)
        grant.commit(1)
        on_progress(Progress(1, 1, "adding noise", grant.bound.upper))
        facts = self._facts()
        sections = told(
            self.config, Release(structure, values, facts), self.terms["dataset"]
        )
        facts |= {"seconds": round(time.monotonic() - began, 3)}

        def content(result: Mapping[str, Any]) -> bytes:
            """The released structure, with what it cost."""
            cost = {name: result[name] for name in _FACTS}
            if result["insecure_seed"]:
                cost["insecure_seed"] = True
            return files.content(structure, values, {**facts, **cost})

        return Outcome(facts=facts, files={FILE: content}, **sections)

    def _facts(self) -> dict[str, Any]:
        """What the run says of its structure; all of it is public."""
        asked, structure = self.config.density, self.choice.structure
        columns = self.config.data.columns
        return {
            "structure": type(structure).__name__,
            "kernel": asked.kernel,
            "bandwidth": asked.bandwidth,
            "expected_error": self.choice.expected_error,
            "floor": self.choice.floor,
            "reason": self.choice.reason,
            "others": self.choice.others,
            "dimension": structure.dimension,
            "numbers": structure.size,
            "columns": None if columns is None else list(columns),
        }


def _points(config: Config) -> Points:
    """The source of the points."""
    data = config.data
    return open_points(
        _place(config, data.path),
        columns=data.columns,
        weight=data.weight_column,
        owner=data.unit_column,
    )


def _landmarks(config: Config) -> np.ndarray | None:
    """The public points of a file."""
    if config.density.landmarks is None:
        return None
    found = open_points(_place(config, config.density.landmarks), strict=True)
    parts = [batch.points for batch in found.batches()]
    return np.concatenate([np.zeros((0, found.dimension)), *parts])


def _place(config: Config, path: str) -> Path:
    """A path of the configuration, whose folder may not be there yet."""
    return (config.folder / path).resolve()


def _choice(
    config: Config, points: Points | None, landmarks: np.ndarray | None
) -> Choice:
    """The structure for what is public: the dimension, and the settings."""
    asked, privacy, data = config.density, config.privacy, config.data
    if points is not None:
        dimension = points.dimension
    else:
        dimension = len(asked.domain or ()) or np.shape(landmarks)[1]
    if asked.domain is not None and len(asked.domain) != dimension:
        raise ValueError(
            f"domain={[list(pair) for pair in asked.domain]}: needed low and high for "
            f"each of a point's {dimension} coordinates; or name these by data.columns"
        )
    if dimension > 2 and max(asked.axes) >= dimension:
        raise ValueError(f"axes={list(asked.axes)} must be of {dimension}, from 0 on")
    return choose(
        dimension,
        kernel=asked.kernel,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        relation=privacy.relation,
        bandwidth=asked.bandwidth,
        domain=asked.domain,
        landmarks=landmarks,
        landmarks_public=asked.landmarks_public,
        records=asked.records,
        features=asked.features,
        feature_seed=asked.feature_seed,
        power=asked.power,
        structure=asked.structure,
        max_weight=1.0 if data.max_weight is None else data.max_weight,
        points_per_unit=privacy.points_per_unit or 1,
    )


def _fill(shard: Shard, points: Points, most: int | None, tell: Tell | None) -> None:
    """Adds the points, batch by batch."""
    batches = points.batches(tell) if most is None else points.capped(most, tell)
    for batch in batches:
        shard.add(batch.points, weights=batch.weights)
