"""Which mechanism noises the sums of a run, by the words that people use for it.

Independent noise in every step, with a fixed clip norm or one that follows a quantile
of the norms; or noise that is correlated over steps, for batches in which everybody
takes part in a known number of steps.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.mechanisms.adaptive import AdaptiveGaussianSum
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

NOISES = ("independent", "banded", "square_root", "buffered")
_BUFFERS = 4
_MOST_BANDS = 32
# The count of norms below the clip norm gets noise of b / 20: 1 % of more noise on the
# sum at most, where it is twice the noise of the sum or more.
_BIT_SHARE = 20.0


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

    def mechanism(
        self,
        clip_norm: float | None,
        noise_multiplier: float,
        *,
        sampler: Sampler,
        steps: int,
        expected_batch_size: float,
    ) -> Any:
        """The mechanism of a run, or of a piece of one.

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
            participation = participation_of(sampler, steps)  # type: ignore[arg-type]
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


def check_participation(mechanism: CorrelatedSum, sampler: Sampler, steps: int) -> None:
    """Refuses correlated noise that was made for other batches, or another run.

    Raises:
      ValueError: another number of steps, or a record in other steps than declared.
      TypeError: a sampler that bounds no record's number of steps.

    Example:
      >>> from dpkit.mechanisms import CyclicSampler, SinglePass
      >>> stream = CorrelatedSum(1.0, 1.0, steps=4, participation=SinglePass(),
      ...                        strategy=SquareRoot())
      >>> check_participation(stream, CyclicSampler(bins=4, max_records=8), 4)
    """
    if mechanism.steps != steps:
        raise ValueError(
            f"steps={steps}: the correlated noise is for {mechanism.steps} steps"
        )
    found = participation_of(sampler, steps)  # type: ignore[arg-type]
    if found != mechanism.participation:
        raise ValueError(
            f"mechanism is for participation={mechanism.participation}, the batches of "
            f"{sampler} have {found}, and only that is accepted: use create"
        )


def bit_noise(noise_multiplier: float, expected_batch_size: float) -> float:
    """The noise of the count that moves an adaptive clip norm.

    Example:
      >>> bit_noise(1.0, 2000.0)
      100.0
    """
    return max(expected_batch_size / _BIT_SHARE, 2 * noise_multiplier)


def renoised(mechanism: Any, noise_multiplier: float) -> Any:
    """The same mechanism with another noise multiplier.

    Example:
      >>> renoised(GaussianSum(1.0, 2.0), 3.0).noise_multiplier
      3.0
    """
    more = {}
    if isinstance(mechanism, AdaptiveGaussianSum):
        b = mechanism.expected_batch_size
        more = {"bit_noise": bit_noise(noise_multiplier, b)}
    return dataclasses.replace(mechanism, noise_multiplier=noise_multiplier, **more)


def noising_of(mechanism: Any) -> dict[str, Any]:
    """The words that a mechanism was made from, those at their defaults left out.

    Example:
      >>> noising_of(GaussianSum(1.0, 2.0))
      {}
    """
    if isinstance(mechanism, AdaptiveGaussianSum):
        return {"quantile": mechanism.quantile}
    if not isinstance(mechanism, CorrelatedSum):
        return {}
    if isinstance(mechanism.strategy, SquareRoot):
        return {"noise": "square_root"}
    bands = getattr(mechanism.strategy, "bands", None)
    if bands is None:
        return {"noise": "buffered"}
    return {"noise": "banded", "bands": len(bands)}
