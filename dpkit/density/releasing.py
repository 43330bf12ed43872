"""One call from private points to a release: choose, charge, sum, add noise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from dpkit.accountants import Budget, Ledger, Relation
from dpkit.accountants import epsilon as epsilon_of
from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import Incompatible
from dpkit.accountants.answers.relations import as_relation
from dpkit.density import files
from dpkit.density.choice import Choice, choose, noise_multiplier
from dpkit.density.released import Release
from dpkit.density.shards import Shard, as_points, kept_rows
from dpkit.jobs.roots import noise_key, secret_key
from dpkit.mechanisms import _check
from dpkit.mechanisms.density import (
    Curator,
    ExactKernel,
    Gaussian,
    Kernel,
)
from dpkit.mechanisms.noise import host_generator

RECORDS = ("record", "example", "point", "row")  # units of one point


def release(
    points: Any,
    *,
    kernel: str = "gaussian",
    bandwidth: float | None = None,
    domain: Any = None,
    epsilon: float,
    delta: float,
    relation: Relation | str | None = None,
    ledger: Ledger | None = None,
    key: jax.Array | None = None,
    weights: Any = None,
    max_weight: float | None = None,
    unit_ids: Any = None,
    points_per_unit: int | None = None,
    dimension: int | None = None,
    label: str = "density",
    **settings: Any,
) -> Release:
    """Releases a structure over private points, which then answers for ever.

    Privacy: (epsilon, delta) for one record, or one unit, under the relation; charged
    to the ledger before the noise is drawn. Queries cost nothing. Rows that are not
    finite count for none.

    Args:
      points: private; (n, d), or an iterable of such batches, which is read once.
      kernel, bandwidth, domain, and settings (landmarks, landmarks_public, records,
        features, feature_seed, power, structure): public; see `choose`.
      epsilon, delta: what the release may cost; delta 0 for pure noise.
      relation: that of the ledger; without a ledger, add_remove if left out.
      ledger: it is charged; None: one in memory, with just this budget.
      key: of the noise, used for this call alone; None: from the operating system.
      weights: (n,), how much each point counts. max_weight: the most that it may;
        public, needed with weights.
      unit_ids: (n,), whose each point is; points of nobody are left out.
        points_per_unit: the most points of one unit; more are left out at random.
        Needed with unit_ids; without, it says that no unit has more.
      dimension: d, needed for an iterable.
      label: of the ledger's entry.

    Returns:
      The release.

    Raises:
      ValueError, TypeError: from `choose`; points of another shape; weights or
        unit_ids without their public limits. Nothing is charged.
      BudgetExceeded: the ledger can't pay. Nothing is drawn.
      Incompatible: another relation than the ledger's.

    Example:
      >>> points = np.random.default_rng(0).normal(4, 1, (10_000, 1))
      >>> made = release(points, bandwidth=1.0, domain=[(0, 9)], epsilon=1.0,
      ...                delta=1e-6, key=jax.random.key(0))
      >>> made.facts["relation"], made.facts["structure"]
      ('add_remove', 'SplineGrid')
    """
    _together(weights=weights, max_weight=max_weight)
    if unit_ids is not None:
        _together(unit_ids=unit_ids, points_per_unit=points_per_unit)
    refuse_other_units(ledger, points_per_unit)
    source = _source(points, dimension)
    _one_each(source, weights=weights, unit_ids=unit_ids)
    key = _key(key)
    choice = choose(
        source if isinstance(source, int) else source.shape[1],
        kernel=kernel,
        bandwidth=bandwidth,
        domain=domain,
        epsilon=epsilon,
        delta=delta,
        relation=relation_of(ledger, relation),
        max_weight=1.0 if max_weight is None else max_weight,
        points_per_unit=1 if points_per_unit is None else points_per_unit,
        **settings,
    )
    shard = Shard(choice.structure)

    def fill() -> None:
        """Reads the points."""
        rows, counted = points if isinstance(source, int) else source, weights
        if unit_ids is not None:
            generator = host_generator(jax.random.fold_in(key, 0))
            kept = kept_rows(unit_ids, choice.structure.points_per_unit, generator)
            rows = rows[kept]
            counted = None if weights is None else np.asarray(weights)[kept]
        shard.add(rows, weights=counted)

    unit = "record" if points_per_unit is None else "unit"
    with ledger_for(ledger, epsilon, delta, relation, unit) as book:
        return released(choice, shard, key, book, delta, label, fill)


def release_shards(
    *shards: Shard,
    ledger: Ledger,
    key: jax.Array | None = None,
    delta: float | None = None,
    label: str = "density",
) -> Release:
    """Releases the records of several parts together: one noise, at the end.

    Privacy: the event of the parts' structure, charged to the ledger first.

    Args:
      shards: parts of one structure; a record is in one of them.
      ledger: it is charged.
      key: as for `release`.
      delta: at which the cost is stated; left out, the ledger's.
      label: of the ledger's entry.

    Raises:
      ValueError: no parts, parts of different structures, or one that was released.
      BudgetExceeded: the ledger can't pay. Nothing is drawn.

    Example:
      >>> from dpkit.mechanisms.density import SquaredDistances
      >>> moments = SquaredDistances(radius=2.0, dimension=1, noise=Gaussian(5.0))
      >>> parts = [Shard(moments), Shard(moments)]
      >>> for part in parts:
      ...     part.add(np.ones((500, 1)))
      >>> with Ledger.open(None, budget=Budget(1.0, 1e-6), relation="add_remove",
      ...                  unit="record", dataset="toy") as ledger:
      ...     made = release_shards(*parts, ledger=ledger, key=jax.random.key(0))
      >>> made.count.values.round(-2)
      array([1000.])
    """
    if not shards:
        raise ValueError("shards: needed at least one")
    if any(shard._released for shard in shards):
        raise ValueError(
            "shards: one of them was released before; a second release of the same "
            "records is a second charge: add them to a new Shard"
        )
    key, whole = _key(key), shards[0].merge(*shards[1:])
    structure, delta = whole.structure, ledger.budget.delta if delta is None else delta
    expected, floor = structure.expected_error(100_000), structure.floor
    choice = Choice(structure, "it was asked for", expected, floor, {})
    made = released(choice, whole, key, ledger, delta, label)
    for shard in shards:
        shard._released = True
    return made


def curate(
    points: Any,
    *,
    kernel: str = "gaussian",
    bandwidth: float,
    epsilon: float,
    delta: float,
    relation: Relation | str | None = None,
    ledger: Ledger | None = None,
    key: jax.Array | None = None,
    max_queries: int = 4096,
    label: str = "density curator",
) -> Curator:
    """Answers exact kernel sums with one path of noise; the records stay here.

    Privacy: (epsilon, delta) for all answers together; charged before the first.

    Args:
      max_queries: the most different queries; public.
      others: as for `release`.

    Raises:
      as `release`.

    Example:
      >>> curator = curate(np.zeros((1000, 8)), bandwidth=1.0, epsilon=1.0, delta=1e-6,
      ...                  key=jax.random.key(0))
      >>> curator.query(np.zeros((1, 8))).stddev.round(1)
      array([4.2])
    """
    points, key = as_points(points), _key(key)
    relation = relation_of(ledger, relation)
    multiplier = noise_multiplier(
        checks.positive(epsilon=epsilon),
        checks.open_probability(delta=delta),
        relation,
    )
    exact = ExactKernel(Kernel(kernel, bandwidth), Gaussian(multiplier), max_queries)
    if relation is Relation.REPLACE_ONE:
        share = exact.reach.l2_replaced / (2 * exact.reach.l2) * (1 + 1e-12)
        exact = ExactKernel(exact.kernel, Gaussian(multiplier * share), max_queries)
    refuse_other_units(ledger, None)
    curator = exact.begin(noise_key(key, repr(exact).encode(), points), points)
    with ledger_for(ledger, epsilon, delta, relation) as book:
        with book.reserve(exact.event(relation), delta=delta, label=label) as grant:
            grant.commit(1)
    return curator


def released(
    choice: Choice,
    shard: Shard,
    key: jax.Array | None,
    ledger: Ledger,
    delta: float,
    label: str,
    fill: Callable[[], None] | None = None,
) -> Release:
    """Reads the points, charges, then draws.

    How long reading takes tells how many points there are: the ledger's times begin
    after it.

    Args:
      choice: of the structure, with its noise.
      shard: the records.
      key: of the noise; None: from the operating system.
      ledger: it is charged.
      delta: at which the cost is stated.
      label: of the ledger's entry.
      fill: adds records to the shard, before the charge.
    """
    structure, relation = choice.structure, ledger.relation
    checks.text(label=label)
    event = structure.event(relation)
    key = _key(key)
    if fill is not None:
        _refuse_what_cannot_be_paid(ledger, event, delta, label)
        fill()
    total = shard.private_total
    own = noise_key(key, files.identity(structure), total)
    with ledger.reserve(event, delta=delta, label=label) as grant:
        values = structure.privatize(own, total)
        grant.commit(1)
    bound = epsilon_of(event, delta, relation=relation)
    return Release(structure, values, facts_of(choice, ledger, bound.upper, delta))


def _refuse_what_cannot_be_paid(
    ledger: Ledger, event: Any, delta: float, label: str
) -> None:
    """Refuses before points are read, where the ledger has nothing left for it.

    Raises:
      BudgetExceeded: as the charge would.
    """
    if ledger.remaining(event, sealed=True, delta=delta) < 1:
        with ledger.reserve(event, delta=delta, label=label) as grant:
            grant.abort(nothing_released=True)


def facts_of(
    choice: Choice, ledger: Ledger, epsilon: float | None, delta: float
) -> dict[str, Any]:
    """What a release says of itself; JSON values, all public."""
    structure = choice.structure
    kernel: Kernel | None = getattr(structure, "kernel", None)
    return {
        "structure": type(structure).__name__,
        "kernel": None if kernel is None else kernel.name,
        "bandwidth": None if kernel is None else kernel.bandwidth,
        "epsilon": epsilon,
        "delta": delta,
        "relation": str(ledger.relation),
        "unit": ledger.unit,
        "dataset": ledger.dataset,
        "ledger": ledger.id,
        "ledger_head": ledger.head,
        "expected_error": choice.expected_error,
        "floor": choice.floor,
        "reason": choice.reason,
        "others": choice.others,
    }


def _source(points: Any, dimension: int | None) -> Any:
    """Points as an array, or the dimension of what comes in batches."""
    if hasattr(points, "shape") or isinstance(points, list | tuple):
        return as_points(points, dimension)
    if isinstance(points, Iterator) or hasattr(points, "__iter__"):
        if dimension is None:
            raise ValueError("dimension is missing: needed for points in batches")
        return checks.integer_at_least(1, dimension=dimension)
    raise TypeError(f"points={type(points).__name__}: needed an array, or batches")


def _together(**given: Any) -> None:
    """Private values go with their public limit."""
    (first, value), (second, limit) = given.items()
    if (value is None) != (limit is None):
        missing = first if value is None else second
        raise ValueError(
            f"{missing} is missing: {first} (private) and {second} (public, the most "
            "that may be) go together"
        )


def refuse_other_units(ledger: Ledger | None, points_per_unit: int | None) -> None:
    """Refuses a guarantee for single points on a ledger that protects more.

    Raises:
      Incompatible: the ledger's unit is no single record, and nobody says how many
        points one has.
    """
    if ledger is None or points_per_unit is not None or ledger.unit in RECORDS:
        return
    raise Incompatible(
        f"points_per_unit is missing: the ledger protects {ledger.unit!r}, which may "
        "have several points; give unit_ids and points_per_unit, or this alone if "
        "none has more"
    )


def relation_of(ledger: Ledger | None, relation: Relation | str | None) -> Relation:
    """The ledger's relation, with which a given one agrees."""
    if ledger is None:
        return as_relation("add_remove" if relation is None else relation)
    if relation is not None and as_relation(relation) is not ledger.relation:
        raise Incompatible(
            f"relation={str(relation)!r}: the ledger counts {ledger.relation}; leave "
            "it out, or use another ledger"
        )
    return ledger.relation


def _one_each(source: Any, **given: Any) -> None:
    """Weights and whose each point is go with one array of points."""
    for name, values in given.items():
        if values is None:
            continue
        if isinstance(source, int):
            raise ValueError(
                f"{name} with points in batches: needed one array of points; or add "
                "batches with their weights to a Shard"
            )
        if np.shape(values) != source.shape[:1]:
            raise ValueError(
                f"{name} of shape {np.shape(values)}: needed one for each of "
                f"{len(source)} points"
            )


def _key(key: jax.Array | None) -> jax.Array:
    """The key, or one from the operating system."""
    return secret_key() if key is None else _check.typed_key(key)


@contextlib.contextmanager
def ledger_for(
    ledger: Ledger | None,
    epsilon: float,
    delta: float,
    relation: Relation | str | None,
    unit: str = "record",
) -> Iterator[Ledger]:
    """The ledger, or one in memory with just this budget."""
    if ledger is not None:
        yield ledger
        return
    with Ledger.open(
        None,
        budget=Budget(epsilon, delta),
        relation=relation_of(None, relation),
        unit=unit,
        dataset="points",
    ) as made:
        yield made
