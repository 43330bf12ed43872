"""The small table of the engine's tests, and random ones."""

import math
from dataclasses import dataclass

import numpy as np

from dpkit.synthetic.engine import HalfSpace, Marginal, Prefix, Target

SIZES = (2, 3, 2)
START = np.array([(0, 0, 0), (0, 1, 1), (1, 2, 1), (1, 2, 0), (0, 0, 1)])
TARGETS = [
    Target((0, 1), np.array([[0.3, 0.1, 0.1], [0.1, 0.1, 0.3]])),
    Target((0, 2), np.array([[0.25, 0.25], [0.1, 0.4]]), 2.0),
    Target((1, 2), np.array([[0.2, 0.2], [0.1, 0.1], [0.05, 0.35]]), 0.5),
]
# Losses of the seven tables that no change of one cell improves, by enumeration.
MINIMA = (0.1025, 0.1225, 0.1425)


@dataclass(frozen=True)
class Rule:
    """What no row may hold."""

    columns: tuple[int, ...]
    mask: np.ndarray


def plain(targets):
    """Targets as the oracle reads them."""
    return [(t.columns, t.values, t.weight, t.maps) for t in targets]


def random_case(seed, rows=40, sizes=(4, 3, 1, 6, 2)):
    """A start and signed targets of one, two and three columns, some of groups."""
    rng = np.random.default_rng(seed)
    start = np.stack([rng.integers(0, size, rows) for size in sizes], axis=1)
    halves = np.arange(sizes[3]) // 2
    asked = [
        ((0,), None, 1.0),
        ((3, 0), None, 0.5),
        ((1, 4), None, 2.0),
        ((0, 1, 3), None, 1.0),
        ((2, 3), (None, halves), 1.5),
        ((4, 3, 1), (None, halves, None), 1.0),
    ]
    targets = []
    for columns, maps, weight in asked:
        target = Target(columns, np.zeros(1), weight, maps)
        shape = target.family(sizes).shape
        values = rng.dirichlet(np.ones(np.prod(shape))).reshape(shape)
        noisy = values + rng.normal(0, 0.01, shape)
        targets.append(Target(columns, noisy, weight, maps))
    return start, sizes, targets


def asked_of(targets, sizes):
    """Targets as `evolve` takes them."""
    return {
        "families": [target.family(sizes) for target in targets],
        "shares": [target.values for target in targets],
        "weights": [target.weight for target in targets],
    }


def with_regions(seed):
    """Families of all kinds over the columns of `random_case`."""
    start, sizes, targets = random_case(seed)
    rng = np.random.default_rng(seed)
    middles = tuple((np.arange(sizes[c]) + 0.5) / sizes[c] for c in (0, 3))
    asked = asked_of(targets, sizes)
    for n, kind in enumerate([(1,), (4,), (1, 4), (1,)]):
        cells = Marginal(kind, sizes)
        family = (
            Prefix((0, 3), middles, cells, rng.random(2))
            if n % 2
            else HalfSpace((0, 3), middles, cells, rng.normal(size=2), 0.1)
        )
        asked["families"].append(family)
        values = rng.dirichlet(np.ones(math.prod(cells.shape))) / 2
        asked["shares"].append(values.reshape(cells.shape))
        asked["weights"].append(1.0 + n)
    return start, sizes, asked


def squares(rows, asked):
    """F by counting the cells of each family, float64."""
    total = 0.0
    for family, shares, weight in zip(*asked.values(), strict=True):
        cells = family.cells(rows)
        size = math.prod(family.shape)
        found = np.bincount(cells[cells >= 0], minlength=size) / len(rows)
        total += weight * np.square(found - shares.reshape(-1)).sum()
    return total
