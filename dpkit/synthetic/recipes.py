"""All recipes by name, and one made of plain settings."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.synthetic.recipe import Known, Recipe

RECIPES = {
    "pairs": "PAIRS",
    "independent": "Independent",
    "mst": "MST",
    "aim": "AIM",
    "gsd": "GSD",
    "mwem": "MWEM",
    "merf": "MERF",
}


def recipe_of(name: str, **settings: Any) -> Recipe:
    """A recipe out of its name and settings.

    Raises:
      ValueError: no recipe of this name, or a setting that it doesn't have.

    Example:
      >>> recipe_of("pairs", epsilon=1.0, delta=1e-6, rows=100).rows
      100
      >>> recipe_of("pairs", epsilon=1.0, delta=1e-6, row=100)
      Traceback (most recent call last):
      ValueError: row is no setting of pairs: did you mean 'rows'?
    """
    checks.one_of(tuple(RECIPES), mechanism=name)
    if settings.get("known"):
        settings["known"] = [_known(one) for one in settings["known"]]
    module = importlib.import_module(f"dpkit.synthetic.{name}")
    kind = getattr(module, RECIPES[name])
    known = [field.name for field in dataclasses.fields(kind)]
    for setting in settings:
        if setting not in known:
            near = difflib.get_close_matches(setting, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {known}"
            raise ValueError(f"{setting} is no setting of {name}: {hint}")
    return kind(**settings)


def _known(value: Any) -> Known:
    """Public counts out of plain values."""
    if isinstance(value, Known):
        return value
    try:
        given: dict[str, Any] = {**value, "columns": tuple(value["columns"])}
        return Known(**given)
    except (TypeError, KeyError):
        raise ValueError(
            f"known={value!r} must be {{ columns = [names], values = [counts] }}, and "
            "stddev where they aren't exact"
        ) from None
