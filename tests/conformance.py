"""The common checks: what every mechanism must pass, and the list of all mechanisms.

Add a mechanism by adding a row: an instance, a worst-case neighbouring pair of record
arrays, and a scalar statistic of its output. The checks below raise AssertionError; the
mutants in tests/mechanisms/test_mutants.py show what each of them catches.

Records and outputs of the rows are trees of two leaves of the same shape, so that noise
shared between leaves shows.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dpkit.accountants import events
from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import UnsupportedRelation
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.ledger import Ledger
from dpkit.accountants.readings import pld
from dpkit.mechanisms.adaptive import AdaptiveGaussianSum
from dpkit.mechanisms.clipping import GaussianSum
from dpkit.mechanisms.clips import PSAC, AutoS, Clip, Custom, HardDrop, PerGroup, Unit
from dpkit.mechanisms.sampling import PoissonSampler
from tests.audit import audit, falsified
from tests.oracles.mixture import Mixture, gaussian, hockey_stick
from tests.oracles.poisson import truncated_poisson_sum

Tree = Any
AUDIT_EPSILONS = (0.25, 0.5, 1.0, 1.5, 2.0)
EXACT_EPSILONS = tuple(np.linspace(0.0, 4.0, 20))
DRAWS = 200_000
# So many draws take longer than any compilation, whatever a suite says about it.
OPTIMISED = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Neighbouring data sets, and the exact laws of the statistic where known."""

    name: str
    small: Tree
    large: Tree
    laws: tuple[Mixture, Mixture] | None = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Row:
    """A mechanism under one relation, perhaps on a Poisson batch.

    Attributes:
      statistic: from the output of one release to a scalar; best the projection on the
        direction in which the pairs differ.
      radius: the L2 norm that one record's contribution never passes.
      sampler: None releases on all records.
      divisor: the public constant that a sampled sum is divided by.
      tight: whether the first pair attains the event's exact privacy curve.
      allowed: values at the edge of `check_refusals` that this mechanism accepts.
      traced: fields that may be arrays, since they cancel in the event.
      evened: from an output to one whose leaves all have noise `mechanism.stddev`.
    """

    name: str
    mechanism: Any
    relation: Relation
    pairs: tuple[Pair, ...]
    statistic: Callable[[Tree], jax.Array]
    radius: float
    sampler: PoissonSampler | None = None
    divisor: float = 1.0
    tight: bool = True
    allowed: tuple[tuple[str, Any], ...] = ()
    traced: tuple[str, ...] = ()
    evened: Callable[[Tree], Tree] = lambda output: output

    def __repr__(self) -> str:
        """The name: fields hold whole arrays."""
        return self.name

    def event(self) -> Any:
        """What one release costs."""
        event = self.mechanism.event(self.relation)
        if self.sampler is None:
            return event
        return self.sampler.amplify(event, self.relation)

    def claim(self, epsilon: float) -> float:
        """The certified delta(epsilon) of the row's event."""
        return _claimed_delta(self.event(), float(epsilon), self.relation)

    @functools.cache  # noqa: B019 (rows live as long as the tests)
    def sample(self, pair: int, side: int, draws: int) -> np.ndarray:
        """Draws of the statistic on one side of a pair; each side has its own key."""
        records = (self.pairs[pair].small, self.pairs[pair].large)[side]
        return self.statistics(draws + 2 * pair + side, records, draws)

    def statistics(self, seed: int, records: Tree, draws: int) -> np.ndarray:
        """The statistic of independent releases, by the mechanism's own code."""
        keys = jax.random.split(jax.random.key(seed), draws)
        if self.sampler is None:
            values = _statistics(self.mechanism, self.statistic, keys, records)
        else:
            values = self.sampled_statistics(keys, records)
        return np.asarray(values, np.float64)

    def sampled_statistics(self, keys: jax.Array, records: Tree) -> jax.Array:
        """The statistic of one release on a batch of its own for every key."""
        assert self.sampler is not None
        draw_keys, noise_keys = _split_all(keys)
        num_records = len(jax.tree.leaves(records)[0])
        batch = self.sampler.draw(draw_keys, num_records)
        # One shape for all sides, so one compilation: rows that are never drawn.
        unused = self.sampler.max_records - num_records
        records = jax.tree.map(lambda leaf: _with_nan_rows(leaf, unused), records)
        return _sampled_statistics(self.step(), noise_keys, batch, records)

    def step(self) -> "Step":
        """What is done with a batch."""
        return Step(self.mechanism, self.statistic, self.divisor)

    @property
    def stddev(self) -> float:
        """Of the noise in the entries of `noises`."""
        return float(self.mechanism.stddev)

    @property
    def of_integers(self) -> bool:
        """Whether records are codes: whole numbers, and those below 0 are none."""
        leaves = jax.tree.leaves(self.pairs[0].large)
        return all(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in leaves)

    @property
    def on_host(self) -> bool:
        """Whether noise is drawn on the host, so that nothing is traced."""
        return getattr(self.mechanism, "draws_on_host", False)

    def release(self) -> Callable[[jax.Array, Tree], Tree]:
        """The mechanism's call, compiled if it can be."""
        if self.on_host:
            return self.mechanism.__call__
        return jax.jit(self.mechanism.__call__)

    def lengths(self, message: Tree) -> list[tuple[float, float]]:
        """The norm of a contribution, and what it may be at most."""
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(message)]
        norm = math.sqrt(sum(float((leaf**2).sum()) for leaf in leaves))
        return [(norm, self.radius * (1 + 2**-16))]

    def noises(self, seed: int, draws: int) -> list[np.ndarray]:
        """The leaves of so many releases of nothing, noise alike in all of them."""
        nothing = jax.tree.map(lambda leaf: leaf[:0], self.pairs[0].large)
        keys = jax.random.split(jax.random.key(seed), draws)
        release = jax.jit(jax.vmap(lambda k: self.evened(self.mechanism(k, nothing))))
        return [np.asarray(x, np.float64) for x in jax.tree.leaves(release(keys))]


