"""Rényi curves by dp-accounting's formulas, on fixed tables of orders."""

import functools
import math
from typing import Any

import dp_accounting as dp
import numpy as np
from dp_accounting.rdp import rdp_privacy_accountant as dp_rdp

from dpkit.accountants.pairs.curve import FLOOR, Curve, Table

_WOR_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
_SELECT_ORDERS = 1 + np.logspace(-2, 4, 61)


@functools.lru_cache(maxsize=32)
def without_replacement(batch_size: int, dataset_size: int, noise: float) -> Table:
    """A Gaussian of shift 1 on a batch of fixed size (arXiv:1808.00087, Theorem 27).

    Padded for the cancellation in its differences, and for the logarithms of sums that
    are nearly 1.
    """
    event = dp.SampledWithoutReplacementDpEvent(
        dataset_size, batch_size, dp.GaussianDpEvent(noise)
    )
    accountant = dp_rdp.RdpAccountant(_WOR_ORDERS, dp.NeighboringRelation.REPLACE_ONE)
    with np.errstate(all="ignore"):
        accountant.compose(event)
    orders = np.array(_WOR_ORDERS, dtype=float)
    values = np.maximum(accountant.rdp, 0.0) * (1 + 1e-9)
    growth = np.minimum(orders * math.log1p(2 * batch_size / dataset_size), 600)
    pad = np.where(orders <= 256, np.exp(growth), 1.0) * 1e-14 / (orders - 1)
    return Table(orders, values + pad)


def repeat_and_select(
    child: Curve, mean: float, shape: float, *, trivial: bool
) -> Table:
    """The best of a random number of runs (arXiv:2110.03620)."""
    select: Any = dp_rdp._compute_rdp_repeat_and_select  # there is no public one
    with np.errstate(all="ignore"):
        values = select(_SELECT_ORDERS, child(_SELECT_ORDERS), mean, shape)
    least = 0.0 if trivial else FLOOR / (_SELECT_ORDERS - 1)
    return Table(_SELECT_ORDERS, np.maximum(np.asarray(values, dtype=float), least))
