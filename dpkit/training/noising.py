"""Which stream noises the sums of a run, by the words that people use for it.

Independent noise in every step, with a fixed clip norm or one that follows a quantile
of the norms; or noise that is correlated over steps, for batches in which everybody
takes part in a known number of steps.
"""

from __future__ import annotations

import dataclasses

from dpkit.accountants.answers import checks
from dpkit.mechanisms.adaptive import AdaptiveGaussianSum, bit_noise
from dpkit.mechanisms.clipping import GaussianSum
from dpkit.mechanisms.clips import Clip
from dpkit.mechanisms.correlated import CorrelatedSum, participation_of
from dpkit.mechanisms.factorisation import Cyclic, Participation
from dpkit.mechanisms.sampler import Sampler
from dpkit.mechanisms.strategies import (
    SquareRoot,
    Strategy,
    optimal_bands,
    optimal_buffers,
)
from dpkit.mechanisms.stream import Stream

NOISES = ("independent", "banded", "square_root", "buffered")
_BUFFERS = 4
_MOST_BANDS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noising:
    """How sums are clipped and noised, apart from the numbers that may change.

    Args:
      clip: a clipping function instead of a clip norm.
      quantile: in (0, 1): the clip norm follows this quantile of the norms.
      noise: "independent", or correlated over steps: "banded", "square_root" or
        "buffered".
      bands: of "banded"; default: the steps between two uses of a record, 32 at most.

    Raises:
      ValueError: an unknown word, or settings that mean nothing together.

    Example:
      >>> Noising(noise="independent").correlated
      False
    """

    clip: Clip | None = None
    quantile: float | None = None
    noise: str = "independent"
    bands: int | None = None

    def __post_init__(self) -> None:
        """Refuses settings that mean nothing together."""
        checks.one_of(NOISES, noise=self.noise)
        if self.quantile is not None:
            checks.open_probability(quantile=self.quantile)
            if self.clip is not None or self.correlated:
                raise ValueError(
                    f"quantile={self.quantile!r} moves the clip norm of flat clipping "
                    "with independent noise: leave it out, or the other two"
                )
        if self.bands is not None and self.noise != "banded":
            raise ValueError(
                f"bands={self.bands!r} means nothing with noise={self.noise!r}: drop it"
            )

    @property
    def correlated(self) -> bool:
        """Whether the noise of one step depends on that of others."""
        return self.noise != "independent"

    def stream(
        self,
        clip_norm: float | None,
        noise_multiplier: float,
        *,
        sampler: Sampler,
        steps: int,
        expected_batch_size: float,
    ) -> Stream:
        """What noises a run, or a piece of one.

        Args:
          clip_norm: C, or None where there is a clip.
          noise_multiplier: sigma.
          sampler: makes the batches; says in which steps a record can be.
          steps: of the run.
          expected_batch_size: b.
        """
        slots = sampler.max_batch_size
        if self.quantile is not None:
            return AdaptiveGaussianSum(
                clip_norm=clip_norm,
                noise_multiplier=noise_multiplier,
                bit_noise=bit_noise(noise_multiplier, expected_batch_size),
                expected_batch_size=expected_batch_size,
                quantile=self.quantile,
                max_summands=slots,
            )
        if not self.correlated:
            return GaussianSum(clip_norm, noise_multiplier, slots, clip=self.clip)
        try:
            participation = participation_of(sampler, steps)
        except TypeError as error:
            raise ValueError(
                f"noise={self.noise!r} needs to know in how many steps a record can "
                f"be: use sampling='cyclic' ({error})"
            ) from None
        return CorrelatedSum(
            clip_norm,
            noise_multiplier,
            steps=steps,
            participation=participation,
            strategy=self._strategy(steps, participation),
            clip=self.clip,
            max_summands=slots,
        )

    def _strategy(self, steps: int, participation: Participation) -> Strategy:
        """The matrix, chosen from public sizes."""
        if self.noise == "square_root":
            return SquareRoot()
        if self.noise == "buffered":
            return optimal_buffers(steps, _BUFFERS, participation)
        bands = self.bands
        if bands is None:
            apart = participation.period if isinstance(participation, Cyclic) else steps
            bands = min(apart, steps, _MOST_BANDS)
        return optimal_bands(steps, bands, participation)
