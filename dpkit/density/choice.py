"""Which structure: from what is public alone, by the error that is to be expected."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from dp_accounting import GaussianDpEvent

from dpkit.accountants import Relation, calibrate
from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import as_relation
from dpkit.density.config import FROM_DATA
from dpkit.mechanisms.density import (
    KERNELS,
    CdfDistances,
    Gaussian,
    HatDistances,
    Kernel,
    KernelSketch,
    LandmarkSketch,
    Laplace,
    ProjectedDistances,
    Radial,
    SplineGrid,
    SquaredDistances,
    Structure,
)
from dpkit.mechanisms.density.spline import spacing_for

S = TypeVar("S", bound=Structure)
DISTANCES = ("l1", "l2", "l2_squared", "lp")
STRUCTURES = ("spline", "sketch", "landmarks")
_MOST_FEATURES = 8192


@dataclasses.dataclass(frozen=True)
class Choice:
    """A structure, and why it was taken.

    Attributes:
      structure: with its noise.
      reason: in a sentence.
      expected_error: of an answer, as a standard deviation.
      floor: the error of one single answer by such noise.
      others: the expected errors of what else was possible, by name.

    Example:
      >>> found = choose(2, kernel="gaussian", bandwidth=1.0, domain=[(0, 9), (0, 9)],
      ...                epsilon=1.0, delta=1e-6, relation="add_remove")
      >>> type(found.structure).__name__, found.expected_error < 1.2 * found.floor
      ('SplineGrid', True)
    """

    structure: Structure
    reason: str
    expected_error: float
    floor: float
    others: dict[str, float]


def choose(
    dimension: int,
    *,
    kernel: str,
    epsilon: float,
    delta: float,
    relation: Relation | str,
    bandwidth: float | None = None,
    domain: Any = None,
    landmarks: Any = None,
    landmarks_public: bool = False,
    records: int = 100_000,
    features: int | None = None,
    feature_seed: int = 0,
    power: float | None = None,
    structure: str | None = None,
    max_weight: float = 1.0,
    points_per_unit: int = 1,
) -> Choice:
    """The structure with the least error to be expected, for a budget.

    Everything here is public; no record is looked at.

    Args:
      dimension: d of the points.
      kernel: one of the six kernels, or of "l1", "l2", "l2_squared", "lp" for sums of
        distances; of "lp" the sum of p-th powers.
      epsilon, delta: what the one release may cost; delta 0 for pure noise.
      relation: "add_remove", "replace_one" or "zero_out".
      bandwidth: of a kernel, in the unit of the points.
      domain: (low, high) of every axis. Needed for distances and grids.
      landmarks: public points, (m, d); best if the queries are among them.
      landmarks_public: True says that they are.
      records: about how many there are; only accuracy depends on it.
      features: of a sketch; left out, as many as help, up to 8,192.
      feature_seed: public, for random frequencies or directions.
      power: p of "lp", from 1 to 2.
      structure: "spline", "sketch" or "landmarks" takes that one.
      max_weight, points_per_unit: see `Structure`.

    Raises:
      ValueError: a setting out of range, missing, or to be computed from the points.
      TypeError: a setting of the wrong kind.

    Example:
      >>> found = choose(16, kernel="gaussian", bandwidth=1.0, epsilon=1.0, delta=1e-6,
      ...                relation="add_remove")
      >>> type(found.structure).__name__, found.reason
      ('KernelSketch', 'without a domain, random waves are all there is')
    """
    relation = as_relation(relation)
    asked = _Asked(
        dimension=checks.integer_at_least(1, dimension=dimension),
        epsilon=checks.positive(epsilon=epsilon),
        delta=checks.half_open_probability(delta=delta),
        relation=relation,
        domain=_public("domain", domain),
        records=checks.integer_at_least(1, records=records),
        seed=_seed(feature_seed),
        shared={"max_weight": max_weight, "points_per_unit": points_per_unit},
    )
    if structure is not None and structure not in STRUCTURES:
        raise ValueError(f"structure={structure!r}: needed one of {STRUCTURES}")
    if kernel in DISTANCES:
        ignored = {"bandwidth": bandwidth, "landmarks": landmarks}
        _unused(kernel, **ignored, features=features, structure=structure)
        return _distance(asked, kernel, power)
    if kernel not in KERNELS:
        raise ValueError(
            f"kernel={kernel!r}: needed one of {KERNELS}, or of {DISTANCES} for sums "
            "of distances"
        )
    _unused(kernel, power=power)
    bandwidth = _public("bandwidth", bandwidth)
    if bandwidth is None:
        raise ValueError(
            "bandwidth is missing: needed a public number in the unit of the points, "
            "the distance at which two count as near"
        )
    made = Kernel(kernel, bandwidth)
    makers: dict[str, Callable[[], Structure]] = {
        "spline": lambda: _spline(asked, made),
        "sketch": lambda: _sketch(asked, made, features),
        "landmarks": lambda: _landmarks(asked, made, landmarks, landmarks_public),
    }
    if structure is None and landmarks is not None:
        structure = "landmarks"
    if structure is not None:
        return _told(makers[structure](), "it was asked for", {}, asked)
    found = {"sketch": makers["sketch"]()}
    if asked.domain is not None and dimension <= 4:
        try:
            found["spline"] = makers["spline"]()
        except ValueError as error:
            if "nodes" not in str(error):
                raise
    errors = {name: s.expected_error(asked.records) for name, s in found.items()}
    best = min(errors, key=lambda name: errors[name])
    return _told(found[best], _reason(best, found, asked), errors, asked)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What all structures need to know."""

    dimension: int
    epsilon: float
    delta: float
    relation: Relation
    domain: Any
    records: int
    seed: int
    shared: dict[str, Any]

    def priced(self, make: Callable[[Any], S], pure: Any) -> S:
        """A structure whose noise costs what may be spent, under the relation."""
        return priced(make, pure, self.epsilon, self.delta, self.relation)

    def box(self, wanted_by: str) -> Any:
        """The domain, which must be there."""
        if self.domain is None:
            raise ValueError(
                f"domain is missing: {wanted_by} needs public (low, high) for every "
                "axis; points outside count at its edge"
            )
        if len(self.domain) != self.dimension:
            raise ValueError(
                f"domain has {len(self.domain)} axes: needed {self.dimension}, one for "
                "each coordinate"
            )
        return tuple(tuple(pair) for pair in self.domain)


