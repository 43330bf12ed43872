"""Gaussian noise, sampled or not, under random shifts, on integers; Laplace noise."""

import functools
import math

import dp_accounting as dp
import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers.exact import ZERO, Number, at_least, exact, shortened
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.pairs import borrowed, finite, noise, points, profiles
from dpkit.accountants.pairs import curve as renyi
from dpkit.accountants.pairs.curve import Curve
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.pairs.laws.base import Law
from dpkit.accountants.pairs.points import Points, SampledGaussian, sampled_loss
from dpkit.accountants.pairs.profiles import Profile

_WIDEST, _FARTHEST = 1e5, 10**6
_PAD = 1 + 1e-13
_TINY = 5e-324


class Noisy(Law):
    """Gaussian noise on what may be sampled, moved by one radius or two."""

    @property
    def noise(self) -> float:
        """In what one record moves."""
        return self.fields["noise_multiplier"] / self.radii

    def shift(self) -> float:
        """As if the record were known to be there."""
        return self.radii / self.fields["noise_multiplier"]


class Gaussian(Noisy, kinds=("gaussian",)):
    """Without sampling; compositions merge several into one beforehand."""

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """The closed form."""
        return [(noise.gaussian(self.noise), 1)]

    def curve(self) -> Curve:
        """The closed form."""
        return functools.partial(renyi.gaussian, noise_multiplier=self.noise)

    def points(self) -> Points:
        """A mixture of one."""
        one = np.ones(1)
        return functools.partial(points.mixture, self.noise, one, one)


class PoissonGaussian(Noisy, kinds=("poisson_gaussian",)):
    """Each record by itself; replaced, the two values pull both ways."""

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """Both directions exactly."""
        replaced = self.relation is Relation.REPLACE_ONE
        make = noise.poisson_gaussian_replaced if replaced else noise.poisson_gaussian
        return [(make(*self.fields.values()), 1)]

    def curve(self) -> Curve:
        """Removing is never better than adding (Mironov et al. 2019, Theorem 5)."""
        found = self.points()
        if not isinstance(found, SampledGaussian):
            return renyi.OfPoints(found, symmetric=True)
        return functools.partial(renyi.sampled_gaussian, **found._asdict())

    def points(self) -> SampledGaussian | Points:
        """Found many at once, unless replaced."""
        pair = SampledGaussian(*self.fields.values())
        if self.relation is Relation.REPLACE_ONE:
            return functools.partial(points.sampled_gaussian_replaced, *pair)
        return pair

    def limit(self) -> float | None:
        """q sqrt(e^(1/s^2) - 1) (Bu et al. 2019, arXiv:1911.11607); not replaced."""
        if self.relation is Relation.REPLACE_ONE:
            return None
        sd, rate = self.fields.values()
        exponent = sd**-2.0
        return rate * math.sqrt(math.expm1(exponent)) if exponent < 700 else math.inf


class TruncatedPoissonGaussian(Law, kinds=("truncated_poisson_gaussian",)):
    """A kind of its own, not plain Poisson sampling."""

    def lacks(self, view: str) -> str:
        """No curve, for another reason than most; no pair of its own if replaced."""
        if view == "curve":
            return "its correction depends on epsilon: ask for epsilon at delta"
        if view == "profiles" and self.relation is Relation.REPLACE_ONE:
            return "its pair is not known where a record is replaced"
        return super().lacks(view)

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """Read as it is but for `free_delta`."""
        pair = noise.truncated_poisson_gaussian(**self.fields, free_delta=free_delta)
        return [(pair, 1)]

    def unlimited(self) -> tuple[list[tuple[DpEvent, int]], float]:
        """Plain Poisson sampling."""
        noise_multiplier, rate, records, limit = self.fields.values()
        plain: DpEvent = dp.GaussianDpEvent(noise_multiplier)
        if rate < 1:
            plain = dp.PoissonSampledDpEvent(rate, plain)
        return [(plain, 1)], noise.overflow_probability(records, rate, limit)


class WithoutReplacement(Noisy, kinds=("wor_gaussian",)):
    """A batch of fixed size, one record replaced."""

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """By joint convexity, from above."""
        rate = self.fields["batch_size"] / self.fields["dataset_size"]
        return [(noise.without_replacement(self.noise, rate), 1)]

    def curve(self) -> Curve:
        """dp-accounting's curve (arXiv:1808.00087, Theorem 27) at half the noise."""
        _, batch, records = self.fields.values()
        if batch == records:
            return functools.partial(renyi.gaussian, noise_multiplier=self.noise)
        return borrowed.without_replacement(batch, records, self.noise)


