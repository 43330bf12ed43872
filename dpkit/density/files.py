"""Released structures as one file: what is public, and nothing else.

The format is safetensors: named arrays, and JSON beside them. There is no code in it,
and no room for a key or a record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dpkit.mechanisms import density

VERSION = 1
_STRUCTURES = (
    "CdfDistances",
    "ClassSums",
    "HatDistances",
    "KernelSketch",
    "LandmarkSketch",
    "ProjectedDistances",
    "SplineGrid",
    "SquaredDistances",
)
_NOISES = {"gaussian": "noise_multiplier", "radial": "epsilon", "laplace": "epsilon"}


def write(
    path: Path, structure: density.Structure, values: np.ndarray, facts: dict[str, Any]
) -> None:
    """Writes a released structure; what was there is replaced.

    Raises:
      OSError: it can't be written.
    """
    path.write_bytes(content(structure, values, facts))


def content(
    structure: density.Structure, values: np.ndarray, facts: dict[str, Any]
) -> bytes:
    """What the file of a released structure holds."""
    arrays: dict[str, np.ndarray] = {"values": values}
    told = {
        "version": VERSION,
        "structure": _described(structure, arrays),
        "facts": facts,
    }
    text = json.dumps(told, allow_nan=False, sort_keys=True)
    return save(arrays, metadata={"dpkit_density": text})


def read(path: str | Path) -> tuple[density.Structure, np.ndarray, dict[str, Any]]:
    """What `write` wrote.

    Raises:
      ValueError: no such file of ours; a newer version.
      OSError: it can't be read.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            told = json.loads((file.metadata() or {})["dpkit_density"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        version = told["version"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no released structure ({error})") from None
    if version != VERSION:
        raise ValueError(f"{path} is of version {version}: this dpkit reads {VERSION}")
    try:
        structure, values = _made(told["structure"], arrays), arrays["values"]
        size, facts = structure.size, dict(told["facts"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    if values.shape != (size,) or values.dtype != np.float64:
        raise ValueError(f"{path} is damaged: {values.dtype}{list(values.shape)}")
    return structure, values, facts


def identity(structure: density.Structure) -> bytes:
    """All of a structure, its noise included, in 32 bytes.

    Example:
      >>> moments = density.SquaredDistances(radius=1.0, dimension=2,
      ...                                    noise=density.Gaussian(4.0))
      >>> len(identity(moments))
      32
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_described(structure, arrays), sort_keys=True)
    whole = hashlib.sha256(text.encode())
    for array in arrays.values():
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.digest()


def _described(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A field as JSON; arrays go into `arrays`."""
    match value:
        case density.PublicArray():
            name = f"array_{len(arrays)}"
            arrays[name] = value.array
            return {"array": name}
        case density.Kernel():
            return {"kernel": value.name, "bandwidth": value.bandwidth}
        case density.Gaussian() | density.Radial() | density.Laplace():
            name = type(value).__name__.lower()
            return {"noise": name, "size": float(getattr(value, _NOISES[name]))}
        case density.Structure():
            fields = {
                field.name: _described(getattr(value, field.name), arrays)
                for field in dataclasses.fields(value)
            }
            return {"class": type(value).__name__, **fields}
        case tuple():
            return [_described(item, arrays) for item in value]
        case np.generic():
            return value.item()
    return value


def _made(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The field that was described."""
    if isinstance(value, list):
        return tuple(_made(item, arrays) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return density.PublicArray(arrays[value["array"]])
    if "noise" in value and "size" in value and "class" not in value:
        return getattr(density, value["noise"].capitalize())(value["size"])
    if "class" not in value:
        return density.Kernel(value["kernel"], value["bandwidth"])
    if value["class"] not in _STRUCTURES:
        raise ValueError(f"structure {value['class']!r} is not known")
    fields = {name: _made(v, arrays) for name, v in value.items() if name != "class"}
    return getattr(density, value["class"])(**fields)
