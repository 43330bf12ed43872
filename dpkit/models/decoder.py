"""A decoder-only transformer of one window of symbols.

Each position sees itself and those before it, and predicts the next symbol. Layers are
pre-norm (Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020,
arXiv:2002.04745): x + attention(norm(x)), then x + mlp(norm(x)). Nothing in it mixes
examples, and there is no dropout: noise and clipping regularise enough.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dpkit.accountants.answers import checks
from dpkit.models.lora import Linear

_SMALL = nn.initializers.normal(0.02)


class Block(nn.Module):
    """One layer: causal self-attention, then an MLP four times as wide.

    Attributes:
      heads: of the attention; the width is a multiple of it.
      lora_rank: of the adapters of its four linear maps; 0 for none.

    Example:
      >>> block = Block(heads=2)
      >>> x = jnp.zeros((5, 8))
      >>> jax.eval_shape(block.init_with_output, jax.random.key(0), x)[0].shape
      (5, 8)
    """

    heads: int
    lora_rank: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """States (positions, width) after this layer."""
        width = x.shape[-1]
        normed = nn.LayerNorm(name="attention_norm")(x)
        qkv = Linear(3 * width, self.lora_rank, name="qkv")(normed)
        mixed = _attention(qkv.reshape(len(x), 3, self.heads, width // self.heads))
        x = x + Linear(width, self.lora_rank, name="out")(mixed.reshape(x.shape))
        normed = nn.LayerNorm(name="mlp_norm")(x)
        inner = nn.gelu(Linear(4 * width, self.lora_rank, name="up")(normed))
        return x + Linear(width, self.lora_rank, name="down")(inner)


class Decoder(nn.Module):
    """Symbols to logits of the next symbol, with learned positions.

    Attributes:
      vocabulary: number of symbols.
      layers: blocks.
      width: of the states.
      heads: of each attention; divides the width.
      context: positions that can be told apart; windows may be shorter.
      tied: whether the output layer is the embedding, transposed.
      lora_rank: of adapters in every block; 0 for none.
      scan: whether the blocks are one loop over stacked parameters, which compiles in
        the time of one of them.
      remat: whether the backward pass computes a block anew instead of keeping its
        inner values.

    Raises:
      ValueError: a number that is no count, or a width that the heads don't divide.

    Example:
      >>> model = Decoder(vocabulary=97, layers=2, width=16, heads=2, context=8)
      >>> tokens = jnp.zeros(8, jnp.int32)
      >>> jax.eval_shape(model.init_with_output, jax.random.key(0), tokens)[0].shape
      (8, 97)
    """

    vocabulary: int
    layers: int = 4
    width: int = 256
    heads: int = 4
    context: int = 128
    tied: bool = False
    lora_rank: int = 0
    scan: bool = False
    remat: bool = False

    def __post_init__(self) -> None:
        """Refuses sizes that make no model."""
        for name in ("vocabulary", "layers", "width", "heads", "context"):
            checks.integer_at_least(1, **{name: getattr(self, name)})
        checks.integer_at_least(0, lora_rank=self.lora_rank)
        if self.width % self.heads:
            raise ValueError(
                f"width={self.width} must be a multiple of the {self.heads} heads"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits (positions, vocabulary) of symbols (positions,), integers."""
        if len(tokens) > self.context:
            raise ValueError(
                f"context={self.context} is less than the {len(tokens)} symbols of a "
                "window: raise it"
            )
        embed = nn.Embed(self.vocabulary, self.width, embedding_init=_SMALL)
        shape = (self.context, self.width)
        positions = self.param("positions", _SMALL, shape)
        x = self._blocks(embed(tokens) + positions[: len(tokens)])
        x = nn.LayerNorm(name="norm")(x)
        if self.tied:
            return embed.attend(x)
        head = nn.Dense(self.vocabulary, use_bias=False, kernel_init=_SMALL)
        return head(x)

    def _blocks(self, x: jax.Array) -> jax.Array:
        """All layers in turn."""
        # Inside a loop, what is computed anew can't be merged with the first time.
        block = nn.remat(Block, prevent_cse=not self.scan) if self.remat else Block
        if not self.scan:
            for layer in range(self.layers):
                x = block(self.heads, self.lora_rank, name=f"block_{layer}")(x)
            return x
        loop = nn.scan(
            lambda one, state, _: (one(state), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
        )
        return loop(block(self.heads, self.lora_rank, name="blocks"), x, None)[0]


def _attention(qkv: jax.Array) -> jax.Array:
    """What each position takes from itself and those before: (positions, heads, n).

    softmax(q k^T / sqrt(n)) v in each head, of qkv (positions, 3, heads, n).
    """
    q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
    scores = jnp.einsum("qhn,khn->hqk", q, k) / q.shape[-1] ** 0.5
    seen = jnp.tril(jnp.ones((1, len(q), len(q)), bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    return jnp.einsum("hqk,khn->qhn", weights, v)
