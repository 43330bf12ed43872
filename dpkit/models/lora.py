"""Low-rank adapters: a frozen layer, and a small trainable detour around it.

    y = x W + b + (x A) B,    W: (in, out) frozen,  A: (in, r), B: (r, out) trainable

B starts at zero, so a model with adapters starts as its base. The product A B is never
formed while training: two thin products are cheaper, and so are the norms of their
gradients.

What is private: the training of A and B alone. They are the only parameters that an
optimiser sees, so they alone count in the norm that is clipped, and they alone get
noise. Nothing protects what the base was trained on: it must be public, or come out of
a run that was charged for, and on the same rows both charges add up.

Source: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen, "LoRA: Low-Rank Adaptation of
Large Language Models", 2021, arXiv:2106.09685, with the scale alpha / r = 1; trained
privately by Yu et al., "Differentially Private Fine-tuning of Language Models", 2021,
arXiv:2110.06500.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

_BASE, _A, _B = "base", "lora_a", "lora_b"


class Linear(nn.Module):
    """A dense layer, with a low-rank detour if it has a rank.

    Attributes:
      features: outputs.
      rank: r; 0 is a plain layer.

    Example:
      >>> x = jax.ShapeDtypeStruct((4,), "float32")
      >>> params = jax.eval_shape(Linear(3, rank=2).init, jax.random.key(0), x)
      >>> sorted(params["params"])
      ['base', 'lora_a', 'lora_b']
    """

    features: int
    rank: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs (..., features) of inputs (..., in)."""
        y = nn.Dense(self.features, name=_BASE)(x)
        if not self.rank:
            return y
        width = x.shape[-1]
        a = self.param(_A, nn.initializers.normal(width**-0.5), (width, self.rank))
        b = self.param(_B, nn.initializers.zeros, (self.rank, self.features))
        return y + (x @ a) @ b


def split(params: Any) -> tuple[Any, Any]:
    """The adapters of a tree of parameters, and everything else.

    Args:
      params: nested mappings, from a model of `Linear` layers.

    Returns:
      (adapters, base): two trees that share no leaf; a mapping without leaves of one
      kind is left out of that tree.

    Example:
      >>> split({"up": {"base": 1, "lora_a": 2, "lora_b": 3}, "norm": {"scale": 4}})
      ({'up': {'lora_a': 2, 'lora_b': 3}}, {'up': {'base': 1}, 'norm': {'scale': 4}})
    """
    adapters, base = {}, {}
    for name, value in params.items():
        if name in (_A, _B):
            adapters[name] = value
        elif hasattr(value, "items"):
            for tree, part in zip((adapters, base), split(value), strict=True):
                if part:
                    tree[name] = part
        else:
            base[name] = value
    return adapters, base


def join(adapters: Any, base: Any) -> Any:
    """One tree out of what `split` returned.

    Example:
      >>> join({"up": {"lora_a": 2}}, {"up": {"base": 1}, "norm": 4})
      {'up': {'base': 1, 'lora_a': 2}, 'norm': 4}
    """
    joined = dict(base)
    for name, value in adapters.items():
        inside = name in joined and hasattr(value, "items")
        joined[name] = join(value, joined[name]) if inside else value
    return joined


def merge(adapters: Any, base: Any) -> Any:
    """The parameters of a plain model that computes the same: W + A B for each layer.

    Privacy: a function of the adapters and the public base, so it costs nothing more.

    Args:
      adapters: as trained.
      base: what they were trained around.

    Returns:
      A tree like `base`.

    Example:
      >>> import numpy as np
      >>> one = np.ones((1, 1))
      >>> merge({"lora_a": 2 * one, "lora_b": 3 * one}, {"base": {"kernel": one}})
      {'base': {'kernel': array([[7.]])}}
    """
    merged = dict(base)
    if _A in adapters:
        # With layers in a stack, a product for each of them.
        kernel = base[_BASE]["kernel"] + adapters[_A] @ adapters[_B]
        return {**merged, _BASE: {**base[_BASE], "kernel": kernel}}
    for name, inner in adapters.items():
        merged[name] = merge(inner, base[name])
    return merged
