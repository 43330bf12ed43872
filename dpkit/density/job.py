"""A density build as a job: the points of a file, and one release.

The points are read and added up before anything is on disk, and before the first time
that is noted anywhere: how long that takes tells how many they are, and no file and no
entry of the ledger shows it. The charge follows, and then the noise: what is timed
depends on public numbers alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.ledger import Ledger
from dpkit.data.random_access import ArrayRows
from dpkit.density import files
from dpkit.density.choice import Choice, choose
from dpkit.density.config import Config, PrivacySection
from dpkit.density.points import Points, open_points
from dpkit.density.released import FILE, Release
from dpkit.density.releasing import noise_key
from dpkit.density.report import told
from dpkit.density.shards import Shard
from dpkit.jobs import Outcome, Prepared, Progress, Session
from dpkit.jobs.config import naming
from dpkit.jobs.progress import OnProgress, Tell

_COST = ("epsilon", "delta", "relation", "unit", "dataset", "ledger", "ledger_head")


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
        name = config.data.dataset
        made = Build(
            choice,
            Shard(choice.structure),
            config.privacy,
            Path(config.data.path).name if name is None else name,
            _facts(config, choice),
            lambda release, title: told(config, release, title),
        )
        made.names_data = name is not None
        if data and points is not None:
            _fill(made.shard, points, config.privacy.points_per_unit, tell)
        return made


DENSITY = _Job()


@dataclasses.dataclass
class Build(Prepared):
    """A structure, and the sum of the records in it: private, without noise yet.

    Args:
      choice: of the structure.
      shard: the records.
      privacy: what the release may cost.
      title: what the data are called.
      shown: what the result says of the structure; public.
      told: what is told of the release, as fields of an `Outcome`.
    """

    choice: Choice
    shard: Shard
    privacy: PrivacySection
    title: str
    shown: Mapping[str, Any]
    told: Callable[[Release, str], dict[str, Any]]

    def __post_init__(self) -> None:
        """What the frame asks of every job."""
        self.terms = {
            "relation": self.privacy.relation,
            "unit": self.privacy.unit,
            "dataset": self.title,
        }
        self.budget = Budget(self.privacy.epsilon, self.privacy.delta)
        self._identity = files.identity(self.choice.structure)
        self.facts = {"structure_sha256": self._identity.hex()}

    def cost(self) -> DpEvent:
        """The one release."""
        return self.choice.structure.event(self.privacy.relation)

    def estimate(self) -> Mapping[str, Any]:
        """The structure, why it was taken, and how far answers are to be off."""
        names = ("structure", "reason", "expected_error", "floor", "numbers")
        return {name: self.shown[name] for name in names}

    def run(self, session: Session, ledger: Ledger, on_progress: OnProgress) -> Outcome:
        """Charges, then adds the noise."""
        began = time.monotonic()
        structure, total = self.choice.structure, self.shard.private_total
        # What is released depends on the records through their sum alone.
        session.agree(data=session.secrets.fingerprint(ArrayRows([total])))
        grant = session.reserve(
            ledger,
            self.cost(),
            1,
            label=f"density of {self.title}",
            delta=self.privacy.delta,
        )
        key = session.secrets.key("density")
        values = structure.privatize(noise_key(key, self._identity, total), total)
        grant.commit(1)
        on_progress(Progress(1, 1, "adding noise", grant.bound.upper))
        outcome = self.told(Release(structure, values, self.shown), self.title)
        facts = {**self.shown, **outcome.pop("facts", {})}

        def content(result: Mapping[str, Any]) -> bytes:
            """The released structure, with what it cost."""
            cost = {name: result[name] for name in _COST}
            if result["insecure_seed"]:
                cost["insecure_seed"] = True
            return files.content(structure, values, {**facts, **cost})

        timed = {"seconds": round(time.monotonic() - began, 3)}
        return Outcome(facts={**facts, **timed}, files={FILE: content}, **outcome)


def shown_of(choice: Choice) -> dict[str, Any]:
    """What a result says of its structure, whichever it is."""
    return {
        "structure": type(choice.structure).__name__,
        "expected_error": choice.expected_error,
        "floor": choice.floor,
        "reason": choice.reason,
        "others": choice.others,
        "dimension": choice.structure.dimension,
        "numbers": choice.structure.size,
    }


def _facts(config: Config, choice: Choice) -> dict[str, Any]:
    """The same, with what was asked for."""
    asked, columns = config.density, config.data.columns
    return {
        **shown_of(choice),
        "kernel": asked.kernel,
        "bandwidth": asked.bandwidth,
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
    try:
        found = open_points(_place(config, config.density.landmarks), strict=True)
        parts = [batch.points for batch in found.batches()]
    except ValueError as error:
        raise ValueError(f"landmarks={config.density.landmarks!r}: {error}") from None
    return np.concatenate([np.zeros((0, found.dimension)), *parts])


def _place(config: Config, path: str) -> Path:
    """A path of the configuration, whose folder may not be there yet."""
    return (config.folder / path).resolve()


def _choice(
    config: Config, points: Points | None, landmarks: np.ndarray | None
) -> Choice:
    """The structure for what is public: the dimension, and the settings."""
    asked, privacy, data = config.density, config.privacy, config.data
    dimension = len(asked.domain or ())
    if points is not None:
        dimension = points.dimension
    elif landmarks is not None and not dimension:
        dimension = landmarks.shape[1]
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
