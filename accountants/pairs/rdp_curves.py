"""The Rényi curve of each kind of event, under each relation that has a proof.

A curve is a function from orders to values; inf means that nothing is claimed there.
Events give noise in contribution radii. Replacing a record moves a sum by two of them,
which is applied here, in one place: s / 2 and b / 2. (dp-accounting's own Rényi
accountant forgets that factor.)
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import dp_accounting as dp
import numpy as np
from dp_accounting import DpEvent
from dp_accounting.rdp import rdp_privacy_accountant as dp_rdp
from numpy.typing import NDArray

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, shift
from dpkit.accountants.events import allocation
from dpkit.accountants.events.composing import flatten
from dpkit.accountants.events.kinds import kind_of
from dpkit.accountants.events.warrant import check_relation
from dpkit.accountants.pairs import curve as renyi
from dpkit.accountants.pairs import finite
from dpkit.accountants.pairs.allocation import renyi as allocation_rdp

Array = NDArray[Any]
Curve = Callable[[Array], Array]
NAME = "rdp"

_DIRECTED = (Relation.ADD_REMOVE, Relation.ZERO_OUT)
_RELATIONS: dict[str, tuple[Relation, ...]] = {
    "poisson_laplace": _DIRECTED,
    "mixture_gaussian": _DIRECTED,
    "truncated_poisson_gaussian": _DIRECTED,
    "random_allocation": _DIRECTED,
    "wor_gaussian": (Relation.REPLACE_ONE,),
    "randomized_response": (Relation.REPLACE_ONE, Relation.ZERO_OUT),
    "tree": (Relation.ZERO_OUT,),
}
_REMEMBERED = 256
_WOR_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
_SELECT_ORDERS = 1 + np.logspace(-2, 4, 61)


@dataclasses.dataclass(frozen=True)
class Table:
    """Values at some orders, read by chords of (a - 1) rho(a), which is convex.

    That function is 0 at a = 1, so chords start there; above the last order the answer
    is inf. Orders whose value is inf are left out.
    """

    orders: Array
    values: Array

    def __call__(self, orders: Array) -> Array:
        """The chord values at `orders`."""
        kept = np.isfinite(self.values)
        if not kept.any():
            return np.full(orders.shape, np.inf)
        knots = np.concatenate([[1.0], self.orders[kept]])
        heights = np.concatenate([[0.0], (self.orders[kept] - 1) * self.values[kept]])
        chords = np.interp(orders, knots, heights, right=np.inf)
        return chords / (orders - 1) * (1 + 1e-12)


def composed(event: DpEvent, relation: Relation) -> tuple[Curve, Array]:
    """The curve of a whole composition, and the orders worth trying besides a grid."""
    terms = [(curve_of(part, relation), count) for part, count in flatten(event)]
    return sum_of(terms), knots_of(terms)


def sum_of(terms: list[tuple[Curve, int]]) -> Curve:
    """The weighted sum of curves."""

    def total(orders: Array) -> Array:
        values = np.zeros(orders.shape)
        for curve, count in terms:
            values = values + float(count) * curve(orders)
        return values

    return total


def knots_of(terms: list[tuple[Curve, int]]) -> Array:
    """The orders of all tables among some curves."""
    tables = [curve.orders for curve, _ in terms if isinstance(curve, Table)]
    return np.unique(np.concatenate(tables)) if tables else np.empty(0)


@dataclasses.dataclass(frozen=True)
class Remembered:
    """A curve that keeps its answers: many questions ask for the same orders."""

    curve: Curve
    known: dict[bytes, Array] = dataclasses.field(default_factory=dict)

    def __call__(self, orders: Array) -> Array:
        """The curve's values."""
        key = orders.tobytes()
        if key not in self.known:
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            self.known[key] = self.curve(orders)
        return self.known[key]