@dataclasses.dataclass(frozen=True)
class Step:
    """One release on a padded batch: contribute, mask, sum, privatize, divide."""

    mechanism: Any
    statistic: Callable[[Tree], jax.Array]
    divisor: float

    def __call__(self, key: jax.Array, rows: Tree, mask: jax.Array) -> jax.Array:
        """The statistic of the release."""
        contribute_key, privatize_key = jax.random.split(key)
        keys = jax.random.split(contribute_key, len(mask))
        messages = jax.vmap(self.mechanism.contribute)(keys, rows)
        total = jax.tree.map(functools.partial(_masked_sum, mask), messages)
        noisy = self.mechanism.privatize(privatize_key, total)
        divisor = self.divide_by(mask)
        return self.statistic(jax.tree.map(lambda leaf: leaf / divisor, noisy))

    def divide_by(self, mask: jax.Array) -> float | jax.Array:
        """The divisor: a constant, whatever the batch."""
        del mask
        return self.divisor


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=OPTIMISED)
def _statistics(
    mechanism: Any, statistic: Any, keys: jax.Array, records: Tree
) -> jax.Array:
    """The statistic of one release on all records, for every key."""
    return jax.vmap(lambda key: statistic(mechanism(key, records)))(keys)


@functools.partial(jax.jit, static_argnums=0)
def _sampled_statistics(
    step: Step, keys: jax.Array, batch: Any, records: Tree
) -> jax.Array:
    """The statistic of one release on its own batch, for every key."""

    def one(key: jax.Array, indices: jax.Array, mask: jax.Array) -> jax.Array:
        rows = jax.tree.map(lambda leaf: leaf[indices], records)
        return step(key, rows, mask)

    return jax.vmap(one)(keys, *batch)


