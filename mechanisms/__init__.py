"""How privacy is bought: small pure releases in JAX, each with its event."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpkit.mechanisms._clip import Clip
    from dpkit.mechanisms.adaptive import AdaptiveGaussianSum
    from dpkit.mechanisms.balls_in_bins import BallsInBinsSampler
    from dpkit.mechanisms.changing import ChangingSum, PiecewiseSampler
    from dpkit.mechanisms.clipped_sum import ClippedSum
    from dpkit.mechanisms.clipping import (
        GaussianSum,
        clip_factor,
        clip_record,
        global_norm,
    )
    from dpkit.mechanisms.clips import PSAC, AutoS, Custom, Flat, HardDrop, Unit
    from dpkit.mechanisms.correlated import (
        CorrelatedState,
        CorrelatedSum,
        participation_of,
    )
    from dpkit.mechanisms.cyclic import CyclicSampler
    from dpkit.mechanisms.device_sampling import device_draw
    from dpkit.mechanisms.factorisation import (
        Cyclic,
        MinSeparation,
        SinglePass,
        matrix_sensitivity,
        prefix_error,
        sensitivity,
        square_root_coefficients,
    )
    from dpkit.mechanisms.fixed_size import FixedSizeSampler
    from dpkit.mechanisms.full_batch import FullBatchSampler
    from dpkit.mechanisms.grouping import PerGroup
    from dpkit.mechanisms.noise import chacha_key, gaussian_noise, host_generator
    from dpkit.mechanisms.protocol import BoundedSum, Mechanism, run
    from dpkit.mechanisms.sampler import Batch, Sampler
    from dpkit.mechanisms.sampling import PoissonSampler, choose_max_batch_size
    from dpkit.mechanisms.strategies import (
        Banded,
        Buffered,
        SquareRoot,
        optimal_bands,
        optimal_buffers,
    )
    from dpkit.mechanisms.stream import Stream

__all__ = [
    "PSAC",
    "AdaptiveGaussianSum",
    "AutoS",
    "BallsInBinsSampler",
    "Banded",
    "Batch",
    "BoundedSum",
    "Buffered",
    "ChangingSum",
    "Clip",
    "ClippedSum",
    "CorrelatedState",
    "CorrelatedSum",
    "Custom",
    "Cyclic",
    "CyclicSampler",
    "FixedSizeSampler",
    "Flat",
    "FullBatchSampler",
    "GaussianSum",
    "HardDrop",
    "Mechanism",
    "MinSeparation",
    "PerGroup",
    "PiecewiseSampler",
    "PoissonSampler",
    "Sampler",
    "SinglePass",
    "SquareRoot",
    "Stream",
    "Unit",
    "chacha_key",
    "choose_max_batch_size",
    "clip_factor",
    "clip_record",
    "device_draw",
    "gaussian_noise",
    "global_norm",
    "host_generator",
    "matrix_sensitivity",
    "optimal_bands",
    "optimal_buffers",
    "participation_of",
    "prefix_error",
    "run",
    "sensitivity",
    "square_root_coefficients",
]

_MODULES = {
    "AdaptiveGaussianSum": "adaptive",
    "AutoS": "clips",
    "BallsInBinsSampler": "balls_in_bins",
    "Banded": "strategies",
    "Batch": "sampler",
    "BoundedSum": "protocol",
    "Buffered": "strategies",
    "ChangingSum": "changing",
    "Clip": "_clip",
    "ClippedSum": "clipped_sum",
    "CorrelatedState": "correlated",
    "CorrelatedSum": "correlated",
    "Custom": "clips",
    "Cyclic": "factorisation",
    "CyclicSampler": "cyclic",
    "FixedSizeSampler": "fixed_size",
    "Flat": "clips",
    "FullBatchSampler": "full_batch",
    "GaussianSum": "clipping",
    "HardDrop": "clips",
    "Mechanism": "protocol",
    "MinSeparation": "factorisation",
    "PSAC": "clips",
    "PerGroup": "grouping",
    "PiecewiseSampler": "changing",
    "PoissonSampler": "sampling",
    "Sampler": "sampler",
    "SinglePass": "factorisation",
    "SquareRoot": "strategies",
    "Stream": "stream",
    "Unit": "clips",
    "chacha_key": "noise",
    "choose_max_batch_size": "sampling",
    "clip_factor": "clipping",
    "clip_record": "clipping",
    "device_draw": "device_sampling",
    "gaussian_noise": "noise",
    "global_norm": "clipping",
    "host_generator": "noise",
    "matrix_sensitivity": "factorisation",
    "optimal_bands": "strategies",
    "optimal_buffers": "strategies",
    "participation_of": "correlated",
    "prefix_error": "factorisation",
    "run": "protocol",
    "sensitivity": "factorisation",
    "square_root_coefficients": "factorisation",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