class MixtureOfGaussians(Law, kinds=("mixture_gaussian",)):
    """A random shift, as of a user with several records."""

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """Both directions exactly."""
        return [(noise.mixture_gaussian(**self.fields), 1)]

    def curve(self) -> Curve:
        """The worse of both directions."""
        return renyi.OfPoints(self.points())

    def points(self) -> Points:
        """By the trapezoid rule."""
        noise_multiplier, *pair = self.fields.values()
        shifts, weights = (np.array(values, dtype=float) for values in pair)
        return functools.partial(points.mixture, noise_multiplier, shifts, weights)

    def shift(self) -> float:
        """The largest that can happen."""
        noise_multiplier, *pair = self.fields.values()
        farthest = max(moved for moved, weight in zip(*pair, strict=True) if weight > 0)
        return farthest / noise_multiplier

    @property
    def trivial(self) -> bool:
        """Whether nothing is ever moved."""
        return self.shift() == 0


class Tree(Law, kinds=("tree",)):
    """One record is in as many nodes as the deepest tree has levels."""

    def concentration(self) -> tuple[float, float]:
        """That of one Gaussian."""
        steps = self.fields["step_counts"]
        deepest = max(steps) if isinstance(steps, tuple | list) else steps
        levels = int(deepest).bit_length()
        return 0.0, 0.5 * levels * self.fields["noise_multiplier"] ** -2.0

    def curve(self) -> Curve:
        """That of one Gaussian."""
        sd = (2 * self.concentration()[1]) ** -0.5
        return functools.partial(renyi.gaussian, noise_multiplier=sd)


class DiscreteGaussian(Law, kinds=("discrete_gaussian",)):
    """Concentrated like the continuous one (arXiv:2004.00010, Theorem 4)."""

    def lacks(self, view: str) -> str:
        """No pair where its support is too wide to be listed."""
        wide = self.fields["stddev"] > _WIDEST
        far = self.fields["sensitivity"] * self.radii > _FARTHEST
        if view in ("profiles", "points") and (wide or far):
            return f"its stddev is above {_WIDEST:g} or it moves by over {_FARTHEST:g}"
        return super().lacks(view)

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """Those of its masses."""
        return [(profiles.finite(self.points()), 1)]

    def points(self) -> FinitePair:
        """Its masses, cut far out."""
        self.check("points")
        stddev, moved = self.fields.values()
        return finite.discrete_gaussian(stddev, moved * self.radii)

    def concentration(self) -> tuple[float, float]:
        """rho = sensitivity^2 / 2 stddev^2."""
        moved = self.radii * self.fields["sensitivity"] / self.fields["stddev"]
        return 0.0, 0.5 * moved**2

    def curve(self) -> Curve:
        """That of the continuous Gaussian."""
        sd = self.fields["stddev"] / (self.fields["sensitivity"] * self.radii)
        return functools.partial(renyi.gaussian, noise_multiplier=sd)


class Laplace(Law, kinds=("laplace",)):
    """Moved by one radius or two."""

    @property
    def _scale(self) -> float:
        return self.fields["scale"] / self.radii

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """The closed form."""
        return [(noise.laplace(self._scale), 1)]

    def curve(self) -> Curve:
        """The closed form."""
        return functools.partial(renyi.laplace, scale=self._scale)

    def points(self) -> Points:
        """Atoms at both ends, and what is between them."""
        return functools.partial(points.sampled_laplace, self._scale, 1.0)

    def guarantee(self) -> tuple[Number, Number]:
        """Shift over scale."""
        return shortened(exact(self.radii) / exact(self.fields["scale"])), ZERO


class PoissonLaplace(Law, kinds=("poisson_laplace",)):
    """Each record by itself."""

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """Both directions exactly."""
        return [(noise.poisson_laplace(*self.fields.values()), 1)]

    def curve(self) -> Curve:
        """The worse of both directions."""
        scale, rate = self.fields.values()
        return functools.partial(renyi.poisson_laplace, scale=scale, rate=rate)

    def points(self) -> Points:
        """Atoms at both ends, and what is between them."""
        return functools.partial(points.sampled_laplace, *self.fields.values())

    def guarantee(self) -> tuple[Number, Number]:
        """log(1 + q (e^(1/b) - 1)), amplification of pure privacy by sampling."""
        scale, rate = self.fields.values()
        loss = float(sampled_loss(np.array([1 / scale]), rate)[0])
        return at_least(max(loss * _PAD, _TINY)), ZERO