@jax.jit
def _split_all(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two children of every key."""
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]


@functools.cache
def _claimed_delta(event: Any, epsilon: float, relation: Relation) -> float:
    """The certified upper bound on delta, from the accountants."""
    bound = pld.delta_of(event, epsilon, relation=relation, lower=False)
    assert bound.certified
    assert bound.upper is not None
    return bound.upper


def _with_nan_rows(leaf: jax.Array, count: int) -> jax.Array:
    """The leaf with rows of NaN behind its own."""
    rows = jnp.full((count, *leaf.shape[1:]), math.nan, leaf.dtype)
    return jnp.concatenate([leaf, rows])


def _masked_sum(mask: jax.Array, messages: jax.Array) -> jax.Array:
    """Sum of the rows that count."""
    shape = (len(mask),) + (1,) * (messages.ndim - 1)
    return jnp.sum(jnp.where(mask.reshape(shape), messages, 0.0), axis=0)


def check_event(row: Row) -> None:
    """The event is static, survives JSON, and the ledger takes and prices it."""
    event = row.event()
    assert events.from_json(json.loads(json.dumps(events.to_json(event)))) == event
    events.validate(event)
    seen = []
    jax.jit(lambda mechanism: seen.append(mechanism.event(row.relation)))(row.mechanism)
    assert seen == [row.mechanism.event(row.relation)]
    assert hash(row.mechanism) == hash(dataclasses.replace(row.mechanism))
    with Ledger.open(
        None,
        budget=Budget(1000.0, 1e-3),
        relation=row.relation,
        unit="example",
        dataset="conformance",
    ) as ledger:
        with ledger.reserve(event, delta=1e-4, label=row.name) as grant:
            grant.commit(1)
        spent = ledger.spent(1e-3).upper
        assert spent is not None
        assert 0 < spent <= 1000


def check_bound(row: Row) -> None:
    """No record, however hostile, contributes more than the radius, or a NaN."""
    template = jax.tree.map(lambda leaf: leaf[0], row.pairs[0].large)
    contribute = jax.jit(row.mechanism.contribute)
    for name, record in hostile_records(template):
        for norm, most in row.lengths(contribute(jax.random.key(0), record)):
            assert norm <= most, f"{name}: {norm} > {most}"


def hostile_records(template: Tree) -> list[tuple[str, Tree]]:
    """Records that break careless clipping, or careless counting, by name."""
    if all(jnp.issubdtype(x.dtype, jnp.integer) for x in jax.tree.leaves(template)):
        dtypes = (jnp.int32, jnp.uint32, jnp.int8)
        fills = [(x, d) for d in dtypes for x in (jnp.iinfo(d).min, jnp.iinfo(d).max)]
        fills += [(x, d) for d in dtypes[::2] for x in range(-2, 12)]
        return [(f"{d.__name__} {x}", _filled(template, x, d)) for x, d in fills]
    fills = [0.0, 1.0, 1e30, 3e38, -3e38, 1e-40, 1e-20, math.nan, math.inf, -math.inf]
    records = [(f"all {x}", _filled(template, x, jnp.float32)) for x in fills]
    for fill in (math.nan, math.inf, 3e38):
        one = _filled(template, 1.0, jnp.float32)
        first, *rest = jax.tree.leaves(one)
        leaves = [first.at[(0,) * first.ndim].set(fill), *rest]
        spoiled = jax.tree.unflatten(jax.tree.structure(one), leaves)
        records.append((f"one entry {fill}", spoiled))
    for dtype, fill in ((jnp.float16, 65504.0), (jnp.bfloat16, 3e38)):
        records.append((f"{dtype.__name__} {fill}", _filled(template, fill, dtype)))
    rng = np.random.default_rng(0)
    for power in range(-40, 39, 3):
        draw = [rng.normal(size=leaf.shape) for leaf in jax.tree.leaves(template)]
        leaves = [jnp.asarray(10.0**power * x, jnp.float32) for x in draw]
        record = jax.tree.unflatten(jax.tree.structure(template), leaves)
        records.append((f"random 1e{power}", record))
    return records


def _filled(template: Tree, fill: float, dtype: Any) -> Tree:
    """A record of the template's shapes with one value everywhere."""
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, fill, dtype), template)


