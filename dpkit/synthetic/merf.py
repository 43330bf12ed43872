r"""DP-MERF: one noisy mean embedding, and a small network that learns to match it.

Each row becomes its codes, one-hot, in the row of its class: one sum of length 1, and
all that is released. A network that makes rows of noise is trained until its own mean
is near. It sees columns with the class alone: expect it behind recipes of pairs.

Source: Harder, Adamczewski, Park, "DP-MERF: Differentially Private Mean Embeddings with
Random Features for Practical Privacy-Preserving Data Generation", 2021,
arXiv:2002.11603; here all columns are categories, so that features are exact.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.density import Gaussian
from dpkit.mechanisms.tables import MeanEmbedding
from dpkit.synthetic.budgets import noise_multiplier, only_add_remove
from dpkit.synthetic.recipe import Fitted, OnProgress, Purse, measure, quiet
from dpkit.synthetic.view import MOST_ROWS

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source

_NOISE, _HIDDEN, _BATCH = 16, 128, 512
_SHARPNESS = 0.5  # of the soft codes in training
_DRAWS = 2**30  # above the number of any step


@dataclasses.dataclass(frozen=True, kw_only=True)
class MERF:
    """A generator trained towards one noisy mean embedding.

    Args:
      epsilon, delta: what everything may cost.
      rows: how many to make; None: as many as there are estimated to be, at most
        250,000.
      steps: of training.

    Example:
      >>> MERF(epsilon=1.0, delta=1e-6).steps
      1000
    """

    epsilon: float
    delta: float
    rows: int | None = None
    steps: int = 1000

    name: ClassVar[str] = "merf"

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.open_probability(delta=self.delta)
        checks.integer_at_least(1, steps=self.steps)
        if self.rows is not None:
            checks.integer_at_least(1, rows=self.rows)

    def releases(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> Mapping[str, DpEvent]:
        """The one sum."""
        only_add_remove(relation, "MERF")
        if reach > 1:
            raise ValueError(
                f"rows_per_unit={reach}: merf protects single rows that count alike; "
                "take another mechanism, such as pairs"
            )
        return {"embedding": self._sums(codebook).event(relation)}

    def fit(
        self,
        source: Source,
        purse: Purse,
        *,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Fitted:
        """Releases the sum, trains, and makes rows."""
        tell, book = on_progress or quiet, source.codebook
        tell(0, 1, "adding up features")
        sums, label = self._sums(book), _label(book)
        rows = source.rows().astype(np.int32)
        points = np.delete(rows, label, axis=1) if len(book.sizes) > 1 else rows
        records = {"points": points, "labels": rows[:, label]}
        if len(book.sizes) == 1:
            records["labels"] = np.zeros(len(rows), np.int32)
        total = sums.total(records)
        totals, counts = sums.table(measure(sums, total, purse, "embedding"))
        number = max(float(counts.sum()), 1.0)
        key = jax.random.key(seed)
        wanted = jnp.asarray(totals / number, jnp.float32)
        sizes = (*sums.categories, sums.classes)
        params = _trained(sizes, wanted, key, self.steps, tell)
        count = self.rows or max(1, min(round(number), MOST_ROWS))
        made = _made(params, sizes, key, count)
        if len(book.sizes) == 1:
            made = made[:, :1]
        else:
            made = np.insert(made[:, :-1], label, made[:, -1], axis=1)
        return Fitted((), (), made, float(counts.sum()))

    def _sums(self, book: Codebook) -> MeanEmbedding:
        """The release: all columns but the label, by the label."""
        noise = noise_multiplier(self.epsilon, self.delta, Relation.ADD_REMOVE)
        sizes = list(book.sizes)
        classes = sizes.pop(_label(book)) if len(sizes) > 1 else 1
        return MeanEmbedding(
            categories=tuple(sizes), classes=classes, noise=Gaussian(noise)
        )


def _label(book: Codebook) -> int:
    """The number of the label's column; the last one, where the schema has none."""
    label = book.schema.label
    return len(book.sizes) - 1 if label is None else book.names.index(label)


def _trained(
    sizes: tuple[int, ...],
    wanted: jax.Array,
    key: jax.Array,
    steps: int,
    tell: OnProgress,
) -> Any:
    """Weights of a network whose rows have nearly the wanted embedding."""
    total, columns = sum(sizes), len(sizes) - 1
    first, second = jax.random.split(jax.random.fold_in(key, 0))
    params = {
        "in": jax.random.normal(first, (_NOISE, _HIDDEN)) / math.sqrt(_NOISE),
        "out": jax.random.normal(second, (_HIDDEN, total)) / math.sqrt(_HIDDEN),
        "bias": jnp.zeros(total),
    }
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)

    def loss(params: Any, key: jax.Array) -> jax.Array:
        """How far the mean embedding of a batch is from the wanted one."""
        soft = _soft(params, sizes, key, _BATCH, _SHARPNESS)
        points, label = soft[:, : -sizes[-1]], soft[:, -sizes[-1] :]
        mean = label.T @ points / (math.sqrt(columns) * _BATCH)
        return jnp.square(mean - wanted).sum()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
        """One step of Adam."""
        grads = jax.grad(loss)(params, key)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    for number in range(steps):
        params, state = step(params, state, jax.random.fold_in(key, number + 1))
        if number % 50 == 0:
            tell(number, steps, "training")
    return params


def _soft(
    params: Any, sizes: tuple[int, ...], key: jax.Array, count: int, sharpness: float
) -> jax.Array:
    """Rows as soft one-hot codes, differentiable (Gumbel and softmax)."""
    noise_key, pick_key = jax.random.split(key)
    hidden = jnp.tanh(jax.random.normal(noise_key, (count, _NOISE)) @ params["in"])
    logits = hidden @ params["out"] + params["bias"][None]
    picks = (logits + jax.random.gumbel(pick_key, logits.shape)) / sharpness
    edges = np.cumsum((0, *sizes))
    parts = [
        jax.nn.softmax(picks[:, low:high]) for low, high in itertools.pairwise(edges)
    ]
    return jnp.concatenate(parts, axis=1)


def _made(
    params: Any, sizes: tuple[int, ...], key: jax.Array, count: int
) -> np.ndarray:
    """Rows as codes, (count, d) int32."""
    draw = jax.jit(_soft, static_argnums=(1, 3, 4))
    edges = np.cumsum((0, *sizes))
    parts = []
    for block in range(-(-count // 4096)):
        soft = draw(params, sizes, jax.random.fold_in(key, _DRAWS + block), 4096, 0.01)
        found = np.asarray(soft)
        codes = [
            found[:, low:high].argmax(axis=1) for low, high in itertools.pairwise(edges)
        ]
        parts.append(np.stack(codes, axis=1))
    return np.concatenate(parts)[:count].astype(np.int32)
