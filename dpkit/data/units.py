"""Users as units of privacy: all rows of a user together, as one record.

Where a guarantee is about users, samplers draw users, and a user's contribution is
clipped as a whole. An index from users to their rows is made once, before anything is
charged; each user keeps at most k rows, chosen for that user alone.

Source: McMahan, Ramage, Talwar, Zhang, "Learning Differentially Private Recurrent
Language Models", 2018, arXiv:1710.06963.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.data.random_access import Rows, as_rows, checked_indices, empty_rows
from dpkit.mechanisms._drawing import folded, uniforms


class UserRows:
    """Rows by user: a user's records, padded to one number, with a mask.

    Row u is (records, mask): the leaves of user u's records stacked to (k, ...), and
    bool (k,), False where there is padding, which is a copy of one of the user's own
    records. A loss of one user takes the two and must look at valid rows only.

    Privacy: adding, removing or replacing a user changes one row of these and no
    other. Which k records of a user are kept depends on independent numbers, one for
    each record, and on the user's own records alone. Users are numbered in the order of
    their first record, so the order says nothing that the order of records didn't say.
    The number of users and of records, the longest user included, are private under
    add_remove; k is public.

    Args:
      records: a tree of arrays, or any source of rows.
      unit_ids: (num_records,) whom each record belongs to: integers or strings.
      max_records: k >= 1, the most records of one user; public.
      key: a typed key of JAX, secret, of its own: not the noise's or the sampler's.
        Needed only where a user may have more than k records.

    Raises:
      ValueError: ids of another length or with more than one axis; a user with more
        than k records and no key.
      TypeError: ids that are neither integers nor strings; a legacy key.

    Example:
      >>> rows = UserRows({"x": np.arange(5)}, ["b", "a", "b", "b", "a"], 2,
      ...                 key=jax.random.key(0))
      >>> len(rows)
      2
      >>> records, mask = rows.take(np.array([1]))
      >>> records["x"].tolist(), mask.tolist()
      ([[1, 4]], [[True, True]])

    Reference: McMahan et al., 2018, arXiv:1710.06963.
    """

    def __init__(
        self,
        records: Any,
        unit_ids: Any,
        max_records: int,
        *,
        key: jax.Array | None = None,
    ) -> None:
        self.rows: Rows = as_rows(records)
        self._most = checks.integer_at_least(1, max_records=max_records)
        users = number_users(unit_ids, len(self.rows))
        self._index, self._mask = _chosen(users, self._most, key)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def grouping(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of each user's records, and which of them count: private."""
        return self._index, self._mask

    @property
    def example(self) -> Any:
        """Shapes and dtypes of one user: (records, mask)."""
        records = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self._most, *leaf.shape), leaf.dtype),
            self.rows.example,
        )
        return records, jax.ShapeDtypeStruct((self._most,), np.bool_)

    def take(self, indices: np.ndarray) -> Any:
        """The users of these numbers: records (n, k, ...) and mask (n, k)."""
        indices = checked_indices(indices, len(self))
        if len(self) == 0:
            return empty_rows(self.example, len(indices))
        wanted = self._index[indices]
        rows = self.rows.take(wanted.reshape(-1))
        shape = wanted.shape
        rows = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), rows)
        return rows, self._mask[indices]


def number_users(unit_ids: Any, num_records: int) -> np.ndarray:
    """The number of each record's user, in order of first record.

    Args:
      unit_ids: (num_records,) integers or strings.
      num_records: how many records there are.

    Returns:
      int64 (num_records,), from 0 without gaps.

    Raises:
      ValueError: another shape.
      TypeError: ids that are neither integers nor strings.

    Example:
      >>> number_users(["b", "a", "b"], 3)
      array([0, 1, 0])
    """
    ids = _checked_ids(unit_ids, num_records)
    _, first, users = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[users]


def check_one_row_each(unit_ids: Any, num_records: int, unit: str = "user") -> None:
    """Refuses ids that repeat, where each row must be all of one unit's data.

    Raises:
      ValueError: an id in two rows, or another shape.
      TypeError: ids that are neither integers nor strings.

    Example:
      >>> check_one_row_each([3, 1, 2], 3)
    """
    ids = _checked_ids(unit_ids, num_records)
    if len(np.unique(ids)) != num_records:
        raise ValueError(
            f"unit_ids repeats an id: a {unit} in two rows can be in a batch twice and "
            "has no guarantee; group the rows with UserRows"
        )


def _checked_ids(unit_ids: Any, num_records: int) -> np.ndarray:
    """Ids as one array of integers or strings, one for each record."""
    ids = np.asarray(unit_ids)
    if ids.shape != (num_records,):
        raise ValueError(
            f"unit_ids has shape {ids.shape}: needed one id for each of the records"
        )
    # Floats compare unequal to themselves as NaN, and objects in ways of their own.
    if num_records and ids.dtype.kind not in "iuUS":
        raise TypeError(f"unit_ids={ids.dtype}: needed integers or strings")
    return ids


def _chosen(
    users: np.ndarray, most: int, key: jax.Array | None
) -> tuple[np.ndarray, np.ndarray]:
    """Record numbers and mask (users, most): each user's own, at most `most`."""
    counts = np.bincount(users) if len(users) else np.zeros(0, np.int64)
    order = np.zeros(len(users), np.uint64)
    if (counts > most).any():
        if key is None:
            raise ValueError(
                f"max_records={most}: some have more records, so a key of its own is "
                "needed to choose; pass key="
            )
        order = uniforms(folded(key, 0), len(users))[0]
    # By user, then by the random numbers; ties keep the order of records.
    ranked = np.lexsort((order, users))
    starts = np.cumsum(counts) - counts
    place = np.arange(len(users)) - np.repeat(starts, counts)
    kept = np.sort(ranked[place < most])
    kept = kept[np.argsort(users[kept], kind="stable")]
    counts = np.minimum(counts, most)
    starts = np.cumsum(counts) - counts
    slots = np.arange(len(kept)) - np.repeat(starts, counts)
    mask = np.arange(most) < counts[:, None]
    # Padding copies the first record of the same user.
    index = np.repeat(kept[starts][:, None], most, axis=1)
    index[users[kept], slots] = kept
    return index, mask