def check_transformations(row: Row) -> None:
    """eager = jit; vmap = loop; structure and dtypes kept; one trace for one shape."""
    records, traces = row.pairs[0].large, []

    @jax.jit
    def compiled(mechanism: Any, key: jax.Array) -> Tree:
        traces.append(key)
        return mechanism(key, records)

    eager = [row.mechanism(jax.random.key(seed), records) for seed in (0, 1)]
    jitted = [compiled(row.mechanism, jax.random.key(seed)) for seed in (0, 1)]
    assert len(traces) == 1
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    stacked = jax.vmap(lambda key: row.mechanism(key, records))(keys)
    for i in (0, 1):
        _assert_close(eager[i], jitted[i])
        _assert_close(eager[i], jax.tree.map(lambda leaf, i=i: leaf[i], stacked))
    assert jax.tree.structure(eager[0]) == jax.tree.structure(jitted[0])
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(eager[0])]
    assert dtypes == [leaf.dtype for leaf in jax.tree.leaves(jitted[0])]


def check_sharding(row: Row) -> None:
    """The same bits, whether or not records and totals are spread over two devices."""
    for axis_type in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(axis_type,))
        _check_spread(row, NamedSharding(mesh, PartitionSpec("data")))


def _check_spread(row: Row, spread: NamedSharding) -> None:
    """Releases with records, then totals, placed by `spread` and not placed at all."""
    # Multiples of 1/64 well inside the clip norm: sums are exact in any order.
    record = jax.tree.map(lambda leaf: leaf[:1], row.pairs[0].large)
    rng = np.random.default_rng(0)
    records = jax.tree.map(
        lambda x: jnp.asarray(rng.integers(-4, 5, (8, *x.shape[1:])) / 64, jnp.float32),
        record,
    )
    release = jax.jit(lambda key, data: row.mechanism(key, data))
    plain = release(jax.random.key(0), records)
    sharded = release(jax.random.key(0), jax.device_put(records, spread))
    _assert_same_bits(plain, sharded)
    keys = jax.random.split(jax.random.key(0), 8)
    messages = jax.vmap(row.mechanism.contribute)(keys, records)
    total = jax.tree.map(lambda leaf: leaf.sum(axis=0), messages)
    publish = jax.jit(row.mechanism.privatize)
    plain = publish(jax.random.key(0), total)
    whole = NamedSharding(spread.mesh, PartitionSpec())
    places = jax.tree.map(lambda leaf: spread if leaf.ndim else whole, total)
    sharded = publish(jax.random.key(0), jax.device_put(total, places))
    _assert_same_bits(plain, sharded)


def check_keys(row: Row) -> None:
    """Same key, same output; other key, every entry another; legacy keys refused."""
    records = row.pairs[0].large
    release = row.release()
    first = release(jax.random.key(0), records)
    _assert_same_bits(first, release(jax.random.key(0), records))
    for seed in range(1, 6):
        other = release(jax.random.key(seed), records)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
            assert (np.asarray(a) != np.asarray(b)).all(), "an entry without noise"
    for legacy in (jax.random.PRNGKey(0), np.zeros(2, np.uint32), 0, None):
        with pytest.raises(TypeError, match="key="):
            row.mechanism(legacy, records)


def check_isolation(row: Row) -> None:
    """A record with a NaN counts as a zero record and disturbs no other.

    For mechanisms of the host, whose records are points or codes, it counts as none.
    """
    good = jax.tree.map(lambda leaf: leaf[:1], row.pairs[0].large)
    outputs, release = [], row.release()
    for fill in (-1 if row.of_integers else math.nan, 0.0):
        bad = jax.tree.map(lambda leaf, fill=fill: jnp.full_like(leaf, fill), good)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), good, bad)
        both = good if row.on_host and fill == 0.0 else both
        outputs.append(release(jax.random.key(0), both))
    _assert_same_bits(*outputs)


