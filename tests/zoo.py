"""Losses of many kinds: what private gradients must be right for.

Each entry makes (loss_fn, params, batch, keys); batches have four or five examples.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

ZOO: dict[str, Callable[[], Any]] = {}
B = 4


def entry(make):
    """Adds a loss to the zoo under its function's name."""
    ZOO[make.__name__] = make
    return make


def draws(*shapes, seed=0, scale=0.5):
    """Arrays of normal draws."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(scale * rng.normal(size=s), jnp.float32) for s in shapes]


def squared(x):
    """A loss of an array that is not linear in it."""
    return jnp.sum(jnp.tanh(x) ** 2 + 0.3 * x)


@entry
def mlp():
    w, b, v, x = draws((5, 7), (7,), (7, 3), (B, 5))
    params = {"w": w, "b": b, "v": v}

    def loss(p, x, key):
        return squared(jnp.tanh(x @ p["w"] + p["b"]) @ p["v"])

    return loss, params, x, None


@entry
def mlp_on_rows():
    loss, params, _, _ = mlp()
    return loss, params, draws((B, 6, 5))[0], None


@entry
def linen_cnn():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(6, (3, 3), strides=2)(x))
            x = nn.GroupNorm(num_groups=3)(x)
            x = nn.max_pool(x, (2, 2), strides=(1, 1))
            x = nn.avg_pool(x, (2, 2), strides=(1, 1))
            x = nn.ConvTranspose(4, (3, 3), strides=(2, 2))(x)
            return nn.Dense(3)(x.reshape(-1))

    (x,) = draws((B, 8, 8, 2))
    params = Net().init(jax.random.key(0), x[0])
    return lambda p, x, key: squared(Net().apply(p, x)), params, x, None


@entry
def convolutions():
    shapes = (3, 3, 2, 6), (3, 3, 3, 4), (2, 2, 2, 3), (3, 1, 4)
    *kernels, x, line = draws(*shapes, (B, 7, 6, 4), (B, 9, 1))

    def conv(x, kernel, names="NHWC HWIO NHWC", **settings):
        numbers: Any = tuple(names.split())
        return jax.lax.conv_general_dilated(
            x[None], kernel, dimension_numbers=numbers, **settings
        )[0]

    def loss(p, example, key):
        x, line = example
        pad = ((1, 2), (0, 1))
        a = conv(x, p[0], window_strides=(2, 1), padding=pad, feature_group_count=2)
        b = conv(
            x[..., :3], p[1], window_strides=(1, 2), padding="SAME", rhs_dilation=(2, 1)
        )
        c = conv(
            x[..., :2],
            p[2],
            window_strides=(1, 1),
            padding=((1, 1), (-1, 1)),
            lhs_dilation=(2, 3),
        )
        d = conv(line, p[3], "NWC WIO NWC", window_strides=(2,), padding="VALID")
        return squared(a) + squared(b) + squared(c) + squared(d)

    return loss, list(kernels), (x, line), None


def attention(p, x, heads):
    """Causal attention with per-head weights."""
    q, k, v = (jnp.einsum("td,dhe->the", x, p[n]) for n in ("q", "k", "v"))
    scores = jnp.einsum("the,she->hts", q, k) / np.sqrt(q.shape[-1])
    mask = jnp.tril(jnp.ones(scores.shape[1:], bool))
    weights = jax.nn.softmax(jnp.where(mask, scores, -1e30))
    return jnp.einsum("hts,she,hed->td", weights, v, p["o"])


def norm(x, scale, shift=0.0):
    """Layer normalisation."""
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * scale + shift


def transformer(tied):
    """A decoder of one block."""
    shapes = [(11, 8), (6, 8), (8, 2, 4), (8, 2, 4), (8, 2, 4), (2, 4, 8)]
    names = ["e", "pos", "q", "k", "v", "o", "up", "down", "g1", "g2", "b2", "head"]
    shapes += [(8, 12), (12, 8), (8,), (8,), (8,), (8, 11)]
    params = dict(zip(names, draws(*shapes), strict=True))
    if tied:
        del params["head"]

    def loss(p, tokens, key):
        x = p["e"][tokens[:-1]] + p["pos"]
        x = x + attention(p, norm(x, p["g1"]), 2)
        h = norm(x, p["g2"], p["b2"])
        x = x + jax.nn.gelu(h @ p["up"]) @ p["down"]
        logits = x @ (p["e"].T if tied else p["head"])
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[1:, None], 1)
        return -chosen.mean()

    tokens = np.random.default_rng(0).integers(0, 11, (B, 7))
    return loss, params, jnp.asarray(tokens), None


@entry
def transformer_untied():
    return transformer(tied=False)


@entry
def transformer_tied():
    return transformer(tied=True)


@entry
def linen_attention():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            embed = nn.Embed(9, 8)
            x = embed(tokens)
            mask = nn.make_causal_mask(tokens)
            mixed: Any = nn.MultiHeadDotProductAttention(num_heads=2)(x, mask=mask)
            x = x + mixed
            x = nn.LayerNorm()(x)
            return embed.attend(x)

    tokens = jnp.asarray(np.random.default_rng(1).integers(0, 9, (B, 5)))
    params = Net().init(jax.random.key(0), tokens[0])

    def loss(p, tokens, key):
        logits: Any = Net().apply(p, tokens)
        logp = jax.nn.log_softmax(logits)
        return -jnp.sum(logp * jax.nn.one_hot(jnp.roll(tokens, -1), 9))

    return loss, params, tokens, None


@entry
def nnx_module():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(4, 6, rngs=rngs)
            self.n = nnx.RMSNorm(6, rngs=rngs)
            self.b = nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, x):
            return self.b(nnx.silu(self.n(self.a(x))))

    graph, params = nnx.split(Net(nnx.Rngs(0)))
    (x,) = draws((B, 3, 4))
    return lambda p, x, key: squared(nnx.merge(graph, p)(x)), params, x, None


@entry
def equinox_module():
    model = eqx.nn.MLP(4, 3, 6, 2, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    (x,) = draws((B, 4))
    return lambda p, x, key: squared(eqx.combine(p, static)(x)), params, x, None


def layers(remat):
    """A scan over stacked layers."""
    a, b, c, x = draws((3, 5, 5), (3, 5), (5, 5), (B, 4, 5))

    def layer(x, p):
        return x + jnp.tanh(x @ p["a"].T + p["b"]), x.sum()

    layer = jax.checkpoint(layer) if remat else layer

    def loss(p, x, key):
        x, sums = jax.lax.scan(layer, x @ p["c"], p["stack"])
        return squared(x) + sums.sum() ** 2

    return loss, {"stack": {"a": a, "b": b}, "c": c}, x, None


@entry
def scan_of_layers():
    return layers(remat=False)


@entry
def scan_of_layers_with_remat():
    return layers(remat=True)


def recurrent(reverse, learned_start):
    """A recurrent network over seven steps."""
    u, a, b, h, x = draws((3, 6), (6, 6), (6,), (6,), (B, 7, 3))
    params = {"u": u, "a": a, "b": b}
    if learned_start:
        params["h"] = h

    def loss(p, x, key):
        def step(h, x):
            h = jnp.tanh(x @ p["u"] + h @ p["a"] + p["b"])
            return h, h

        start = p["h"] if learned_start else jnp.zeros(6)
        _, states = jax.lax.scan(step, start, x, reverse=reverse)
        return squared(states)

    return loss, params, x, None


@entry
def rnn():
    return recurrent(reverse=False, learned_start=True)


@entry
def rnn_in_reverse():
    return recurrent(reverse=True, learned_start=False)


def lstm(**direction):
    """An LSTM over five steps."""
    layer = nn.RNN(nn.LSTMCell(4), **direction)
    (x,) = draws((B, 5, 3))
    params = layer.init(jax.random.key(0), x[0])
    return lambda p, x, key: squared(layer.apply(p, x)), params, x, None


@entry
def linen_lstm():
    return lstm()


@entry
def linen_lstm_in_reverse():
    return lstm(reverse=True, keep_order=True)


@entry
def nested_scans():
    w, v, x = draws((2, 3, 4, 4), (4, 4), (B, 4))

    def loss(p, x, key):
        def inner(x, w):
            return jnp.tanh(x @ w), None

        def outer(x, stack):
            x, _ = jax.lax.scan(inner, x, stack * 0.5)
            return x @ p["v"], None

        return squared(jax.lax.scan(outer, x, p["w"])[0])

    return loss, {"w": w, "v": v}, x, None


@entry
def weight_and_its_transpose():
    w, x = draws((5, 4), (B, 3, 5))
    return lambda w, x, key: squared(jnp.tanh(x @ w) @ w.T), w, x, None


@entry
def weight_used_at_two_widths():
    w, x = draws((6, 6), (B, 3, 6))
    return lambda w, x, key: squared(jnp.tanh(x @ w) @ w[:, :4]), w, x, None


@entry
def disjoint_slices():
    w, x = draws((4, 9), (B, 3, 4))

    def loss(w, x, key):
        q, k, v = x @ w[:, :3], x @ w[:, 3:6], x @ w[:, 6:]
        return squared(q * k + v)

    return loss, w, x, None


@entry
def merged_lora():
    a, b, x = draws((5, 2), (2, 4), (B, 3, 5))
    base = jnp.eye(5, 4)
    return (lambda p, x, key: squared(x @ (base + p[0] @ p[1]))), [a, b], x, None


@entry
def unmerged_lora():
    a, b, x = draws((5, 2), (2, 4), (B, 3, 5))
    base = jnp.eye(5, 4)
    return (lambda p, x, key: squared(x @ base + x @ p[0] @ p[1])), [a, b], x, None


@entry
def weight_standardisation():
    w, g, x = draws((5, 4), (4,), (B, 3, 5))

    def loss(p, x, key):
        w = p["w"] - p["w"].mean(0)
        return squared(x @ (w / jnp.sqrt((w**2).mean(0) + 1e-3) * p["g"]))

    return loss, {"w": w, "g": g}, x, None


@entry
def regulariser():
    loss, params, x, _ = mlp()

    def regularised(p, x, key):
        return loss(p, x, key) + 0.1 * sum(jnp.sum(leaf**2) for leaf in p.values())

    return regularised, params, x, None


@entry
def branches():
    w, v, x = draws((4, 4), (4, 4), (B, 4))

    def loss(p, x, key):
        def yes(x):
            return jnp.tanh(x @ p["w"])

        def no(x):
            return x @ p["v"] + p["w"][0]

        return squared(jax.lax.cond(x[0] > 0, yes, no, x))

    return loss, {"w": w, "v": v}, x, None


@jax.custom_vjp
def halved(x, w):
    """A product whose derivative is half of what it should be."""
    return x @ w


halved.defvjp(
    lambda x, w: (x @ w, (x, w)),
    lambda kept, g: (0.5 * kept[1] @ g, 0.5 * jnp.outer(kept[0], g)),
)


@jax.custom_jvp
def softened(w):
    """A function of a weight with a derivative of its own."""
    return jnp.round(w)


softened.defjvps(lambda t, out, w: t * jnp.cos(w))


@entry
def custom_derivatives():
    w, v, x = draws((4, 3), (3, 3), (B, 4))

    def loss(p, x, key):
        return squared(halved(x, p["w"]) @ softened(p["v"]))

    return loss, {"w": w, "v": v}, x, None


@entry
def dropout():
    loss, params, x, _ = mlp_on_rows()

    def dropped(p, x, key):
        keep = jax.random.bernoulli(key, 0.7, x.shape)
        return loss(p, jnp.where(keep, x / 0.7, 0.0), key)

    return dropped, params, x, jax.random.split(jax.random.key(5), B)


@entry
def vmap_and_grad_inside():
    w, v, x = draws((4, 3), (2, 4, 4), (B, 5, 4))

    def loss(p, x, key):
        def energy(row):
            return squared(row @ p["w"])

        forces = jax.vmap(jax.grad(energy))(x)
        heads = jax.vmap(lambda v: forces @ v)(p["v"])
        return squared(heads)

    return loss, {"w": w, "v": v}, x, None


@entry
def mixture_of_experts():
    gate, up, x = draws((4, 3), (3, 4, 4), (B, 5, 4))

    def loss(p, x, key):
        scores = jax.nn.softmax(x @ p["gate"])
        values, chosen = jax.lax.top_k(scores, 2)
        picked = p["up"][chosen]  # (5, 2, 4, 4)
        out = jnp.einsum("td,tkde->tke", x, picked)
        return squared((values[..., None] * out).sum(1))

    return loss, {"gate": gate, "up": up}, x, None


@entry
def stopped_gradients():
    w, v, x = draws((4, 4), (4, 4), (B, 4))

    def loss(p, x, key):
        frozen = jax.lax.stop_gradient(p["w"])
        y = jax.lax.stop_gradient(x @ p["v"]) + x @ p["w"]
        return squared(y @ frozen) + squared(x @ p["v"])

    return loss, {"w": w, "v": v}, x, None


@entry
def one_hot_embedding():
    e, w = draws((7, 4), (4, 4))
    ids = jnp.asarray(np.random.default_rng(2).integers(0, 7, (B, 5)))

    def loss(p, ids, key):
        return squared(jnp.tanh(jax.nn.one_hot(ids, 7) @ p["e"]) @ p["w"])

    return loss, {"e": e, "w": w}, ids, None


@entry
def lookups_out_of_range():
    (e,) = draws((5, 3))
    ids = jnp.asarray([[0, 4, 7, 0], [-9, 1, 1, 2], [4, 4, 4, 4], [-1, -5, 3, 9]])

    def loss(e, ids, key):
        clipped = jnp.take(e, ids, axis=0, mode="clip")
        filled = jnp.take(e, ids, axis=0, mode="fill", fill_value=0.3)
        return squared(clipped + 2 * filled)

    return loss, e, ids, None


@entry
def complex_path():
    w, x = draws((6,), (B, 6))

    def loss(w, x, key):
        spectrum = jnp.fft.rfft(w) * jnp.fft.rfft(x)
        return squared(jnp.fft.irfft(spectrum)) + jnp.abs(spectrum).sum()

    return loss, w, x, None


@entry
def scalars_and_unused():
    a, b, x = draws((), (3,), (B, 3))
    params = {"scale": a, "shift": b, "unused": jnp.ones(2)}

    def loss(p, x, key):
        return squared(x * p["scale"] + p["shift"]) + jnp.max(p["scale"] * x)

    return loss, params, x, None


@entry
def concatenated_and_padded():
    a, b, x = draws((4, 2), (4, 3), (B, 3, 4))

    def loss(p, x, key):
        w = jnp.pad(jnp.concatenate([p["a"], p["b"]], axis=1), ((0, 0), (1, 0)))
        return squared(x @ w)

    return loss, {"a": a, "b": b}, x, None


@entry
def polynomial_of_a_weight():
    w, x = draws((4, 4), (B, 4))

    def loss(w, x, key):
        power = jax.lax.fori_loop(0, 3, lambda i, m: m @ w, jnp.eye(4))
        return squared(x @ power) + squared(jnp.linalg.inv(jnp.eye(4) + w @ w.T) @ x)

    return loss, w, x, None


@entry
def parameter_in_the_carry():
    w, x = draws((4, 4), (B, 5, 4))

    def loss(w, x, key):
        def step(w, row):
            return w * 0.9, row @ w

        return squared(jax.lax.scan(step, w, x)[1])

    return loss, w, x, None


@functools.cache
def made(name):
    """The entry of a name, made once."""
    return ZOO[name]()
