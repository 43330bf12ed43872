"""The decoder against a plain NumPy one, its adapters, its loss and its scores."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from dpkit.models import LanguageModel, build_language, lora
from dpkit.models.language import base_sha256
from tests.bare import clipped_grad

SYMBOLS, LENGTH, WIDTH, HEADS, LAYERS = 11, 6, 8, 2, 1
SIZES: dict[str, Any] = {
    "vocabulary": SYMBOLS,
    "length": LENGTH,
    "width": WIDTH,
    "heads": HEADS,
}
pytestmark = pytest.mark.usefixtures("quick_compilation")


def make(**settings) -> LanguageModel:
    sizes: dict[str, Any] = {**SIZES, "layers": LAYERS, **settings}
    return build_language(**sizes)


@pytest.fixture(scope="module")
def tied():
    """A tied decoder and random parameters that are nowhere zero."""
    model = make(tied=True)
    return model, scattered(jax.eval_shape(model.init, jax.random.key(0)))


def scattered(params):
    """Values in place of shapes, which spares compiling the real initialisation."""
    rng = np.random.default_rng(5)
    return jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32) / 2, params
    )


def windows(count):
    rng = np.random.default_rng(1)
    return rng.integers(0, SYMBOLS, (count, LENGTH + 1)).astype(np.uint8)


def flat(params) -> dict[str, np.ndarray]:
    """Leaves by path, as a file of parameters has them."""
    leaves: Any = traverse_util.flatten_dict(params, sep="/")
    return {name: np.asarray(leaf) for name, leaf in leaves.items()}


def numpy_logits(params, tokens):
    """The same network by hand, in float64, one position at a time."""
    leaves = {name: leaf.astype(np.float64) for name, leaf in flat(params).items()}

    def norm(name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * leaves[f"{name}/scale"] + leaves[f"{name}/bias"]

    def linear(name, x):
        return x @ leaves[f"{name}/base/kernel"] + leaves[f"{name}/base/bias"]

    def gelu(x):
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def attend(qkv):
        out = np.zeros((len(qkv), WIDTH))
        size = WIDTH // HEADS
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            q, k, v = (qkv[:, i * WIDTH : (i + 1) * WIDTH][:, part] for i in range(3))
            for t in range(len(qkv)):
                weights = np.exp(k[: t + 1] @ q[t] / np.sqrt(size))
                out[t, part] = weights @ v[: t + 1] / weights.sum()
        return out

    embedding = leaves["Embed_0/embedding"]
    x = embedding[tokens] + leaves["positions"][: len(tokens)]
    for layer in range(LAYERS):
        at = f"block_{layer}"
        mixed = attend(linear(f"{at}/qkv", norm(f"{at}/attention_norm", x)))
        x = x + linear(f"{at}/out", mixed)
        inner = gelu(linear(f"{at}/up", norm(f"{at}/mlp_norm", x)))
        x = x + linear(f"{at}/down", inner)
    return norm("norm", x) @ embedding.T


@pytest.mark.slow
@pytest.mark.guard
def test_logits_equal_a_decoder_in_numpy(tied):
    model, params = tied
    for tokens in windows(3)[:, :-1]:
        want = numpy_logits(params, tokens)
        got = jax.jit(model.logits)(params, tokens)
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


def test_no_position_sees_a_later_one(tied):
    model, params = tied
    tokens = windows(1)[0, :-1]
    logits = jax.jit(model.logits)
    before = np.asarray(logits(params, tokens))
    for t in range(LENGTH):
        changed = tokens.copy()
        changed[t] = (changed[t] + 1) % SYMBOLS
        after = np.asarray(logits(params, changed))
        np.testing.assert_array_equal(after[:t], before[:t])
        assert (after[t:] != before[t:]).any(axis=1).all()


@pytest.mark.slow
def test_loss_and_scores_equal_a_count_by_hand(tied):
    model, params = tied
    rows = windows(5)
    nats, right = [], []
    for row in rows:
        logits = numpy_logits(params, row[:-1])
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        nats.append([-np.log(shares[t, row[t + 1]]) for t in range(LENGTH)])
        right.append([logits[t].argmax() == row[t + 1] for t in range(LENGTH)])
    loss = jax.jit(model.loss)(params, {"tokens": rows[0]}, None)
    assert float(loss) == pytest.approx(np.mean(nats[0]), rel=1e-4)
    scores = model.scores_fn({"tokens": rows}, chunk=2)(params)
    assert scores["accuracy"] == np.mean(right)
    bits = np.mean(nats) / np.log(2)
    assert scores["bits_per_character"] == pytest.approx(bits, rel=1e-4)


@pytest.fixture(scope="module")
def adapted(tied):
    """The same decoder with adapters around it, and adapters that are nowhere zero."""
    _, base = tied
    model = LanguageModel(make(tied=True, lora_rank=2).module, LENGTH, base)
    return model, scattered(jax.eval_shape(model.init, jax.random.key(0)))


@pytest.mark.slow
def test_an_adapted_layer_starts_as_its_base_and_adds_a_thin_product():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)
    layer = lora.Linear(5, rank=2)
    params = layer.init(jax.random.key(0), x)["params"]
    assert not np.asarray(params["lora_b"]).any()
    assert np.asarray(params["lora_a"]).all()
    p = jax.tree.map(np.asarray, scattered(params))
    inputs = np.asarray(x)
    want = inputs @ p["base"]["kernel"] + p["base"]["bias"]
    want = want + inputs @ p["lora_a"] @ p["lora_b"]
    got = np.asarray(layer.apply({"params": p}, x))
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.slow
def test_only_adapters_are_trained_and_they_start_as_nothing(tied, adapted):
    (plain, base), (model, _) = tied, adapted
    params = model.init(jax.random.key(3))
    names = flat(params)
    maps = [f"block_0/{m}" for m in ("qkv", "out", "up", "down")]
    assert set(names) == {f"{m}/lora_{x}" for m in maps for x in "ab"}
    tokens = windows(1)[0, :-1]
    np.testing.assert_array_equal(
        jax.jit(model.logits)(params, tokens), jax.jit(plain.logits)(base, tokens)
    )


@pytest.mark.slow
def test_merged_adapters_compute_the_same(tied, adapted):
    (plain, base), (model, params) = tied, adapted
    merged = lora.merge(params, base)
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    tokens = windows(1)[0, :-1]
    got = jax.jit(plain.logits)(merged, tokens)
    want = jax.jit(model.logits)(params, tokens)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    without = jax.jit(plain.logits)(base, tokens)
    assert np.abs(np.asarray(got) - np.asarray(without)).max() > 0.1


@pytest.mark.slow
def test_split_and_join_are_inverse(adapted):
    model, params = adapted
    joined = lora.join(params, model.base)
    again = lora.split(joined)
    assert jax.tree.structure(again) == jax.tree.structure((params, model.base))
    for got, want in zip(
        jax.tree.leaves(again), jax.tree.leaves((params, model.base)), strict=True
    ):
        assert got is want


@pytest.mark.slow
def test_only_adapters_count_in_the_norm(adapted):
    # By the chain rule through the merged kernel: of W + A B with gradient G, A has
    # G B^T and B has A^T G.
    model, params = adapted
    plain = make(tied=True)
    merged = lora.merge(params, model.base)
    row = {"tokens": windows(1)}
    gradient = jax.jit(jax.grad(plain.loss), static_argnums=2)
    whole = flat(gradient(merged, {"tokens": row["tokens"][0]}, None))
    leaves = flat(params)
    square = 0.0
    for name, a in leaves.items():
        if name.endswith("lora_a"):
            b = leaves[name[:-1] + "b"]
            g = whole[name.removesuffix("lora_a") + "base/kernel"]
            square += float(((g @ b.T) ** 2).sum() + ((a.T @ g) ** 2).sum())
    _, aux = jax.jit(clipped_grad(model.loss, clip_norm=1.0))(params, row)
    np.testing.assert_allclose(aux.norms, [square**0.5], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("remat", [False, True])
def test_a_loop_over_layers_is_the_layers_in_turn(rank, remat):
    looped = make(scan=True, remat=remat, lora_rank=rank, layers=3).module
    plain = make(remat=remat, lora_rank=rank, layers=3).module
    tokens = windows(1)[0, :-1].astype(np.int32)
    shapes = jax.eval_shape(looped.init, jax.random.key(0), tokens)
    stacked = scattered(shapes["params"])
    single = {name: leaf for name, leaf in stacked.items() if name != "blocks"}
    for layer in range(3):
        cut = jax.tree.map(lambda leaf, n=layer: leaf[n], stacked["blocks"])
        single[f"block_{layer}"] = cut

    def total(module, params):
        return (module.apply({"params": params}, tokens) ** 2).sum()

    got = jax.jit(jax.grad(total, 1), static_argnums=0)(looped, stacked)
    want = jax.jit(jax.grad(total, 1), static_argnums=0)(plain, single)
    for layer in range(3):
        cut = jax.tree.map(lambda leaf, n=layer: leaf[n], got["blocks"])
        pairs = zip(
            jax.tree.leaves(cut),
            jax.tree.leaves(want[f"block_{layer}"]),
            strict=True,
        )
        for one, other in pairs:
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    if rank:
        merged = lora.merge(*lora.split(stacked))
        logits = make(scan=True, remat=remat, layers=3).module.apply(
            {"params": merged}, tokens
        )
        want = looped.apply({"params": stacked}, tokens)
        np.testing.assert_allclose(
            np.asarray(logits), np.asarray(want), rtol=1e-3, atol=1e-3
        )


@pytest.fixture
def saved(tied, tmp_path):
    """A file of parameters, and what is in it."""
    _, params = tied
    leaves: dict[str, Any] = dict(flat(params))
    path = tmp_path / "base.npz"
    np.savez(path, **leaves)
    return path, leaves


@pytest.mark.parametrize("rank", [0, 2])
def test_a_base_is_read_from_a_file(tied, saved, rank):
    _, params = tied
    path, _ = saved
    model = make(tied=True, base=path, lora_rank=rank)
    assert jax.tree.structure(model.base) == jax.tree.structure(params)
    for got, want in zip(
        jax.tree.leaves(model.base), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(got, want)
    if rank == 0:
        start = jax.tree.leaves(model.init(jax.random.key(0)))
        for got, want in zip(start, jax.tree.leaves(params), strict=True):
            np.testing.assert_array_equal(got, want)


def test_a_base_is_known_by_its_values(tied):
    _, params = tied
    other = jax.tree.map(lambda leaf: leaf, params)
    assert base_sha256(other) == base_sha256(params)
    other["norm"]["bias"] = other["norm"]["bias"].at[0].add(1e-3)
    assert base_sha256(other) != base_sha256(params)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.pop("norm/bias"), "lacks 'norm/bias'"),
        (lambda x: x.update(more=np.zeros(1)), "'more'"),
        (lambda x: x.update(positions=x["positions"][1:]), r"shape \(5, 8\)"),
        (lambda x: x.update(positions=x["positions"] * np.nan), "finite"),
    ],
)
def test_another_models_file_is_refused(saved, change, words):
    path, leaves = saved
    change(leaves)
    np.savez(path, **leaves)
    with pytest.raises(ValueError, match=rf"base='.*base\.npz'.*{words}"):
        make(tied=True, base=path)


@pytest.mark.parametrize("content", [b"", b"not parameters", b"PK\x03\x04cut"])
def test_no_file_or_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "base.npz"
    with pytest.raises(ValueError, match=r"base=.*can't be read"):
        make(base=path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"base=.*can't be read"):
        make(base=path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heads": 3}, "width=8"),
        ({"layers": 0}, "layers=0"),
        ({"width": 2.5}, "width=2.5"),
        ({"context": 5}, "context=5 is less than the 6"),
        ({"lora_rank": -1}, "lora_rank=-1"),
    ],
)
def test_sizes_that_make_no_model_are_refused(settings, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make(**settings)
