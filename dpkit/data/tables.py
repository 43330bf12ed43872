"""Published tables of people's records, with their public schemas.

Adult: 48,842 people of the census of 1994, with UCI's names, units and labels (Becker
and Kohavi, UCI Machine Learning Repository, 1996).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dpkit.data.files import load_files
from dpkit.data.schema import Schema

ADULT_TRAIN = 39_000  # the rest is held out

_ADULT_CATEGORIES = {
    "workclass": "Private, Self-emp-not-inc, Self-emp-inc, Federal-gov, Local-gov, "
    "State-gov, Without-pay, Never-worked, ?",
    "marital-status": "Married-civ-spouse, Divorced, Never-married, Separated, "
    "Widowed, Married-spouse-absent, Married-AF-spouse",
    "occupation": "Tech-support, Craft-repair, Other-service, Sales, Exec-managerial, "
    "Prof-specialty, Handlers-cleaners, Machine-op-inspct, Adm-clerical, "
    "Farming-fishing, Transport-moving, Priv-house-serv, Protective-serv, "
    "Armed-Forces, ?",
    "relationship": "Wife, Own-child, Husband, Not-in-family, Other-relative, "
    "Unmarried",
    "race": "White, Asian-Pac-Islander, Amer-Indian-Eskimo, Other, Black",
    "sex": "Female, Male",
    "native-country": "United-States, Cambodia, England, Puerto-Rico, Canada, Germany, "
    "Outlying-US(Guam-USVI-etc), India, Japan, Greece, South, China, Cuba, Iran, "
    "Honduras, Philippines, Italy, Poland, Jamaica, Vietnam, Mexico, Portugal, "
    "Ireland, France, Dominican-Republic, Laos, Ecuador, Taiwan, Haiti, Columbia, "
    "Hungary, Guatemala, Nicaragua, Scotland, Thailand, Yugoslavia, El-Salvador, "
    "Trinadad&Tobago, Peru, Hong, Holand-Netherlands, ?",
    "income": "<=50K, >50K",
}
_ADULT_NUMBERS = {
    "age": {"kind": "ordinal", "low": 16, "high": 100},
    "fnlwgt": {"kind": "numeric", "low": 10_000, "high": 1_500_000, "bins": 100},
    "education-num": {"kind": "ordinal", "low": 1, "high": 16},
    "capital-gain": {"kind": "numeric", "low": 0, "high": 100_000, "bins": 100},
    "capital-loss": {"kind": "numeric", "low": 0, "high": 5000, "bins": 100},
    "hours-per-week": {"kind": "ordinal", "low": 1, "high": 99},
}
_ADULT_NAMES = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)


def adult_schema() -> Schema:
    """The public schema of Adult without its second column of education.

    Example:
      >>> len(adult_schema().columns), adult_schema().columns["income"].categories
      (14, ('<=50K', '>50K'))
    """
    columns: dict[str, dict[str, object]] = {}
    for name in _ADULT_NAMES:
        if name in _ADULT_NUMBERS:
            columns[name] = dict(_ADULT_NUMBERS[name])
            if columns[name]["kind"] == "numeric":
                columns[name]["granularity"] = 1
        elif name in _ADULT_CATEGORIES:
            labels = _ADULT_CATEGORIES[name].split(", ")
            columns[name] = {
                "kind": "categorical",
                "categories": labels,
                "other": False,
            }
    return Schema.read(columns)


def load_adult(
    *,
    allow_download: bool | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Adult's 39,000 rows to learn from, and 9,842 that are held out.

    A fixed shuffle of UCI's two files together decides.

    Args:
      allow_download, on_progress: as for `load`.

    Returns:
      Columns by UCI's names, texts; of both parts.

    Raises:
      DataUnavailable, DataCorrupt: as for `load`.

    Example:
      >>> train, held_out = load_adult(allow_download=True)  # doctest: +SKIP
    """
    files = load_files("adult", allow_download=allow_download, on_progress=on_progress)
    lines = [
        line.rstrip(".").split(", ")
        for name in ("adult.data", "adult.test")
        for line in files[name].decode().splitlines()
        if line.count(", ") == len(_ADULT_NAMES) - 1
    ]
    rows = np.array(lines)
    order = np.random.RandomState(0).permutation(len(rows))
    parts = (order[:ADULT_TRAIN], order[ADULT_TRAIN:])
    names = [name for name in _ADULT_NAMES if name != "education"]
    train, held_out = (
        {name: rows[part, _ADULT_NAMES.index(name)] for name in names} for part in parts
    )
    return train, held_out
