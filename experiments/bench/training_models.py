"""The models whose training steps are timed, as plain functions of arrays.

Every model is written once, for any leading axes: on one example it is the loss that
private training wants, on a whole batch it is what one writes without privacy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """What is trained, on what.

    Args:
      title: for tables.
      init: from a key to parameters.
      loss: (params, batch or example) -> mean loss of all that is given.
      draw: (generator, size) -> a made-up batch.
      batch: examples in a step.
      small: whether it is worth going through the batch in chunks.
      doubtful: ways that may be too slow, to be tried in a process with a limit.
    """

    title: str
    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Any], jax.Array]
    draw: Callable[[np.random.Generator, int], Any]
    batch: int
    small: bool = False
    doubtful: tuple[str, ...] = ()

    def of_one(self, params: Params, example: Any, key: Any) -> jax.Array:
        """The loss of one example, as `clipped_grad` wants it."""
        del key
        return self.loss(params, example)


def decoder(
    layers: int, width: int, positions: int, symbols: int, batch: int, heads: int = 4
) -> Model:
    """A causal transformer with untied embedding and head, pre-norm, GELU."""

    def block(key: jax.Array) -> Params:
        shapes = {"qkv": (width, 3 * width), "out": (width, width)}
        shapes |= {"up": (width, 4 * width), "down": (4 * width, width)}
        weights = _normal(key, shapes)
        ones = {name: jnp.ones(width) for name in ("scale1", "scale2")}
        zeros = {name: jnp.zeros(width) for name in ("shift1", "shift2", "down_bias")}
        return weights | ones | zeros | {"up_bias": jnp.zeros(4 * width)}

    def init(key: jax.Array) -> Params:
        first, *rest = jax.random.split(key, layers + 1)
        shapes = {"embedding": (symbols, width), "positions": (positions, width)}
        outer = _normal(first, shapes | {"head": (width, symbols)})
        return outer | {"scale": jnp.ones(width), "blocks": [block(k) for k in rest]}

    def loss(params: Params, tokens: jax.Array) -> jax.Array:
        # All positions of all examples are rows of one matrix: on a CPU the ordinary
        # gradients of matrices are then much faster than with two axes in front.
        front = (*tokens.shape[:-1], positions)
        places = jnp.broadcast_to(params["positions"], (*front, width))
        x = params["embedding"][tokens[..., :-1].reshape(-1)]
        x = x + places.reshape(-1, width)
        for one in params["blocks"]:
            h = _normalised(x) * one["scale1"] + one["shift1"]
            qkv = (h @ one["qkv"]).reshape(*front, 3, heads, width // heads)
            x = x + _attention(qkv).reshape(-1, width) @ one["out"]
            h = _normalised(x) * one["scale2"] + one["shift2"]
            h = jax.nn.gelu(h @ one["up"] + one["up_bias"])
            x = x + h @ one["down"] + one["down_bias"]
        logits = _normalised(x) * params["scale"] @ params["head"]
        return _cross_entropy(logits, tokens[..., 1:].reshape(-1))

    return Model(
        title=f"decoder {layers}x{width}, T={positions}, V={symbols}, B={batch}",
        init=init,
        loss=loss,
        draw=lambda r, b: jnp.asarray(r.integers(0, symbols, (b, positions + 1))),
        batch=batch,
    )


def cnn(batch: int) -> Model:
    """Two convolutions and two dense layers with tanh, 26,010 parameters."""

    def init(key: jax.Array) -> Params:
        shapes = {"conv1": (8, 8, 1, 16), "conv2": (4, 4, 16, 32)}
        shapes |= {"dense1": (512, 32), "dense2": (32, 10)}
        sizes = {"bias1": 16, "bias2": 32, "bias3": 32, "bias4": 10}
        zeros = {name: jnp.zeros(size) for name, size in sizes.items()}
        return _normal(key, shapes) | zeros

    def loss(params: Params, batch: Any) -> jax.Array:
        image = batch["image"].astype(jnp.float32) / 255
        x = image.reshape(-1, 28, 28, 1)
        x = _conv(x, params["conv1"], "SAME")
        x = _pooled(jnp.tanh(x + params["bias1"]))
        x = _conv(x, params["conv2"], "VALID")
        x = _pooled(jnp.tanh(x + params["bias2"]))
        x = x.reshape(*image.shape[:-3], -1)
        x = jnp.tanh(x @ params["dense1"] + params["bias3"])
        return _cross_entropy(x @ params["dense2"] + params["bias4"], batch["label"])

    def draw(rng: np.random.Generator, size: int) -> Any:
        image = rng.integers(0, 256, (size, 28, 28, 1))
        return {"image": jnp.asarray(image, jnp.uint8), "label": _labels(rng, size)}

    title = f"CNN, 2 convolutions, B={batch}"
    return Model(title, init, loss, draw, batch, small=True)


def mlp(batch: int) -> Model:
    """One hidden layer, 203,530 parameters."""

    def init(key: jax.Array) -> Params:
        weights = _normal(key, {"weight1": (784, 256), "weight2": (256, 10)})
        return weights | {"bias1": jnp.zeros(256), "bias2": jnp.zeros(10)}

    def loss(params: Params, batch: Any) -> jax.Array:
        h = jax.nn.relu(batch["x"] @ params["weight1"] + params["bias1"])
        return _cross_entropy(h @ params["weight2"] + params["bias2"], batch["label"])

    def draw(rng: np.random.Generator, size: int) -> Any:
        x = jnp.asarray(rng.normal(size=(size, 784)), jnp.float32)
        return {"x": x, "label": _labels(rng, size)}

    title = f"MLP 784-256-10, B={batch}"
    return Model(title, init, loss, draw, batch, small=True)


MODELS = {
    "decoder-128": decoder(4, 256, positions=128, symbols=1024, batch=16),
    "decoder-512": decoder(4, 256, positions=512, symbols=1024, batch=4),
    "wide": dataclasses.replace(
        decoder(2, 768, positions=64, symbols=8192, batch=32, heads=12),
        doubtful=("jax-privacy",),
    ),
    "decoder-4096": decoder(2, 256, positions=4096, symbols=1024, batch=2),
    "cnn": cnn(256),
    "mlp": mlp(256),
}


def _normal(key: jax.Array, shapes: Mapping[str, tuple[int, ...]]) -> Params:
    """Small random weights."""
    keys = jax.random.split(key, len(shapes))
    return {
        name: 0.02 * jax.random.normal(k, shape)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def _labels(rng: np.random.Generator, size: int) -> jax.Array:
    """Made-up classes."""
    return jnp.asarray(rng.integers(0, 10, size), jnp.int32)


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over everything but classes."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)
    return -chosen.mean()


def _normalised(x: jax.Array) -> jax.Array:
    """Mean zero and variance one in each row."""
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5)


def _attention(qkv: jax.Array) -> jax.Array:
    """Causal attention: (..., T, 3, heads, n) to (..., T, heads, n)."""
    q, k, v = (qkv[..., i, :, :] for i in range(3))
    length, size = qkv.shape[-4], qkv.shape[-1]
    scores = jnp.einsum("...qhn,...khn->...hqk", q, k) / np.sqrt(size)
    seen = jnp.tril(jnp.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e30))
    return jnp.einsum("...hqk,...khn->...qhn", weights, v)


def _conv(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """A convolution with stride two."""
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), padding, dimension_numbers=names
    )


def _pooled(x: jax.Array) -> jax.Array:
    """The largest of each two by two neighbours."""
    window, strides = (1, 2, 2, 1), (1, 1, 1, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "VALID")
