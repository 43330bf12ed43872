"""Small image classifiers in Flax, none of which mixes the examples of a batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dpkit.models.patches import PatchConv, max_pool


class TanhCNN(nn.Module):
    """Two convolutions and two dense layers with tanh, for images of 28 by 28 and up.

    On 28 x 28 x 1 with 10 classes it has 26,010 parameters. Bounded activations help
    under clipping: Papernot, Thakurta, Song, Chien, Erlingsson, "Tempered Sigmoid
    Activations for Deep Learning with Differential Privacy", 2021, arXiv:2007.14191.

    Attributes:
      num_classes: logits to return.
    """

    num_classes: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Logits (num_classes,) of one image (height, width, channels)."""
        conv = PatchConv(16, size=8, stride=2, padding="SAME", name="Conv_0")
        x = max_pool(nn.tanh(conv(image)))
        conv = PatchConv(32, size=4, stride=2, padding="VALID", name="Conv_1")
        x = max_pool(nn.tanh(conv(x)))
        x = nn.tanh(nn.Dense(32)(x.reshape(-1)))
        return nn.Dense(self.num_classes)(x)


class MLP(nn.Module):
    """Dense layers with tanh; none at all is logistic regression.

    Attributes:
      num_classes: logits to return.
      hidden: widths of the hidden layers.
    """

    num_classes: int
    hidden: Sequence[int] = (128,)

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Logits (num_classes,) of one image of any shape."""
        x = image.reshape(-1)
        for width in self.hidden:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(self.num_classes)(x)


@dataclasses.dataclass(frozen=True)
class Network:
    """A module with public scaling: pixels are divided by a constant, not by data.

    Args:
      module: image -> logits.
      shape: of one image.
      pixel_scale: the public constant.

    Example:
      >>> network = build("linear", num_classes=10, shape=(8, 8, 1), pixel_scale=16.0)
      >>> params = network.init(jax.random.key(0))
      >>> network.logits(params, np.zeros((8, 8, 1), np.uint8)).shape
      (10,)
    """

    module: nn.Module
    shape: tuple[int, ...]
    pixel_scale: float

    fields = ("image", "label")

    def init(self, key: jax.Array) -> Any:
        """Parameters from a public key."""
        return jax.jit(self.module.init)(key, jnp.zeros(self.shape))["params"]

    def logits(self, params: Any, image: jax.Array | np.ndarray) -> jax.Array:
        """Logits of one image as stored."""
        scaled = jnp.asarray(image).astype(jnp.float32) / self.pixel_scale
        return jnp.asarray(self.module.apply({"params": params}, scaled))

    def loss(self, params: Any, example: dict[str, Any], key: Any) -> jax.Array:
        """Cross entropy of one example {"image", "label"}; needs no key."""
        del key
        logits = self.logits(params, example["image"])
        return jax.nn.logsumexp(logits) - logits[example["label"]]

    def accuracy_fn(
        self, rows: dict[str, np.ndarray], chunk: int = 1000
    ) -> Callable[[Any], float]:
        """A function of parameters: the share of rows that are classified rightly."""
        images, labels = np.asarray(rows["image"]), np.asarray(rows["label"])

        @jax.jit
        def guess(params: Any, some: jax.Array) -> jax.Array:
            logits = jax.vmap(self.logits, (None, 0))(params, some)
            return jnp.argmax(logits, axis=1)

        def accuracy(params: Any) -> float:
            right = 0
            for start in range(0, len(labels), chunk):
                some = slice(start, start + chunk)
                guesses = np.asarray(guess(params, images[some]))
                right += int((guesses == labels[some]).sum())
            return right / len(labels)

        return accuracy

    def scores_fn(
        self, rows: dict[str, np.ndarray]
    ) -> Callable[[Any], dict[str, float]]:
        """A function of parameters: {"accuracy"}, the share classified rightly."""
        accuracy = self.accuracy_fn(rows)
        return lambda params: {"accuracy": accuracy(params)}


def _cnn(shape: tuple[int, ...], num_classes: int, hidden: Any) -> nn.Module:
    """The CNN, for images that are large enough."""
    if len(shape) != 3 or min(shape[:2]) < 20:
        raise ValueError(
            f"model.name='cnn' needs images of 20 by 20 or more, not {shape}: use 'mlp'"
        )
    return TanhCNN(num_classes)


MODELS: dict[str, Callable[[tuple[int, ...], int, Any], nn.Module]] = {
    "cnn": _cnn,
    "mlp": lambda shape, num_classes, hidden: (
        MLP(num_classes) if hidden is None else MLP(num_classes, tuple(hidden))
    ),
    "linear": lambda shape, num_classes, hidden: MLP(num_classes, ()),
}


def build(
    name: str,
    *,
    num_classes: int,
    shape: tuple[int, ...],
    pixel_scale: float,
    hidden: Sequence[int] | None = None,
) -> Network:
    """A network by name.

    Args:
      name: "cnn", "mlp" or "linear".
      num_classes: logits to return.
      shape: of one image.
      pixel_scale: the public constant by which pixels are divided.
      hidden: widths of an mlp's hidden layers; None leaves them at its default.

    Raises:
      ValueError: an unknown name, images that the network can't take, or `hidden` for
        a network that has no such setting.

    Example:
      >>> build("mlp", num_classes=2, shape=(4,), pixel_scale=1.0, hidden=(8,)).shape
      (4,)
    """
    if name not in MODELS:
        raise ValueError(f"model.name={name!r} is not known: use {', '.join(MODELS)}")
    if hidden is not None and name != "mlp":
        raise ValueError(
            f"model.hidden={list(hidden)} is a setting of 'mlp', but "
            f"model.name={name!r}: leave one of them out"
        )
    if math.prod(shape) < 1:
        raise ValueError(f"shape={shape}: an image needs at least one pixel")
    return Network(MODELS[name](shape, num_classes, hidden), shape, pixel_scale)
