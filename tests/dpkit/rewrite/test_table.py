"""What `plan` tells about every parameter, and what `check` finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.rewrite import clipping, products
from tests.bare import clipped_grad

pytestmark = pytest.mark.usefixtures("quick_compilation")

T, V, D, H = 5, 40, 6, 8


def loss_fn(p, tokens, key):
    """A table used twice, layers in a loop, an offset, a leaf that is not used."""
    x = p["table"][tokens]

    def layer(x, w):
        return jnp.tanh(x @ w), None

    x, _ = jax.lax.scan(layer, x, p["stack"])
    x = jax.nn.silu(x @ p["up"] + p["offset"][None])[:, :D] * p["scale"]
    return -jax.nn.log_softmax(x @ p["table"].T)[:, 0].sum()


def problem(rows=3):
    """Parameters and a batch."""
    rng = np.random.default_rng(0)
    shapes = {"table": (V, D), "stack": (2, D, D), "up": (D, H), "offset": (H,)}
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    params |= {"scale": np.float32(0.7), "unused": np.zeros(3, np.float32)}
    return params, rng.integers(0, V, (rows, T)).astype(np.int32)


def rows_of(kappa):
    """The rows of the table by name."""
    params, tokens = problem()
    table = clipped_grad(loss_fn, clip_norm=1.0, kappa=kappa).plan(params, tokens)
    return table, {row.path: row for row in table}


def test_every_parameter_has_a_row():
    table, rows = rows_of(kappa=1.0)
    assert len(table) == 6
    assert {path: row.form for path, row in rows.items()} == {
        # T (V + D) for logits and T D for the lookup: 260 numbers against 240.
        "table": "whole",
        # Two blocks of 36 against 2 T (D + D) = 120.
        "stack": "whole",
        # 48 against T (D + H) = 70.
        "up": "whole",
        "offset": "whole",
        "scale": "whole",
        "unused": "none",
    }
    assert rows["table"].sites == ("gather", "dot_general")
    assert rows["stack"].sites == ("dot_general",)
    assert rows["unused"].sites == ()
    assert (rows["unused"].bytes, rows["unused"].flops) == (0, 0)
    assert rows["up"].shape == (D, H)
    assert (rows["up"].rows, rows["up"].bytes) == (T, 4 * D * H)


def test_small_kappa_takes_products_wherever_a_gradient_factors():
    _, rows = rows_of(kappa=0.0)
    forms = {path: row.form for path, row in rows.items()}
    products = {"table", "stack", "up"}
    assert {path for path, form in forms.items() if form == "product"} == products
    assert rows["table"].rows == 2 * T
    assert rows["table"].bytes == 4 * T * (D + V + D)
    assert rows["table"].flops == 2 * T * T * (D + V + D)
    assert rows["stack"].bytes == 4 * 2 * T * (D + D)
    assert rows["up"].flops == 2 * T * T * (D + H)


def test_the_text_has_a_line_a_parameter_and_totals():
    table, rows = rows_of(kappa=0.0)
    lines = str(table).splitlines()
    assert len(lines) == 1 + 6 + 1
    assert lines[0].split() == "parameter shape sites form rows bytes flops".split()
    scale = next(line for line in lines if line.startswith("scale"))
    assert "scalar" in scale
    total = lines[-1].replace(",", "").split()
    assert total[0] == "total"
    assert int(total[1]) == sum(row.bytes for row in rows.values())
    assert int(total[2]) == sum(row.flops for row in rows.values())


def test_shapes_are_enough_and_keys_may_be_needed():
    params, tokens = problem()
    params, tokens = jax.eval_shape(lambda: (params, tokens))

    def noisy(p, x, key):
        return loss_fn(p, x, key) * jax.random.normal(key)

    f = clipped_grad(noisy, clip_norm=1.0)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3))
    assert {row.path for row in f.plan(params, tokens, keys)} == set(params)


def dense(p, x, key):
    """A dense layer, with a parameter beside it that is not used."""
    return jnp.sum(jnp.tanh(x @ p["w"]))


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"mode": "two_pass"}, marks=pytest.mark.slow)]
)
def test_check_reports_norms_and_parameters_that_do_not_move(options):
    rng = np.random.default_rng(0)
    params = {
        "w": rng.normal(size=(4, 3)).astype(np.float32),
        "unused": np.zeros(2, np.float32),
    }
    x = rng.normal(size=(3, 2, 4)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"doesn't use params\['unused'\]"):
        found = clipped_grad(dense, clip_norm=1.0, **options).check(params, x)
    assert found.unmoved == ("unused",)
    assert found.norms.shape == found.trusted.shape == (2,)
    np.testing.assert_allclose(found.norms, found.trusted, rtol=1e-5)
    assert (found.trusted > 0).all()


def test_check_raises_where_a_mode_is_wrong(monkeypatch):
    """Squares of each row alone, without what rows have in common: 38 for 44."""

    def row_by_row(uses, later):
        del later
        use = uses[0]
        squares = (use.left**2).sum(-1) * (use.right**2).sum(-1)
        return squares.sum((1, 2))

    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(9, 8)), rng.normal(size=(3, 4, 9))
    params, x = {"w": w.astype(np.float32)}, x.astype(np.float32)
    f = clipped_grad(dense, clip_norm=1.0, kappa=0.0)
    f.check(params, x)
    monkeypatch.setattr(products, "squared_norm", row_by_row)
    with pytest.raises(ValueError, match="use mode='vmap'"):
        f.check(params, x)


@pytest.mark.slow
def test_check_raises_where_a_sum_is_wrong(monkeypatch):
    """Norms that are right do not hide it."""
    weighted = clipping._weighted

    def slightly_more(form, held, weights, leaf):
        return 1.01 * weighted(form, held, weights, leaf)

    params, tokens = problem()
    del params["unused"]
    f = clipped_grad(lambda p, x, key: loss_fn(p, x, key), clip_norm=1.0)
    monkeypatch.setattr(clipping, "_weighted", slightly_more)
    with pytest.raises(ValueError, match="use mode='vmap'"):
        f.check(params, tokens)
