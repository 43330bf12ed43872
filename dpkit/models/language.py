"""Language models: what is trained, what is frozen, and how they are scored."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dpkit.data.random_access import as_rows
from dpkit.models import lora
from dpkit.models.decoder import Decoder
from dpkit.models.parameters import fitted, named, read_arrays


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder, and the base that its adapters are trained around, if it has any.

    One example is one window, {"tokens"}: integers (length + 1,), of which all but the
    first are predicted from those before. The window is the unit that clipping bounds.

    Args:
      module: (positions,) symbols -> (positions, vocabulary) logits.
      length: symbols to predict in a window.
      base: parameters that are not trained. With adapters: all others. Without: where
        training starts, or None to start at random. It is public: see `models.lora`.
      field: where a row has its symbols.
      padding: the symbol that fills up what is shorter, and isn't predicted; or None.

    Example:
      >>> model = build_language(vocabulary=97, length=8, layers=1, width=8, heads=2)
      >>> params = jax.eval_shape(model.init, jax.random.key(0))
      >>> window = {"tokens": np.zeros(9, np.uint8)}
      >>> jax.eval_shape(model.loss, params, window, None).shape
      ()
    """

    module: Decoder
    length: int
    base: Any = None
    field: str = "tokens"
    padding: int | None = None

    score = "accuracy"

    @property
    def fields(self) -> tuple[str, ...]:
        """The arrays of a row that are read."""
        return (self.field,)

    def init(self, key: jax.Array) -> Any:
        """What is trained, from a public key: the adapters alone, if there are any."""
        if self.base is not None and not self.module.lora_rank:
            return jax.tree.map(jnp.array, self.base)
        params = _random(self.module, self.length, key)
        return lora.split(params)[0] if self.module.lora_rank else params

    def logits(self, params: Any, tokens: jax.Array | np.ndarray) -> jax.Array:
        """Logits (positions, vocabulary) of one window's symbols (positions,)."""
        if self.module.lora_rank:
            params = lora.join(params, self.base)
        tokens = jnp.asarray(tokens).astype(jnp.int32)
        return jnp.asarray(self.module.apply({"params": params}, tokens))

    def loss(self, params: Any, example: dict[str, Any], key: Any) -> jax.Array:
        """Mean cross entropy of the next symbol, in nats; needs no key.

        -1/T sum_t log p(x_t | x_0 … x_{t-1}), over the T predicted symbols: length, or
        as many as aren't padding.
        """
        del key
        nats, _, counted = self._losses(params, example[self.field])
        if self.padding is None:
            return jnp.mean(nats)
        return jnp.sum(nats) / jnp.maximum(1, counted.sum())

    def accuracy_fn(self, rows: Any, chunk: int = 100) -> Callable[[Any], float]:
        """A function of parameters: the share of symbols that are the likeliest."""
        scores = self.scores_fn(rows, chunk)
        return lambda params: scores(params)["accuracy"]

    def scores_fn(
        self, rows: Any, chunk: int = 100
    ) -> Callable[[Any], dict[str, float]]:
        """A function of parameters: "accuracy", and "bits_per_character".

        Bits are the mean cross entropy over all predicted symbols, to base 2.

        Args:
          rows: {"tokens"}: (num_rows, length + 1), at least one row; or such rows by
            number.
          chunk: rows at a time.
        """
        rows = as_rows(rows)

        @jax.jit
        def sums(params: Any, some: jax.Array) -> tuple[jax.Array, ...]:
            found = jax.vmap(self._losses, (None, 0))(params, some)
            return tuple(part.sum() for part in found)

        def scores(params: Any) -> dict[str, float]:
            nats, right, count = 0.0, 0, 0
            for start in range(0, len(rows), chunk):
                some = rows.take(np.arange(start, min(start + chunk, len(rows))))
                more, hits, counted = sums(params, some[self.field])
                nats, right = nats + float(more), right + int(hits)
                count += int(counted)
            if not count:
                return {"accuracy": math.nan, "bits_per_character": math.nan}
            bits = nats / count / math.log(2)
            return {"accuracy": right / count, "bits_per_character": bits}

        return scores

    def predictions(
        self, params: Any, rows: Any, chunk: int = 100
    ) -> Iterator[tuple[Any, Any]]:
        """Bits per character of rows, some at a time; post-processing of `params`.

        Yields:
          The mean of each row, NaN where it has nothing to predict, and None.
        """
        rows = as_rows(rows)
        one = jax.jit(jax.vmap(self._losses, (None, 0)))
        for start in range(0, len(rows), chunk):
            some = rows.take(np.arange(start, min(start + chunk, len(rows))))
            nats, _, counted = one(params, some[self.field])
            count = np.asarray(counted.sum(axis=1), float)
            total = np.asarray(nats.sum(axis=1), float)
            yield total / np.where(count, count, np.nan) / math.log(2), None

    def _losses(self, params: Any, tokens: Any) -> tuple[jax.Array, ...]:
        """For each predicted symbol: cross entropy, whether it came first, 1; or 0s."""
        tokens = jnp.asarray(tokens).astype(jnp.int32)
        logits, wanted = self.logits(params, tokens[:-1]), tokens[1:]
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
        right = jnp.argmax(logits, axis=-1) == wanted
        if self.padding is None:
            return nats, right, jnp.ones_like(wanted)
        counted = wanted != self.padding
        return jnp.where(counted, nats, 0.0), right & counted, counted


