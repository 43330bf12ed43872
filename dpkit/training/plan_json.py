"""Plans as JSON: the numbers that `DPSGDPlan.create` takes, by their names."""

from __future__ import annotations

import dataclasses
from typing import Any

from dpkit.mechanisms import clips
from dpkit.mechanisms.clips import Clip, Flat
from dpkit.training.planning import CUT, IN_EPOCHS, check_name, name_of
from dpkit.training.schedule import checked

_CLIPS = {
    name: getattr(clips, name)
    for name in ("Unit", "AutoS", "PSAC", "HardDrop", "PerGroup")
}


def plan_to_json(plan: Any) -> dict[str, Any]:
    """The plan's numbers; those that change as [[steps, value], ...].

    Raises:
      ValueError: a clip that holds a function of the user's own.
    """
    pieces = plan.pieces or (plan,)
    parts = [(piece.steps, _written(piece)) for piece in pieces]
    whole = {**parts[0][1], "steps": plan.steps}
    slots = max(piece["max_batch_size"] for _, piece in parts)
    for name in list(whole):
        if name == "steps":
            continue
        if any(piece[name] != whole[name] for _, piece in parts):
            pieces = checked(name, [(length, piece[name]) for length, piece in parts])
            whole[name] = [list(piece) for piece in pieces]
    for derived in ("sampling_rate", "bins"):
        if isinstance(whole.get(derived), list):
            del whole[derived]
    return {**whole, "max_batch_size": slots}


def numbers_from_json(numbers: dict[str, Any]) -> dict[str, Any]:
    """What `DPSGDPlan.create` takes, from what `plan_to_json` wrote.

    Raises:
      ValueError: a sampling that isn't known.

    Example:
      >>> numbers_from_json({"sampling": "cyclic", "max_batch_size": 3, "bins": 4})
      {'sampling': 'cyclic', 'bins': 4}
    """
    numbers = dict(numbers)
    sampling = numbers["sampling"]
    check_name(sampling)
    if sampling not in CUT:
        numbers.pop("max_batch_size")  # follows from the rest
    if "clip" in numbers:
        numbers["clip"] = clip_from_json(numbers["clip"])
    return numbers


def clip_to_json(clip: Clip) -> dict[str, Any]:
    """The clipping setting of a plan in JSON: a clip norm if it is flat.

    Raises:
      ValueError: a function of the user's own.

    Example:
      >>> clip_to_json(Flat(2.0)), clip_to_json(clips.Unit(2.0))
      ({'clip_norm': 2.0}, {'clip': {'name': 'Unit', 'clip_norm': 2.0}})
    """
    if isinstance(clip, Flat):
        return {"clip_norm": clip.clip_norm}
    name = type(clip).__name__
    if _CLIPS.get(name) is not type(clip):
        raise ValueError(f"clip={clip!r} can't be written down: it holds a function")
    fields: Any = clip
    return {"clip": {"name": name, **dataclasses.asdict(fields)}}


def clip_from_json(fields: Any) -> Clip:
    """The clip that `clip_to_json` wrote.

    Example:
      >>> clip_from_json({"name": "Unit", "clip_norm": 2.0})
      Unit(clip_norm=2.0)
    """
    fields = dict(fields)
    name = fields.pop("name", None)
    if name not in _CLIPS:
        raise ValueError(f"clip name={name!r}: needed one of {', '.join(_CLIPS)}")
    return _CLIPS[name](**{key: _tuples(value) for key, value in fields.items()})


def _tuples(value: Any) -> Any:
    """Lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _written(plan: Any) -> dict[str, Any]:
    """The numbers of a plan without a schedule."""
    sampler = plan.sampler
    name = name_of(sampler)
    numbers: dict[str, Any] = {"sampling": name}
    if name == "poisson":
        numbers["sampling_rate"] = sampler.sampling_rate
    numbers["max_batch_size"] = sampler.max_batch_size
    numbers["max_records"] = sampler.max_records
    if name in IN_EPOCHS:
        numbers["bins"] = sampler.bins
    words = plan.stream.words()
    clip = clip_to_json(words.pop("clip")) if "clip" in words else {}
    return {
        **numbers,
        **clip,
        **words,
        "steps": plan.steps,
        "expected_batch_size": plan.expected_batch_size,
    }
