"""The small table of the engine's tests, and random ones."""

from dataclasses import dataclass

import numpy as np

from dpkit.synthetic.engine import Target

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