def build_language(
    *,
    vocabulary: int,
    length: int,
    context: int | None = None,
    base: str | os.PathLike[str] | None = None,
    base_seed: int = 0,
    field: str = "tokens",
    padding: int | None = None,
    **sizes: Any,
) -> LanguageModel:
    """A decoder for windows of text, with a base from a file or a public seed.

    Args:
      vocabulary: number of symbols.
      length: symbols to predict in a window.
      context: positions that the network can tell apart, at least `length`, which is
        the default.
      base: an .npz file of parameters, as `dpkit train` writes. With `lora_rank` it is
        frozen, else training starts from it. It must be public.
      base_seed: with `lora_rank` and no file: draws a base, for want of a better.
      field: where a row has its symbols.
      padding: the symbol that fills up what is shorter; or None.
      **sizes: `layers`, `width`, `heads`, `tied`, `lora_rank`, `scan`, `remat` of
        `Decoder`.

    Raises:
      ValueError: sizes that make no model, or a file that doesn't hold this model's
        parameters, all of them and no others.

    Example:
      >>> build_language(vocabulary=97, length=8, layers=1, width=8).module.context
      8
    """
    context = length if context is None else context
    if context < length:
        raise ValueError(
            f"context={context} is less than the {length} symbols of a window: raise it"
        )
    module = Decoder(vocabulary=vocabulary, context=context, **sizes)
    plain, start = module.clone(lora_rank=0), None
    if base is not None:
        start = _read(base, plain, length)
    elif module.lora_rank:
        start = _random(plain, length, jax.random.key(base_seed))
    return LanguageModel(module, length, start, field, padding)


def base_sha256(base: Any) -> str:
    """A digest of a base: names and float32 bytes.

    Example:
      >>> len(base_sha256({"norm": {"scale": np.ones(2)}}))
      64
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(named(base).items()):
        values = np.asarray(leaf, np.float32)
        digest.update(f"{name}|{values.shape}|".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _random(module: Decoder, length: int, key: jax.Array) -> Any:
    """Parameters at random."""
    return jax.jit(module.init)(key, jnp.zeros(length, jnp.int32))["params"]


def _read(path: str | os.PathLike[str], plain: Decoder, length: int) -> Any:
    """The parameters in a file, each of the shape that the model wants."""
    try:
        found = read_arrays(path)
    except ValueError as error:
        raise ValueError(f"base={error}") from None
    tokens = jax.ShapeDtypeStruct((length,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        params = fitted(found, jax.eval_shape(plain.init, key, tokens)["params"])
    except ValueError as error:
        raise ValueError(
            f"base={str(path)!r} {error}: give the file of a model with the same "
            "settings"
        ) from None
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise ValueError(
                f"base={str(path)!r} holds {name!r}, not all of it finite numbers"
            )
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