@functools.lru_cache(maxsize=64)
def curve_of(event: DpEvent, relation: Relation) -> Curve:
    """The curve of one release in normal form; refuses what has no proof."""
    kind = kind_of(event)
    allowed = _RELATIONS.get(kind.name, tuple(Relation))
    if relation not in allowed:
        raise UnsupportedRelation(NAME, relation, event, allowed)
    check_relation(NAME, event, relation)
    if kind.name not in _CURVES:
        raise UnsupportedEvent(NAME, event, _ADVICE.get(kind.name, ""))
    curve = _CURVES[kind.name]({**kind.read(event), "event": event}, relation)
    return curve if isinstance(curve, Table) else Remembered(curve)


def _gaussian(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """Gaussian noise, moved by one radius or two."""
    noise = fields["noise_multiplier"] / shift(relation)
    return functools.partial(renyi.gaussian, noise_multiplier=noise)


def _poisson_gaussian(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """Removing is never better than adding (Mironov et al. 2019, Theorem 5)."""
    rate = fields["sampling_rate"]
    if relation is Relation.REPLACE_ONE:
        return functools.partial(
            renyi.replaced, noise_multiplier=fields["noise_multiplier"], rate=rate
        )
    return functools.partial(
        renyi.mixture,
        noise_multiplier=fields["noise_multiplier"],
        shifts=np.array([0.0, 1.0]),
        probabilities=np.array([1 - rate, rate]),
    )


def _mixture_gaussian(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """The worse of both directions."""
    pair = functools.partial(
        renyi.mixture,
        noise_multiplier=fields["noise_multiplier"],
        shifts=np.array(fields["shifts"]),
        probabilities=np.array(fields["probabilities"]),
    )
    return lambda orders: np.maximum(pair(orders), pair(orders, add=True))


def _laplace(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """Laplace noise, moved by one radius or two."""
    return functools.partial(renyi.laplace, scale=fields["scale"] / shift(relation))


def _poisson_laplace(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """Poisson-sampled Laplace noise."""
    return functools.partial(
        renyi.poisson_laplace, scale=fields["scale"], rate=fields["sampling_rate"]
    )


def _discrete_gaussian(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """Concentrated like the continuous Gaussian (arXiv:2004.00010, Theorem 4)."""
    noise = fields["stddev"] / (fields["sensitivity"] * shift(relation))
    return functools.partial(renyi.gaussian, noise_multiplier=noise)


def _discrete_laplace(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """Its finite pair."""
    pair = finite.discrete_laplace(fields["rate"], fields["sensitivity"], relation)
    return functools.partial(renyi.finite, p=pair.p, q=pair.q)


def _randomized_response(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """Its finite pair."""
    pair = finite.randomized_response(
        fields["probability"], fields["categories"], relation
    )
    return functools.partial(renyi.finite, p=pair.p, q=pair.q)


def _pmf_pair(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """The pair that the mechanism gave."""
    return functools.partial(
        renyi.finite, p=np.array(fields["p"]), q=np.array(fields["q"])
    )


def _rdp_curve(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """The table that the mechanism gave."""
    return Table(np.array(fields["orders"]), np.array(fields["values"]))


def _pure(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """Two outcomes with log-ratio epsilon."""
    return functools.partial(renyi.two_point, epsilon=fields["epsilon"])


def _approx_dp(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """Pure if delta is 0; otherwise every Rényi divergence may be infinite."""
    if fields["delta"] > 0:
        raise UnsupportedEvent(NAME, fields["event"], "use accountant='pld'")
    return _pure(fields, relation)


def _bounded_range(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """The worst pair of bounded range."""
    return functools.partial(renyi.bounded_range, epsilon=fields["epsilon"])


def _zcdp(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """xi + rho a, by definition."""
    return lambda orders: fields["xi"] + fields["rho"] * orders


def _tree(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """One record is in as many nodes as the deepest tree has levels."""
    steps = fields["step_counts"]
    deepest = max(steps) if isinstance(steps, tuple | list) else steps
    noise = fields["noise_multiplier"] / math.sqrt(int(deepest).bit_length())
    return functools.partial(renyi.gaussian, noise_multiplier=noise)


def _wor_gaussian(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """dp-accounting's curve (arXiv:1808.00087, Theorem 27) at half the noise."""
    rate = fields["batch_size"] / fields["dataset_size"]
    noise = fields["noise_multiplier"] / shift(relation)
    if rate == 1:
        return functools.partial(renyi.gaussian, noise_multiplier=noise)
    values = _wor_values(fields["batch_size"], fields["dataset_size"], noise)
    return Table(np.array(_WOR_ORDERS, dtype=float), np.array(values))


@functools.lru_cache(maxsize=32)
def _wor_values(batch_size: int, dataset_size: int, noise: float) -> tuple[float, ...]:
    """Values at `_WOR_ORDERS`, padded for the cancellation in their differences."""
    event = dp.SampledWithoutReplacementDpEvent(
        dataset_size, batch_size, dp.GaussianDpEvent(noise)
    )
    accountant = dp_rdp.RdpAccountant(_WOR_ORDERS, dp.NeighboringRelation.REPLACE_ONE)
    with np.errstate(all="ignore"):
        accountant.compose(event)
    values = np.maximum(accountant._rdp, 0.0)  # there is no public way to the curve
    orders = np.array(_WOR_ORDERS, dtype=float)
    growth = np.exp(
        np.minimum(
            orders * math.log1p(2 * event.sample_size / event.source_dataset_size), 600
        )
    )
    pad = np.where(orders <= 256, 1e-14 * growth / (orders - 1), 0.0)
    return tuple(float(v) for v in values * (1 + 1e-9) + pad)


def _random_allocation(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """The sum of its parts, each at most as if the record's step were known."""
    event = fields["event"]
    terms: list[tuple[Curve, int]] = []
    for noise, steps, last_steps, count in allocation.parts(event):
        gaussian = functools.partial(renyi.gaussian, noise_multiplier=noise)
        if steps == 1:
            terms.append((gaussian, count))
            continue
        values = allocation_rdp.values(noise, steps, last_steps or steps)
        table = Table(allocation_rdp.orders(noise, steps), values)
        terms.append((_smaller(table, gaussian), count))
    return sum_of(terms)


def _smaller(first: Curve, second: Curve) -> Curve:
    """Of two valid curves, what each order does better with."""
    return lambda orders: np.minimum(first(orders), second(orders))


def _parallel(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """The worst child at each order."""
    curves = [composed(child, relation)[0] for child in fields["event"].children]
    return lambda orders: np.max([curve(orders) for curve in curves], axis=0)


def _repeat_and_select(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """dp-accounting's formulas (arXiv:2110.03620) on a fixed table of orders."""
    curve, _ = composed(fields["event"].event, relation)
    select: Any = dp_rdp._compute_rdp_repeat_and_select  # there is no public one
    with np.errstate(all="ignore"):
        values = select(
            _SELECT_ORDERS, curve(_SELECT_ORDERS), fields["mean"], fields["shape"]
        )
    return Table(_SELECT_ORDERS, np.maximum(np.asarray(values, dtype=float), 0.0))


def _non_private(fields: Mapping[str, Any], relation: Relation) -> Curve:
    """No guarantee at any order."""
    return lambda orders: np.full(orders.shape, np.inf)


_ADVICE = {
    "truncated_poisson_gaussian": "its correction depends on epsilon: it has no Rényi "
    "curve; ask for epsilon at delta, or use accountant='pld'",
    "metric_local_pure": "metric privacy is reported apart and never added",
}
_CURVES: dict[str, Callable[[Mapping[str, Any], Relation], Curve]] = {
    "gaussian": _gaussian,
    "poisson_gaussian": _poisson_gaussian,
    "wor_gaussian": _wor_gaussian,
    "laplace": _laplace,
    "poisson_laplace": _poisson_laplace,
    "discrete_gaussian": _discrete_gaussian,
    "discrete_laplace": _discrete_laplace,
    "randomized_response": _randomized_response,
    "mixture_gaussian": _mixture_gaussian,
    "random_allocation": _random_allocation,
    "pmf_pair": _pmf_pair,
    "rdp_curve": _rdp_curve,
    "approx_dp": _approx_dp,
    "zcdp": _zcdp,
    "tree": _tree,
    "pure": _pure,
    "bounded_range": _bounded_range,
    "parallel": _parallel,
    "repeat_and_select": _repeat_and_select,
    "non_private": _non_private,
}
