"""Laplace noise on real numbers, sampled or not."""

import functools

import numpy as np

from dpkit.accountants.pairs import curve as renyi
from dpkit.accountants.pairs import noise, points
from dpkit.accountants.pairs.curve import Curve
from dpkit.accountants.pairs.laws.base import Law
from dpkit.accountants.pairs.points import Points, sampled_loss
from dpkit.accountants.pairs.profiles import Profile

_PAD = 1 + 1e-13
_TINY = 5e-324


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

    def guarantee(self) -> tuple[float, float]:
        """Shift over scale."""
        return self.radii / self.fields["scale"] * _PAD, 0.0


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

    def guarantee(self) -> tuple[float, float]:
        """log(1 + q (e^(1/b) - 1)), amplification of pure privacy by sampling."""
        scale, rate = self.fields.values()
        loss = float(sampled_loss(np.array([1 / scale]), rate)[0])
        return max(loss * _PAD, _TINY), 0.0
