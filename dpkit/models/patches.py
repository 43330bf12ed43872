"""Convolutions and pooling by slices: the same values, several times faster on a CPU.

XLA's own convolutions of few channels, their gradients and those of its pooling are
slow on CPUs. Patches are cheap to cut out, and then everything is a matrix product.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


class PatchConv(nn.Module):
    """What `nn.Conv` computes on one square-kernelled image, as a product of patches.

    Its parameters have the names, shapes and initial values of `nn.Conv`.

    Attributes:
      features: output channels.
      size: of the square kernel, a multiple of the stride.
      stride: in both directions.
      padding: "SAME" or "VALID".

    Raises:
      ValueError: a size that the stride doesn't divide, or an unknown padding.

    Example:
      >>> conv = PatchConv(16, size=8, stride=2, padding="SAME")
      >>> image = jnp.zeros((28, 28, 1))
      >>> jax.eval_shape(conv.init_with_output, jax.random.key(0), image)[0].shape
      (14, 14, 16)
    """

    features: int
    size: int
    stride: int
    padding: str

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Features (rows, columns, features) of an image (height, width, channels)."""
        size, stride, channels = self.size, self.stride, image.shape[-1]
        if size % stride or self.padding not in ("SAME", "VALID"):
            raise ValueError(
                f"size={size}, stride={stride}, padding={self.padding!r}: needed a "
                "size that is a multiple of the stride, and 'SAME' or 'VALID'"
            )
        shape = (size, size, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        before = [self._before(length) for length in image.shape[:2]]
        counts = [self._count(length) for length in image.shape[:2]]
        cut = _framed(image, before, [stride * (n - 1) + size for n in counts])
        # Stride by stride pixels become channels of one, and the stride becomes 1.
        patches = _patches(_merged(cut, stride), size // stride)
        weights = _merged(kernel, stride).reshape(-1, self.features)
        flat = patches.reshape(-1, len(weights)) @ weights + bias[None]
        return flat.reshape(*counts, self.features)

    def _count(self, length: int) -> int:
        """Outputs along an axis."""
        if self.padding == "SAME":
            return -(-length // self.stride)
        return (length - self.size) // self.stride + 1

    def _before(self, length: int) -> int:
        """Zeros put in front of an axis: half of all, rounded down."""
        if self.padding == "VALID":
            return 0
        needed = self.stride * (self._count(length) - 1) + self.size - length
        return max(needed, 0) // 2


def max_pool(image: jax.Array) -> jax.Array:
    """The largest of each two by two neighbours, with stride one.

    Args:
      image: (height, width, channels).

    Returns:
      (height - 1, width - 1, channels). Where several are the largest, they share the
      gradient.

    Example:
      >>> max_pool(jnp.arange(6.0).reshape(2, 3, 1))[..., 0]
      Array([[4., 5.]], dtype=float32)
    """
    tall = jnp.maximum(image[:-1], image[1:])
    return jnp.maximum(tall[:, :-1], tall[:, 1:])


def _framed(image: jax.Array, before: list[int], wanted: list[int]) -> jax.Array:
    """Zeros around an image, or some of its end left out, up to the wanted lengths."""
    pairs = zip(image.shape, before, wanted, strict=False)
    after = [length - have - front for have, front, length in pairs]
    widths = [(front, max(end, 0)) for front, end in zip(before, after, strict=True)]
    padded = jnp.pad(image, [*widths, (0, 0)])
    return padded[: wanted[0], : wanted[1]]


def _merged(x: jax.Array, stride: int) -> jax.Array:
    """(height, width, c, ...) to (height / stride, width / stride, stride^2 c, ...)."""
    height, width, channels, *rest = x.shape
    split = (height // stride, stride, width // stride, stride, channels, *rest)
    together = jnp.moveaxis(x.reshape(split), 2, 1)
    return together.reshape(*together.shape[:2], stride**2 * channels, *rest)


def _patches(x: jax.Array, size: int) -> jax.Array:
    """(height, width, c) to (height - size + 1, width - size + 1, size^2 c)."""
    rows, columns = x.shape[0] - size + 1, x.shape[1] - size + 1
    shifted = [
        x[i : i + rows, j : j + columns] for i in range(size) for j in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)
