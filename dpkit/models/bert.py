"""BERT: the tokens of one text to a state for each.

Post-norm layers, x = norm(x + attention(x)), then x = norm(x + mlp(x)), in which every
token sees all tokens of its text (Devlin et al., "BERT: Pre-training of Deep
Bidirectional Transformers", 2018, arXiv:1810.04805). To be used, not trained: there is
no dropout, and one text is one call, so that nothing can mix texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SMALLEST = 1e-12  # variance, added in every norm

_LAYER = {  # our names, and those of the files
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}


def read_bert(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters out of a file of weights; equal parts of all layers in one array.

    Args:
      arrays: by the names that BERT's files have: `embeddings.…`, `encoder.layer.0.…`.

    Example:
      >>> from dpkit.models.parameters import read_arrays
      >>> read_bert(read_arrays("model.safetensors"))  # doctest: +SKIP
      {'words': Array(...), ...}
    """

    def part(name: str) -> dict[str, jax.Array]:
        both = (arrays[f"{name}.{end}"] for end in ("weight", "bias"))
        # Files keep (outputs, inputs); a vector becomes one row.
        return {
            end: jnp.asarray(array.T if array.ndim == 2 else array[None])
            for end, array in zip(("weight", "bias"), both, strict=True)
        }

    def stacked(name: str) -> dict[str, jax.Array]:
        parts = [part(f"encoder.layer.{n}.{name}") for n in range(layers)]
        return jax.tree.map(lambda *each: jnp.stack(each), *parts)

    layers = sum(name.endswith(".intermediate.dense.bias") for name in arrays)
    # A text alone is the first of the two that BERT can tell apart.
    first = arrays["embeddings.token_type_embeddings.weight"][:1]
    places = arrays["embeddings.position_embeddings.weight"] + first
    return {
        "words": jnp.asarray(arrays["embeddings.word_embeddings.weight"]),
        "places": jnp.asarray(places),
        "norm": part("embeddings.LayerNorm"),
        "layers": {ours: stacked(name) for ours, name in _LAYER.items()},
    }


def states(
    params: Mapping[str, Any], tokens: jax.Array, count: jax.Array, heads: int
) -> jax.Array:
    """States of the tokens of one text after the last layer.

    Args:
      params: as `read_bert` gives them.
      tokens: (positions,) integers; padding at the end.
      count: how many of them are the text's.
      heads: of each attention; divides the width.

    Returns:
      (positions, width); those of padding mean nothing.

    Example:
      >>> states(params, tokens, 7, 12).shape  # doctest: +SKIP
      (16, 384)
    """
    seen = jnp.arange(len(tokens)) < count
    x = params["words"][tokens] + params["places"][: len(tokens)]
    # Some accelerators would multiply in fewer bits.
    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(
            lambda x, layer: (_layer(layer, x, seen, heads), None),
            _norm(params["norm"], x),
            params["layers"],
        )[0]


def _layer(p: Any, x: jax.Array, seen: jax.Array, heads: int) -> jax.Array:
    """States after one layer."""
    split = (len(x), heads, x.shape[-1] // heads)
    q, k, v = (_linear(p[name], x).reshape(split) for name in ("query", "key", "value"))
    scores = jnp.einsum("qhn,khn->hqk", q, k) / split[-1] ** 0.5
    weights = jax.nn.softmax(jnp.where(seen[None, None], scores, -jnp.inf))
    mixed = jnp.einsum("hqk,khn->qhn", weights, v).reshape(x.shape)
    x = _norm(p["attention_norm"], x + _linear(p["out"], mixed))
    inner = jax.nn.gelu(_linear(p["up"], x), approximate=False)
    return _norm(p["mlp_norm"], x + _linear(p["down"], inner))


def _linear(p: Any, x: jax.Array) -> jax.Array:
    """A linear map of each state."""
    return x @ p["weight"] + p["bias"]


def _norm(p: Any, x: jax.Array) -> jax.Array:
    """Each state with mean 0 and variance 1, scaled and shifted."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + _SMALLEST) * p["weight"] + p["bias"]
