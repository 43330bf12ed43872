r"""DP-MERF: one noisy mean embedding, and a small network that learns to match it.

Each row becomes random waves of its numbers and one-hot codes of its categories, in the
row of its class: one sum, and all that is released. A network that makes rows of noise
is trained until the mean of its features is near. It sees categories with the class
alone: expect it behind recipes of pairs.

Source: Harder, Adamczewski, Park, "DP-MERF: Differentially Private Mean Embeddings with
Random Features for Practical Privacy-Preserving Data Generation", 2021,
arXiv:2002.11603.
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
from dpkit.mechanisms.density import Gaussian, Kernel, KernelSketch
from dpkit.mechanisms.tables import MeanEmbedding
from dpkit.synthetic.budgets import noise_multiplier, sums_and_scores
from dpkit.synthetic.recipe import Fitted, OnProgress, Purse, measure, quiet
from dpkit.synthetic.ruled import ruled
from dpkit.synthetic.view import MOST_ROWS

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source

_NOISE, _HIDDEN, _BATCH = 16, 128, 512
_RATE = 1e-2  # of Adam, at first
_LEAST = 1e-5  # share
_DRAWS = 2**30  # above the number of any step
_BLOCK = 4096  # rows made at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class MERF:
    """A generator trained towards one noisy mean embedding.

    Args:
      epsilon, delta: what everything may cost.
      rows: how many to make; None: as many as there are estimated to be, at most
        250,000.
      features: of ordered columns, as numbers from 0 to 1; even. 0: all columns
        are categories, which is better where margins matter most.
      bandwidth: of these, public; None: the median distance of evenly spread rows.
      steps: of training.

    Example:
      >>> MERF(epsilon=1.0, delta=1e-6).steps
      1000
    """

    epsilon: float
    delta: float
    rows: int | None = None
    features: int = 0
    bandwidth: float | None = None
    steps: int = 1000

    name: ClassVar[str] = "merf"

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.open_probability(delta=self.delta)
        checks.integer_at_least(0, features=self.features)
        checks.integer_at_least(1, steps=self.steps)
        if self.features % 2:
            raise ValueError(f"features={self.features}: needed an even number")
        if self.bandwidth is not None:
            checks.positive(bandwidth=self.bandwidth)
        if self.rows is not None:
            checks.integer_at_least(1, rows=self.rows)

    def releases(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> Mapping[str, DpEvent]:
        """The one sum."""
        sums_and_scores(relation, "MERF")
        if reach > 1:
            raise ValueError(
                f"rows_per_unit={reach}: merf protects single rows that count alike; "
                "take another mechanism, such as pairs"
            )
        sums = self._sums(_Layout.of(codebook, self.features > 0), relation)
        return {"embedding": sums.event(relation)}

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
        layout = _Layout.of(book, self.features > 0)
        sums = self._sums(layout, purse.relation)
        total = sums.total(layout.records(source.rows()))
        totals, counts = sums.table(measure(sums, total, purse, "embedding"))
        records = max(float(counts.sum()), 1.0)
        key = jax.random.key(seed)
        network = _Network(layout, sums.sketch)
        wanted, shares = (
            jnp.asarray(part / records, jnp.float32) for part in (totals, counts)
        )
        params = network.trained(wanted, shares, key, self.steps, tell)
        count = self.rows or max(1, min(round(records), MOST_ROWS))
        rows = network.rows(params, key, count)
        families = [(n,) for n in range(len(book.sizes))]
        return Fitted((), (), ruled(rows, book, families, seed), float(counts.sum()))

    def _sums(self, layout: _Layout, relation: Relation) -> MeanEmbedding:
        """The release, with noise for the relation."""
        sketch, plain = None, Gaussian(1.0)
        if layout.numbers:
            dimension = len(layout.numbers)
            # Squared distances of evenly spread numbers are 1/6 in the mean.
            bandwidth = self.bandwidth or math.sqrt(dimension / 6)
            kernel = Kernel("gaussian", bandwidth)
            sketch = KernelSketch.draw(
                kernel, dimension, features=self.features, noise=plain
            )
        sums = MeanEmbedding(
            sketch=sketch,
            categories=tuple(layout.sizes[n] for n in layout.categories),
            classes=layout.classes,
            noise=plain,
        )
        once: Any = sums.event(relation)
        needed = noise_multiplier(self.epsilon, self.delta, relation)
        noise = Gaussian(needed / once.noise_multiplier)
        return dataclasses.replace(sums, noise=noise)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Which columns are numbers, categories, and the class."""

    sizes: tuple[int, ...]
    numbers: tuple[int, ...]
    categories: tuple[int, ...]
    label: int | None

    @classmethod
    def of(cls, book: Codebook, waves: bool) -> _Layout:
        """The class is the schema's label, else the last column with several values."""
        columns = range(len(book.sizes))
        wide = [n for n in columns if book.sizes[n] > 1]
        label = wide[-1] if len(wide) > 1 else None
        if book.schema.label is not None and len(columns) > 1:
            label = book.names.index(book.schema.label)
        rest = [n for n in columns if n != label]
        numbers = [n for n in rest if waves and book.ordered[n] and book.sizes[n] > 1]
        categories = tuple(n for n in rest if n not in numbers)
        return cls(tuple(book.sizes), tuple(numbers), categories, label)

    @property
    def classes(self) -> int:
        """How many there are."""
        return 1 if self.label is None else self.sizes[self.label]

    @property
    def ends(self) -> np.ndarray:
        """Where a network's outputs of numbers, categories and class end."""
        sizes = [self.sizes[n] for n in self.categories]
        return np.cumsum([len(self.numbers), *sizes, self.classes])

    def records(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Rows as the sum takes them."""
        middles = [(rows[:, n] + 0.5) / self.sizes[n] for n in self.numbers]
        points = [*middles, *(rows[:, n] for n in self.categories)]
        labels = np.zeros(len(rows), np.int32)
        if self.label is not None:
            labels = rows[:, self.label].astype(np.int32)
        return {"points": np.stack(points, 1).astype(np.float32), "labels": labels}


class _Network:
    """Makes rows of noise: numbers, and chances of categories and of the class."""

    def __init__(self, layout: _Layout, sketch: KernelSketch | None) -> None:
        self._layout, self._sketch = layout, sketch
        self._draw = jax.jit(self._codes)

    def trained(
        self,
        wanted: jax.Array,
        shares: jax.Array,
        key: jax.Array,
        steps: int,
        tell: OnProgress,
    ) -> Any:
        """Weights with which the mean embedding is nearly the wanted one.

        At first, categories have the chances that their sums tell.
        """
        first, second = jax.random.split(jax.random.fold_in(key, 0))
        start = self._logits(wanted, shares)
        shape = (_HIDDEN, len(start))
        params = {
            "in": jax.random.normal(first, (_NOISE, _HIDDEN)) / math.sqrt(_NOISE),
            "out": jax.random.normal(second, shape) / math.sqrt(_HIDDEN),
            "bias": start,
        }
        optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, steps))
        state = optimizer.init(params)

        def loss(params: Any, key: jax.Array) -> jax.Array:
            """How far the mean embedding of a batch is from the wanted one."""
            return jnp.square(self._embedded(params, key) - wanted).sum()

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
            """One step of Adam."""
            updates, state = optimizer.update(jax.grad(loss)(params, key), state)
            return optax.apply_updates(params, updates), state

        for number in range(steps):
            params, state = step(params, state, jax.random.fold_in(key, number + 1))
            if number % 50 == 0:
                tell(number, steps, "training")
        return params

    def rows(self, params: Any, key: jax.Array, count: int) -> np.ndarray:
        """Codes, (count, d) int32."""
        parts = [
            np.asarray(self._draw(params, jax.random.fold_in(key, _DRAWS + block)))
            for block in range(-(-count // _BLOCK))
        ]
        return np.concatenate(parts)[:count]

    def _logits(self, wanted: jax.Array, shares: jax.Array) -> jax.Array:
        """Of each category and class by what was released; of numbers 0."""
        layout = self._layout
        codes = sum(layout.sizes[n] for n in layout.categories)
        margins = wanted.sum(axis=0)[wanted.shape[1] - codes :]
        margins *= math.sqrt(len(layout.categories))
        found = jnp.log(jnp.maximum(jnp.concatenate([margins, shares]), _LEAST))
        return jnp.concatenate([jnp.zeros(len(layout.numbers)), found])

    def _outputs(self, params: Any, key: jax.Array, count: int) -> list[jax.Array]:
        """Numbers before they are squeezed, and logits of each category and class."""
        noise = jax.random.normal(key, (count, _NOISE))
        outputs = jnp.tanh(noise @ params["in"]) @ params["out"] + params["bias"][None]
        ends = [0, *self._layout.ends.tolist()]
        return [outputs[:, low:high] for low, high in itertools.pairwise(ends)]

    def _embedded(self, params: Any, key: jax.Array) -> jax.Array:
        """The mean embedding of a batch, by class.

        Codes are drawn apart given the noise, so their mean is that of their chances.
        """
        numbers, *others = self._outputs(params, key, _BATCH)
        *chances, label = (jax.nn.softmax(one) for one in others)
        parts = [one / math.sqrt(len(chances)) for one in chances]
        if self._sketch is not None:
            placed = self._sketch.placed(jax.nn.sigmoid(numbers))
            waves = placed @ self._sketch.frequencies.array.T.astype(np.float32)
            scale = 1 / math.sqrt(self._sketch.count)
            parts = [scale * jnp.cos(waves), scale * jnp.sin(waves), *parts]
        return label.T @ jnp.concatenate(parts, axis=1) / _BATCH

    def _codes(self, params: Any, key: jax.Array) -> jax.Array:
        """A block of rows."""
        noise_key, pick_key = jax.random.split(key)
        numbers, *others = self._outputs(params, noise_key, _BLOCK)
        picks = jax.random.split(pick_key, len(others))
        drawn = [
            jax.random.categorical(one, logits)
            for one, logits in zip(picks, others, strict=True)
        ]
        layout, squeezed = self._layout, jax.nn.sigmoid(numbers)
        columns: dict[int | None, jax.Array] = {}
        for at, n in enumerate(layout.numbers):
            code = jnp.floor(squeezed[:, at] * layout.sizes[n])
            columns[n] = jnp.clip(code, 0, layout.sizes[n] - 1)
        columns |= dict(zip((*layout.categories, layout.label), drawn, strict=True))
        wanted = [columns[n] for n in range(len(layout.sizes))]
        return jnp.stack([one.astype(jnp.int32) for one in wanted], axis=1)
