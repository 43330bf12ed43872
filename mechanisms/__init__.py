"""How privacy is bought: small pure releases in JAX, each with its event."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpkit.mechanisms._clip import Clip
    from dpkit.mechanisms.clipping import (
        GaussianSum,
        clip_factor,
        clip_record,
        global_norm,
    )
    from dpkit.mechanisms.clips import PSAC, AutoS, Custom, Flat, HardDrop, Unit
    from dpkit.mechanisms.grouping import PerGroup
    from dpkit.mechanisms.noise import gaussian_noise, host_generator
    from dpkit.mechanisms.protocol import BoundedSum, Mechanism, Stream, run
    from dpkit.mechanisms.sampling import (
        Batch,
        PoissonSampler,
        choose_max_batch_size,
    )

__all__ = [
    "PSAC",
    "AutoS",
    "Batch",
    "BoundedSum",
    "Clip",
    "Custom",
    "Flat",
    "GaussianSum",
    "HardDrop",
    "Mechanism",
    "PerGroup",
    "PoissonSampler",
    "Stream",
    "Unit",
    "choose_max_batch_size",
    "clip_factor",
    "clip_record",
    "gaussian_noise",
    "global_norm",
    "host_generator",
    "run",
]

_MODULES = {
    "AutoS": "clips",
    "Batch": "sampling",
    "BoundedSum": "protocol",
    "Clip": "_clip",
    "Custom": "clips",
    "Flat": "clips",
    "GaussianSum": "clipping",
    "HardDrop": "clips",
    "Mechanism": "protocol",
    "PSAC": "clips",
    "PerGroup": "grouping",
    "PoissonSampler": "sampling",
    "Stream": "protocol",
    "Unit": "clips",
    "choose_max_batch_size": "sampling",
    "clip_factor": "clipping",
    "clip_record": "clipping",
    "gaussian_noise": "noise",
    "global_norm": "clipping",
    "host_generator": "noise",
    "run": "protocol",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