def check_leaves(row: Row, draws: int = 4000) -> None:
    """Two leaves, and two releases, have independent noise of the right size.

    The variance of a difference must be twice that of one: chi-squared with `draws`
    degrees of freedom, within 6 standard deviations (false alarm 2e-9 each).
    """
    leaves = row.noises(7, 2 * draws)
    first, second = (leaf.reshape(2 * draws, -1)[:, 0] for leaf in leaves[:2])
    expected = 2 * row.stddev**2
    room = 6 * math.sqrt(2 / draws)
    for name, difference in (
        ("two releases", first[:draws] - first[draws:]),
        ("two leaves", (first - second)[:draws]),
    ):
        ratio = float((difference**2).mean()) / expected
        assert abs(ratio - 1) < room, f"{name}: variance ratio {ratio}"


def check_audit(row: Row, draws: int = DRAWS, claim: Any = None) -> None:
    """The honest-event audit on every pair (false alarm <= 1e-5 a pair)."""
    for number, pair in enumerate(row.pairs):
        small, large = (row.sample(number, side, draws) for side in (0, 1))
        findings = audit(small, large, claim or row.claim, AUDIT_EPSILONS)
        assert not falsified(findings), f"{pair.name}: {falsified(findings)}"


def check_exact(row: Row) -> None:
    """Where laws are known: the true curve is below the claim, and attains it if tight.

    A curve well below its claim is no privacy bug, but a factor too much.
    """
    for number, pair in enumerate(row.pairs):
        if pair.laws is None:
            continue
        small, large = pair.laws
        for epsilon in EXACT_EPSILONS:
            true = max(
                hockey_stick(small, large, epsilon), hockey_stick(large, small, epsilon)
            )
            claimed = row.claim(epsilon)
            assert true <= claimed + 1e-9, f"{pair.name} at {epsilon}: {true, claimed}"
            if row.tight and number == 0:
                assert claimed <= true * 1.01 + 1e-6, f"loose: {true, claimed}"