def priced(
    make: Callable[[Any], S],
    pure: Any,
    epsilon: float,
    delta: float,
    relation: Relation,
) -> S:
    """A structure whose noise costs what may be spent, under the relation.

    Args:
      make: from noise to the structure.
      pure: the noise where delta is 0, `Laplace` or `Radial`; else it is `Gaussian`.
    """
    if delta:
        multiplier = noise_multiplier(epsilon, delta, relation)
        made = make(Gaussian(multiplier))
        if relation is Relation.REPLACE_ONE:
            share = made.reach.l2_replaced / (2 * made.reach.l2)
            made = make(Gaussian(multiplier * share * (1 + 1e-12)))
        return made
    made = make(pure(epsilon))
    if relation is Relation.REPLACE_ONE:
        near, far = made.reach.l1, made.reach.l1_replaced
        if pure is Radial:
            near, far = made.reach.l2, made.reach.l2_replaced
        made = make(pure(epsilon * near / far * (1 - 1e-12)))
    return made


@functools.lru_cache(maxsize=64)
def noise_multiplier(epsilon: float, delta: float, relation: Relation) -> float:
    """The least noise multiplier of one Gaussian release for a budget.

    Example:
      >>> round(noise_multiplier(1.0, 1e-6, Relation.ADD_REMOVE), 3)
      4.225
    """
    found = calibrate(GaussianDpEvent, epsilon=epsilon, delta=delta, relation=relation)
    return float(found.value)


def _spline(asked: _Asked, kernel: Kernel) -> Structure:
    """A grid, its spacing by the least error."""
    domain = asked.box("a grid")
    trial = asked.priced(
        lambda noise: SplineGrid(
            kernel=kernel, domain=domain, noise=noise, **asked.shared
        ),
        Laplace,
    )
    spacing = spacing_for(kernel, domain, trial.noise, asked.records)
    return asked.priced(
        lambda noise: SplineGrid(
            kernel=kernel, domain=domain, spacing=spacing, noise=noise, **asked.shared
        ),
        Laplace,
    )


def _sketch(asked: _Asked, kernel: Kernel, features: int | None) -> Structure:
    """Random waves: as many as there is time for; with pure noise, fewer."""
    counts = [_MOST_FEATURES if features is None else features]
    if features is None and not asked.delta:
        counts = [2**k for k in range(6, 14)]
    made = [
        asked.priced(
            lambda noise, count=count: KernelSketch.draw(
                kernel,
                asked.dimension,
                features=count,
                noise=noise,
                feature_seed=asked.seed,
                **asked.shared,
            ),
            Radial,
        )
        for count in counts
    ]
    return min(made, key=lambda sketch: sketch.expected_error(asked.records))


