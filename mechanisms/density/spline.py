r"""Kernel sums on a grid of B-splines: the least noise for up to three dimensions.

Every point is spread over the (r + 1)^d grid nodes around it by a tensor product of
B-splines of degree r, weights that are not negative and sum to 1. The nodes' sums H are
published with noise, all nodes that the domain can reach, occupied or not. For a smooth
kernel, S(y) = sum_i c_i(y) H_i, where c(y) are the B-spline coefficients of k(., y).

The weights' L2 norm is at most s_r^d, s_r being the norm of the B-spline's values at
whole numbers (s_5 = .6297). Since weights are not negative, a replaced point moves H by
at most sqrt(2) s_r^d. Noise on an answer is below 1.1 noise_multiplier an axis at half
a bandwidth a step.

Sources: Unser, "Splines: a perfect fit for signal and image processing", 1999, for the
coefficients; the structure and its bounds are derived here.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import interpolate, ndimage

from dpkit.accountants.answers import checks
from dpkit.mechanisms.density.domains import Domain, checked_domain
from dpkit.mechanisms.density.grid_noise import Noise, Reach
from dpkit.mechanisms.density.kernels import Kernel
from dpkit.mechanisms.density.structure import Answers, Structure
from dpkit.mechanisms.protocol import static

MOST_NODES = 2**22
SPACINGS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
# Steps past the nodes at which the kernel is read too, for the coefficients; the poles
# of degree 5 are below .431, and .431^24 < 2e-9.
_MARGIN = 24


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class SplineGrid(Structure):
    r"""Noisy weights on a grid of B-splines; answers are sums of k(x, y) over x.

    Privacy: a point moves the weights by at most 1 in L1 and s_r^d in L2, a replaced
    one by 2 and sqrt(2) s_r^d. Points outside the domain count at its edge.

    Args:
      kernel: which, and its bandwidth. A kernel with a cusp has a large bias.
      domain: public; low and high of every axis, at most 4.
      spacing: of the nodes, in bandwidths; see `spacing_for`.
      degree: r, from 1 to 5.

    Raises:
      ValueError, TypeError: a field out of range; more than 4,194,304 nodes.

    Example:
      >>> from dpkit.mechanisms.density.grid_noise import Gaussian
      >>> grid = SplineGrid(kernel=Kernel("gaussian", 1.0), domain=((0, 9), (0, 9)),
      ...                   noise=Gaussian(4.0))
      >>> grid.shape, grid.event("add_remove")
      ((24, 24), GaussianDpEvent(noise_multiplier=4.0))
    """

    kernel: Kernel
    domain: Domain
    spacing: float = 0.5
    degree: int = 5

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel={self.kernel!r}: needed a Kernel")
        object.__setattr__(self, "domain", checked_domain(self.domain))
        checks.positive(spacing=self.spacing)
        if checks.integer_at_least(1, degree=self.degree) > 5:
            raise ValueError(f"degree={self.degree}: needed one from 1 to 5")
        if len(self.domain) > 4:
            raise ValueError(
                f"domain has {len(self.domain)} axes: needed at most 4 for a grid; use "
                "a KernelSketch"
            )
        if self.size > MOST_NODES:
            raise ValueError(
                f"domain={self.domain}: a grid of {self.size:,} nodes at "
                f"bandwidth={self.kernel.bandwidth}; needed at most {MOST_NODES:,}: "
                "use a larger bandwidth, or a KernelSketch"
            )
        super().__post_init__()

    @property
    def dimension(self) -> int:
        """d: how many coordinates a point has."""
        return len(self.domain)

    @property
    def unit(self) -> float:
        """The distance of two nodes, in the unit of the points."""
        return self.spacing * self.kernel.bandwidth

    @functools.cached_property
    def extent(self) -> np.ndarray:
        """The last place on every axis, in steps, as float32 has it."""
        return np.array([(b - a) / self.unit for a, b in self.domain], np.float32)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """How many nodes each axis has."""
        last = np.floor(self.extent + self._shift)
        return tuple(int(n) + self.degree + 1 for n in last)

    @property
    def _shift(self) -> float:
        """Half a step where the degree is even: nodes then stand amid their splines."""
        return 0.0 if self.degree % 2 else 0.5

    @property
    def first(self) -> int:
        """The first node, in steps from the domain's lower edge."""
        return -(self.degree // 2)

    @property
    def size(self) -> int:
        """All nodes."""
        return math.prod(self.shape)

    @property
    def active(self) -> int:
        """The nodes around one point."""
        return (self.degree + 1) ** self.dimension

    def point_reach(self) -> Reach:
        """1 in L1 and s_r^d in L2; two points of nothing in common are replaced."""
        l2 = float(np.linalg.norm(_at_integers(self.degree))) ** self.dimension
        return Reach(l2, 1.0, math.sqrt(2) * l2, 2.0)

    def placed(self, points: Any) -> Any:
        """Steps from the domain's lower edge, within the domain."""
        low = np.array([[a for a, _ in self.domain]], points.dtype)
        last = self.extent[None].astype(points.dtype)
        return ((points - low) / self.unit).clip(0, last)

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """The nodes around points, by number, and their weights."""
        del labels
        start, weights = self._weights(jnp.clip(placed, 0, self.extent[None]))
        index = jnp.zeros((len(placed), 1), jnp.int32)
        value = jnp.ones((len(placed), 1), jnp.float32)
        around = jnp.arange(self.degree + 1)
        for axis, nodes in enumerate(self.shape):
            along = start[:, axis, None] + around[None]
            index = index[:, :, None] * nodes + along[:, None, :]
            value = value[:, :, None] * weights[:, axis][:, None, :]
            index = index.reshape(len(placed), -1)
            value = value.reshape(len(placed), -1)
        return index, (value,)

    def _weights(self, placed: Any) -> tuple[Any, Any]:
        """The first node around each coordinate, and the weights from there on.

        B_k(t) = (t B_(k-1)(t) + (k + 1 - t) B_(k-1)(t - 1)) / k at t = f, f + 1, …
        """
        moved = placed + self._shift
        start = jnp.floor(moved)
        f = moved - start
        values = [jnp.ones_like(f)]
        for k in range(1, self.degree + 1):
            before = [jnp.zeros_like(f), *values, jnp.zeros_like(f)]
            values = [
                ((f + j) * before[j + 1] + (k + 1 - f - j) * before[j]) / k
                for j in range(k + 1)
            ]
        # Node i has B(t - i): the further the node, the smaller the argument.
        return start.astype(jnp.int32), jnp.stack(values[::-1], axis=-1)

    def coefficients(self, queries: np.ndarray) -> list[np.ndarray] | np.ndarray:
        """c(y): for each axis (q, nodes) where the kernel factors, else (q, *shape)."""
        places = self.places(queries)
        if self.kernel.factors:
            line = Kernel(self.kernel.name, 1.0)
            return [self._along(line.of(place[..., None]), 1) for place in places]
        grid = np.zeros((len(queries), *(place.shape[1] for place in places)))
        by_l1 = self.kernel.name == "rational_l1"
        for axis, place in enumerate(places):
            shape = [len(queries)] + [1] * self.dimension
            shape[axis + 1] = place.shape[1]
            grid += (np.abs(place) if by_l1 else place**2).reshape(shape)
        values = self.kernel.by_distance(grid)
        for axis in range(1, self.dimension + 1):
            values = self._along(values, axis)
        return values

    def places(self, queries: np.ndarray) -> list[np.ndarray]:
        """Nodes' distances from queries along every axis, in bandwidths, and past."""
        found = []
        for axis, nodes in enumerate(self.shape):
            number = np.arange(-_MARGIN, nodes + _MARGIN) + self.first
            at = (queries[:, axis] - self.domain[axis][0]) / self.unit
            found.append((number - at[:, None]) * self.spacing)
        return found

    def _along(self, values: np.ndarray, axis: int) -> np.ndarray:
        """B-spline coefficients along an axis, the margin cut off."""
        if self.degree > 1:
            values = ndimage.spline_filter1d(values, self.degree, axis)
        inner = [slice(None)] * values.ndim
        inner[axis] = slice(_MARGIN, -_MARGIN)
        return values[tuple(inner)]

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """The kernel's coefficients times the weights."""
        some = max(1, MOST_NODES // 4 // max(self.size, 1))
        if len(queries) > some and not self.kernel.factors:
            parts = [
                self.answer(values, queries[start : start + some])
                for start in range(0, len(queries), some)
            ]
            return Answers(*(np.concatenate(p) for p in zip(*parts, strict=True)))
        found = self.coefficients(queries)
        if isinstance(found, list):
            answers = along_axes(values.reshape(self.shape), found)
            above = [self.above(place) for place in self.places(queries)]
            norms = np.prod([np.linalg.norm(c, axis=1) for c in found], axis=0)
        else:
            flat = found.reshape(len(queries), -1)
            answers, norms = flat @ values, np.linalg.norm(flat, axis=1)
            above = []
        return Answers(answers, self.bar * norms, self.bias(values, found, above))

    def bias(
        self,
        values: np.ndarray,
        found: list[np.ndarray] | np.ndarray,
        above: list[np.ndarray],
    ) -> np.ndarray:
        """What interpolation is off by at most, from how many points are about.

        For a product, the error is a sum over axes: one axis is off, the others are at
        most c + 2 b; b is the least spline above the error at every distance.

        Args:
          values: (size,). found: coefficients, by axis or all together.
          above: b by axis, or zeros where an axis is not off.
        """
        if not isinstance(found, list):
            count = max(self.count_answer(values).high[0] / self.max_weight, 0.0)
            return np.full(len(found), count * self.interpolation_error)
        values, bound = values.reshape(self.shape), np.zeros(len(found[0]))
        for axis in range(self.dimension):
            parts = [
                above[j] if j == axis else np.abs(c + 2 * above[j])
                for j, c in enumerate(found)
            ]
            norms = np.prod([np.linalg.norm(part, axis=1) for part in parts], axis=0)
            bound += along_axes(values, parts) + 2 * self.stddev * norms
        return np.maximum(bound, 0.0)

    def above(self, place: np.ndarray) -> np.ndarray:
        """Coefficients of a spline above the line's error, whatever the point.

        Weights around a point sum to 1 and reach (r + 1) / 2 nodes: so each is the
        worst error as far from it as that.
        """
        errors = _line_errors(self.kernel.name, self.spacing, self.degree)
        inner = np.abs(place[:, _MARGIN:-_MARGIN]) / self.spacing
        near = np.maximum(inner - (self.degree + 1) / 2, 0.0)
        return errors[np.minimum(near.astype(int), len(errors) - 1)]

    def count_answer(self, values: np.ndarray) -> Answers:
        """How many points there are: all weights together."""
        stddev = np.array([self.bar * math.sqrt(self.size)])
        return Answers(values.sum(keepdims=True), stddev, np.zeros(1)).times(
            self.max_weight
        )

    @functools.cached_property
    def interpolation_error(self) -> float:
        """What the kernel's spline is off by at most, at any two points.

        Found on a line, and for d axes from that: each axis adds as much, stretched by
        the others' interpolation, by less than 2 each.
        """
        worst = _line_errors(self.kernel.name, self.spacing, self.degree)[0]
        stretch = 1 + worst if self.kernel.factors else 2.0
        return self.dimension * worst * stretch ** (self.dimension - 1)

    def expected_error(self, records: float) -> float:
        """Noise amid the domain, and what interpolation is off by."""
        middle = [
            [(a + b) / 2 + shift * self.unit for a, b in self.domain]
            for shift in (0.0, 0.25, 0.5)
        ]
        found = self.coefficients(np.array(middle))
        if isinstance(found, list):
            norms = np.prod([np.linalg.norm(c, axis=1) for c in found], axis=0)
        else:
            norms = np.linalg.norm(found.reshape(3, -1), axis=1)
        noise = self.stddev * math.sqrt(float(np.mean(norms**2)))
        # Errors of points in different places alternate in sign, and mostly cancel; and
        # of evenly spread records a query is near so many.
        sides = (high - low for low, high in self.domain)
        near = math.prod(min(1.0, 1.8 * self.kernel.bandwidth / x) for x in sides)
        bias = records * near * self.interpolation_error / 8
        return self.max_weight * math.hypot(noise, bias)


def along_axes(values: np.ndarray, factors: list[np.ndarray]) -> np.ndarray:
    """sum_ij… values_ij… a_qi b_qj … for every q."""
    result = np.tensordot(factors[0], values, (1, 0))
    for factor in factors[1:]:
        result = np.einsum("qi...,qi->q...", result, factor)
    return result


def spacing_for(
    kernel: Kernel, domain: Domain, noise: Noise, records: float, degree: int = 5
) -> float:
    """The spacing of nodes, from a list, with the least error to be expected.

    Wide steps have little noise and much bias. All of it is public.

    Args:
      records: about how many records; public.

    Raises:
      ValueError: every grid has too many nodes.
    """
    best, refusal = (math.inf, 0.0), None
    for spacing in SPACINGS:
        try:
            grid = SplineGrid(
                kernel=kernel,
                domain=domain,
                spacing=spacing,
                degree=degree,
                noise=noise,
            )
        except ValueError as error:
            refusal = error
            continue
        best = min(best, (grid.expected_error(records), spacing))
    if not best[1]:
        raise refusal or ValueError("no grid")
    return best[1]


def _at_integers(degree: int) -> np.ndarray:
    """The B-spline's values at whole numbers, or amid them: where its norm is largest.

    The norm of shifted values is largest where a node is, for odd and even degrees.
    """
    spline = interpolate.BSpline.basis_element(
        np.arange(degree + 2) - (degree + 1) / 2, extrapolate=False
    )
    at = np.arange(-(degree + 1), degree + 2).astype(float)
    return np.nan_to_num(spline(at))


@functools.lru_cache(maxsize=256)
def _line_errors(name: str, spacing: float, degree: int) -> np.ndarray:
    """The largest error of a kernel's spline on a line, as far away as so many steps.

    On a mesh of 32 points a step, for 17 places of the centre between nodes.
    """
    kernel = Kernel(name, 1.0)
    nodes = np.arange(-6 * _MARGIN, 6 * _MARGIN + 1)
    fine = np.arange(-2 * _MARGIN * 32, 2 * _MARGIN * 32 + 1) / 32
    worst = np.zeros(2 * _MARGIN)
    for offset in np.linspace(0, 0.5, 17):
        values = kernel.of((nodes[:, None] - offset) * spacing)
        spline = interpolate.make_interp_spline(nodes, values, k=degree)
        error = np.abs(spline(fine) - kernel.of((fine[:, None] - offset) * spacing))
        distance = np.minimum(np.abs(fine - offset).astype(int), len(worst) - 1)
        np.maximum.at(worst, distance, error)
    # As far away or further.
    return 1.05 * np.maximum.accumulate(worst[::-1])[::-1] + 2**-21


def nodes_of(grid: SplineGrid) -> list[np.ndarray]:
    """Where the nodes stand on each axis, in the unit of the points."""
    return [
        low + grid.unit * (np.arange(count) + grid.first)
        for (low, _), count in zip(grid.domain, grid.shape, strict=True)
    ]


def corners(domain: Domain) -> list[tuple[float, ...]]:
    """The corners of a domain."""
    return list(itertools.product(*domain))