def check_law(row: Row, draws: int = DRAWS) -> None:
    """Draws follow the stated laws: Kolmogorov-Smirnov, false alarm 1e-6 a sample."""
    # DKW: P[sup |F_n - F| > t] <= 2 exp(-2 n t^2)
    room = math.sqrt(math.log(2 / 1e-6) / (2 * draws))
    for number, pair in enumerate(row.pairs):
        for side, law in enumerate(pair.laws or ()):
            sample = np.sort(row.sample(number, side, draws))
            some = sample[:: draws // 500]
            ranks = np.searchsorted(sample, some, side="right") / draws
            pairs = zip(some.tolist(), ranks.tolist(), strict=True)
            worst = max(abs(law.cdf(x) - rank) for x, rank in pairs)
            assert worst <= room, f"{pair.name}, side {side}: {worst} > {room}"


def check_refusals(row: Row) -> None:
    """Bad parameters, relations and records are refused before anything runs."""
    numbers = (math.nan, math.inf, -math.inf, -1.0, 0.0)
    wrong: tuple[Any, ...] = (*numbers, True, "1", None, jnp.ones(()))
    parts: list[Any] = [row.mechanism] if row.sampler is None else [row.sampler]
    for part in parts:
        for field in dataclasses.fields(part):
            for value in wrong:
                if any(field.name == n and value is v for n, v in row.allowed):
                    continue
                if field.name in row.traced and isinstance(value, jax.Array):
                    continue
                with pytest.raises((ValueError, TypeError), match=field.name):
                    dataclasses.replace(part, **{field.name: value})
    with pytest.raises(ValueError, match="relation"):
        row.mechanism.event("neighbours")
    with pytest.raises(TypeError, match="relation"):
        row.mechanism.event(None)
    if row.sampler is not None:
        with pytest.raises(UnsupportedRelation, match="replace_one"):
            row.sampler.amplify(row.mechanism.event("replace_one"), "replace_one")
    if not callable(row.mechanism):
        return
    ragged = {"a": jnp.zeros((3, 2)), "b": jnp.zeros((2, 2))}
    with pytest.raises(ValueError, match="records="):
        row.mechanism(jax.random.key(0), ragged)
    dtype, needed = (float, "integer") if row.of_integers else (int, "floating")
    others = jax.tree.map(
        lambda leaf: jnp.zeros((3, *leaf.shape[1:]), dtype), row.pairs[0].large
    )
    with pytest.raises(TypeError, match=needed):
        row.mechanism(jax.random.key(0), others)


ROW_CHECKS = (check_event, check_audit, check_exact, check_law, check_refusals)
MECHANISM_CHECKS = (
    check_bound,
    check_transformations,
    check_sharding,
    check_keys,
    check_isolation,
    check_leaves,
)


def _assert_close(first: Tree, second: Tree) -> None:
    """Equal up to the rounding that compilation may change."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        first,
        second,
    )


def _assert_same_bits(first: Tree, second: Tree) -> None:
    """Equal bit for bit."""
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), "other bits"


def along(*values: float) -> Tree:
    """Records value * e1, one for each value, in trees of two leaves."""
    a = np.zeros((len(values), 2), np.float32)
    a[:, 0] = values
    return {"a": jnp.asarray(a), "b": jnp.zeros((len(values), 2), jnp.float32)}


def first_entry(output: Tree) -> jax.Array:
    """The projection on e1."""
    return output["a"][0]


CLIP_NORM = 2.0  # records of norm 6 must be clipped to it
DIVISOR = 4.0


def _gaussian_sum_row(
    relation: Relation, small: tuple[float, ...], large: tuple[float, ...]
) -> Row:
    """Not sampled: a pair of data sets along e1, whose totals have Gaussian laws."""
    mechanism = GaussianSum(CLIP_NORM, 1.25)
    laws = [
        gaussian(sum(_clipped(side)), CLIP_NORM * 1.25 * (1 + 2**-16))
        for side in (small, large)
    ]
    return Row(
        name=f"gaussian_sum-{relation}",
        mechanism=mechanism,
        relation=relation,
        pairs=(Pair("worst", along(*small), along(*large), (laws[0], laws[1])),),
        statistic=first_entry,
        radius=CLIP_NORM,
        allowed=(("noise_multiplier", 0.0),),
    )


def _clip_row(
    name: str,
    clip: Clip,
    value: float,
    contribution: float,
    relation: Relation,
    *,
    direction: tuple[float, float] = (1.0, 0.0),
) -> Row:
    """A clip's worst record, along one direction of both leaves, and its neighbour."""
    mechanism = GaussianSum(clip=clip, noise_multiplier=1.25)
    stddev = clip.radius * 1.25 * (1 + 2**-16)
    a, b = direction
    # Nothing, a zero record, or the worst one on the other side.
    other, moved = {
        Relation.ADD_REMOVE: ((), 0.0),
        Relation.ZERO_OUT: ((0.0,), 0.0),
        Relation.REPLACE_ONE: ((-value,), -contribution),
    }[relation]

    def records(*values: float) -> Tree:
        line = along(*values)["a"]
        return {"a": line * a, "b": line * b}

    return Row(
        name=f"clip_{name}-{relation}",
        mechanism=mechanism,
        relation=relation,
        pairs=(
            Pair(
                "worst",
                records(*other),
                records(value),
                (gaussian(moved, stddev), gaussian(contribution, stddev)),
            ),
        ),
        statistic=lambda output: a * output["a"][0] + b * output["b"][0],
        radius=clip.radius,
        allowed=(("noise_multiplier", 0.0),),
    )


def _clip_rows(relation: Relation) -> list[Row]:
    """Every clip but the flat one, each with its worst record."""
    groups = PerGroup((1.2, 1.6), (("a",), ("b",)))
    psac, own = 2e4 / (1e4 + 0.1 / (1e4 + 0.1)), 2e4 / (1 + 1e4)
    return [
        _clip_row("unit", Unit(2.0), 6.0, 1.0, relation),
        _clip_row("autos", AutoS(2.0), 1e4, 2e4 / (1e4 + 0.01), relation),
        _clip_row("psac", PSAC(2.0), 1e4, psac, relation),
        _clip_row("hard_drop", HardDrop(2.0), 2.0, 2.0, relation),
        _clip_row("per_group", groups, 6.0, 2.0, relation, direction=(0.6, 0.8)),
        _clip_row("custom", Custom(_own_factor, 2.0), 1e4, own, relation),
    ]


def _own_factor(norm: jax.Array) -> jax.Array:
    """A clipping function of radius 2."""
    return 2.0 / (1.0 + norm)


SUM_NOISE, BIT_NOISE = 1.25 / (1 - (1.25 / 1.6) ** 2) ** 0.5, 0.8


def _adaptive_row(
    relation: Relation, sides: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
) -> Row:
    """Clipped to 2, with bits that cost much; the best projection of sum and count."""
    in_sum, in_count = 1 / SUM_NOISE**2, 1 / (2 * BIT_NOISE**2)
    stddev = (1 + 2**-16) / 1.25

    def law(values: tuple[float, ...]) -> Mixture:
        bits = sum((0.5 if abs(x) <= CLIP_NORM else -0.5) for x in values if x)
        total = sum(_clipped(values)) / CLIP_NORM
        return gaussian(in_sum * total + in_count * bits, stddev)

    return Row(
        name=f"adaptive-{relation}",
        mechanism=AdaptiveGaussianSum(
            clip_norm=CLIP_NORM,
            noise_multiplier=1.25,
            bit_noise=BIT_NOISE,
            expected_batch_size=DIVISOR,
        ),
        relation=relation,
        pairs=tuple(
            Pair(title, along(*small), along(*large), (law(small), law(large)))
            for title, (small, large) in sides.items()
        ),
        statistic=lambda output: (
            in_sum * output["sum"]["a"][0] / CLIP_NORM + in_count * output["below"]
        ),
        radius=math.hypot(CLIP_NORM, 0.5),
        allowed=(("prefixes", None),),
        traced=("clip_norm",),
        evened=lambda output: {
            "below": output["below"] * (CLIP_NORM * SUM_NOISE / BIT_NOISE),
            "sum": output["sum"],
        },
    )


def _adaptive_groups_row() -> Row:
    """Two groups, with a clip norm of 2 and a costly count each; the best projection.

    1 / sigma^2 = 1 = 1 / sigma_sum^2 + 2 / (4 sigma_bits^2), the two parts as below.
    """
    in_sum, in_count = 0.21875 / 2, 0.78125
    line = along(2.0)["a"]
    stddev = 1 + 2**-16
    return Row(
        name="adaptive_groups-add_remove",
        mechanism=AdaptiveGaussianSum(
            clip_norm=CLIP_NORM,
            noise_multiplier=1.0,
            bit_noise=BIT_NOISE,
            expected_batch_size=DIVISOR,
            prefixes=(("a",), ("b",)),
        ),
        relation=Relation.ADD_REMOVE,
        pairs=(
            Pair(
                "at both norms",
                {"a": line[:0], "b": line[:0]},
                {"a": line, "b": line},
                (gaussian(0.0, stddev), gaussian(1.0, stddev)),
            ),
        ),
        statistic=lambda output: (
            (output["sum"]["a"][0] + output["sum"]["b"][0]) / CLIP_NORM * in_sum
            + jnp.sum(output["below"]) * in_count
        ),
        radius=math.hypot(CLIP_NORM, CLIP_NORM, 0.5, 0.5),
        allowed=(("prefixes", None),),
        traced=("clip_norm",),
    )


def _poisson_row(
    name: str,
    relation: Relation,
    noise_multiplier: float,
    sampler: PoissonSampler,
    sides: dict[str, tuple[tuple[float, ...], tuple[float, ...]]],
    *,
    tight: bool,
) -> Row:
    """Sampled, and divided by a constant; the laws by listing all batches."""
    stddev = noise_multiplier * CLIP_NORM * (1 + 2**-16) / DIVISOR

    def law(values: tuple[float, ...]) -> Mixture:
        moves = tuple(value / DIVISOR for value in _clipped(values))
        size = sampler.max_batch_size
        return truncated_poisson_sum(moves, sampler.sampling_rate, size, stddev)

    return Row(
        name=f"{name}-{relation}",
        mechanism=GaussianSum(CLIP_NORM, noise_multiplier),
        relation=relation,
        pairs=tuple(
            Pair(title, along(*small), along(*large), (law(small), law(large)))
            for title, (small, large) in sides.items()
        ),
        statistic=first_entry,
        radius=CLIP_NORM,
        sampler=sampler,
        divisor=DIVISOR,
        tight=tight,
        allowed=(("noise_multiplier", 0.0),),
    )


def _clipped(values: tuple[float, ...]) -> tuple[float, ...]:
    """What records along one direction contribute."""
    return tuple(max(-CLIP_NORM, min(CLIP_NORM, value)) for value in values)


def one_per_mechanism(rows: list[Row]) -> list[Row]:
    """The first row of every class of mechanisms."""
    return list({type(row.mechanism): row for row in reversed(rows)}.values())


_ZEROS, _CROWD, _RIVALS = (0.0,) * 9, (-3.0,) * 9, (-6.0,) * 5
ROWS = [
    _gaussian_sum_row(Relation.ADD_REMOVE, (), (6.0,)),
    _gaussian_sum_row(Relation.ZERO_OUT, (1.0, 0.0), (1.0, 6.0)),
    _gaussian_sum_row(Relation.REPLACE_ONE, (1.0, -6.0), (1.0, 6.0)),
    _poisson_row(
        "poisson",
        Relation.ADD_REMOVE,
        0.7,
        PoissonSampler(0.5, max_batch_size=10, max_records=10),
        {
            "alone": (_ZEROS, (*_ZEROS, 6.0)),
            "against a crowd": (_CROWD, (*_CROWD, 6.0)),
        },
        tight=True,
    ),
    _poisson_row(
        "poisson",
        Relation.ZERO_OUT,
        0.7,
        PoissonSampler(0.5, max_batch_size=10, max_records=10),
        {"record or zeros": ((0.0, *_ZEROS), (6.0, *_ZEROS))},
        tight=True,
    ),
    _poisson_row(
        "truncated",
        Relation.ADD_REMOVE,
        0.5,
        PoissonSampler(0.3, max_batch_size=4, max_records=6),
        {
            "rivals for slots": (_RIVALS, (*_RIVALS, 6.0)),
            "alone": ((0.0,) * 5, (0.0,) * 5 + (6.0,)),
        },
        tight=False,
    ),
    _adaptive_row(Relation.ADD_REMOVE, {"at the norm": ((), (2.0,))}),
    _adaptive_row(
        Relation.ZERO_OUT,
        {"at the norm": ((1.0, 0.0), (1.0, 2.0)), "above": ((0.0,), (6.0,))},
    ),
    _adaptive_row(Relation.REPLACE_ONE, {"both": ((1.0, -6.0), (1.0, 2.0))}),
    _adaptive_groups_row(),
    *(row for relation in Relation for row in _clip_rows(relation)),
]