def _landmarks(
    asked: _Asked, kernel: Kernel, landmarks: Any, public: bool
) -> Structure:
    """Sums at public points."""
    if landmarks is None:
        raise ValueError(
            "landmarks is missing: needed public points (m, d), such as the queries, "
            "and landmarks_public=True"
        )
    landmarks = np.asarray(landmarks)
    if landmarks.ndim != 2 or landmarks.shape[1] != asked.dimension:
        raise ValueError(
            f"landmarks of shape {landmarks.shape}: needed (m, {asked.dimension})"
        )
    return asked.priced(
        lambda noise: LandmarkSketch(
            kernel=kernel,
            landmarks=landmarks,  # type: ignore[arg-type]
            landmarks_public=public,
            noise=noise,
            **asked.shared,
        ),
        Radial,
    )


def _distance(asked: _Asked, kernel: str, power: float | None) -> Choice:
    """The structure of a distance; there is one for each."""
    if (power is None) == (kernel == "lp"):
        raise ValueError(
            f"power={power!r} with kernel={kernel!r}: goes with 'lp' alone"
        )
    if kernel == "lp" and power is not None:
        power = checks.positive(power=power)
        if power in (1.0, 2.0):
            kernel = "l1" if power == 1.0 else "l2_squared"
    domain = asked.box(f"kernel={kernel!r}")
    half = [(high - low) / 2 for low, high in domain]
    ball = {
        "radius": math.hypot(*half),
        "centre": tuple((low + high) / 2 for low, high in domain),
    }
    pure: Any = Laplace
    if kernel == "l1" and asked.delta:
        cells = min(2**16, max(2**10, 2**20 // asked.dimension))
        make = functools.partial(CdfDistances, domain=domain, cells=cells)
        reason = "Gaussian noise on distribution functions is that of a single query"
    elif kernel in ("l1", "lp"):
        # Leaves so small that few points share one; cells of "lp" all count.
        wanted = math.ceil(math.log2(max(asked.records * asked.epsilon, 2))) + 2
        levels = min(wanted, 18 if kernel == "l1" else 10)
        make = functools.partial(
            HatDistances, domain=domain, levels=levels, power=power or 1.0
        )
        reason = "noise on hats of every scale doesn't grow with the number of scales"
    elif kernel == "l2_squared":
        pure = Radial
        make = functools.partial(SquaredDistances, dimension=asked.dimension, **ball)
        reason = "three moments give squared distances exactly"
    else:
        make = functools.partial(
            ProjectedDistances.draw, asked.dimension, feature_seed=asked.seed, **ball
        )
        reason = "random projections turn l2 distances into l1 distances"
    made = asked.priced(lambda noise: make(noise=noise, **asked.shared), pure)
    return _told(made, reason, {}, asked)


def _told(
    structure: Structure, reason: str, errors: dict[str, float], asked: _Asked
) -> Choice:
    """The choice with its numbers."""
    expected = structure.expected_error(asked.records)
    return Choice(structure, reason, expected, structure.floor, errors)


def _reason(best: str, found: dict[str, Structure], asked: _Asked) -> str:
    """Why the best one is."""
    if len(found) == 2:
        other = "sketch" if best == "spline" else "spline"
        return f"of a grid and random waves, the {best} is to err less than the {other}"
    if asked.domain is None:
        return "without a domain, random waves are all there is"
    return "in so many dimensions, or on so many nodes, a grid is too large"


def _unused(kernel: str, **settings: Any) -> None:
    """Refuse a setting that such a kernel would ignore."""
    for name, value in settings.items():
        if value is not None:
            raise ValueError(f"{name}: kernel={kernel!r} has none; leave it out")


def _public(name: str, value: Any) -> Any:
    """A public setting; refused by name where it asks to be computed."""
    if isinstance(value, str):
        if value.lower() in FROM_DATA:
            raise ValueError(
                f"{name}={value!r} would be computed from the private points, which "
                "publishes them in part: give a public one, known without them, or "
                "release it first and be charged"
            )
        raise TypeError(f"{name}={value!r}: needed public numbers, not text")
    return value


def _seed(seed: Any) -> int:
    """A public seed; a secret key is refused."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(
            f"feature_seed={type(seed).__name__}: needed a public whole number; the "
            "secret key belongs to the noise alone"
        )
    return checks.integer_at_least(0, feature_seed=int(seed))
