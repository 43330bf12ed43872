"""The training benchmark: its models, its contestants, its page, on a tiny scale."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import rewrite_picture, training, training_page, training_plot
from experiments.bench.training_models import MODELS, cnn, decoder, mlp

pytestmark = pytest.mark.usefixtures("quick_compilation")
TINY = {
    "decoder-128": decoder(1, 8, positions=6, symbols=11, batch=3, heads=2),
    "cnn": cnn(3),
    "mlp": mlp(3),
}


@pytest.fixture(autouse=True)
def broadcasting():
    """Models are written as people write them."""
    with jax.numpy_rank_promotion("allow"):
        yield


def drawn(model):
    params = jax.jit(model.init)(jax.random.key(0))
    return params, model.draw(np.random.default_rng(0), model.batch)


@pytest.mark.slow
def test_a_batch_has_the_mean_loss_of_its_examples():
    model = TINY["decoder-128"]
    params = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0)))
    batch = model.draw(np.random.default_rng(0), model.batch)
    of_one = jax.jit(model.of_one)
    each = [float(of_one(params, example, None)) for example in np.asarray(batch)]
    assert len(set(each)) == 3
    whole = float(jax.jit(model.loss)(params, batch))
    assert whole == pytest.approx(np.mean(each), rel=1e-5)


def test_models_are_those_of_the_tables():
    shapes = {
        name: jax.eval_shape(model.init, jax.random.key(0))
        for name, model in MODELS.items()
    }
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for name, tree in shapes.items()
    }
    assert counts["mlp"] == 784 * 256 + 256 + 256 * 10 + 10
    assert counts["cnn"] == 26_010
    # Two blocks of 12 width^2 and two tables of 8,192 by 768.
    assert counts["wide"] == pytest.approx(27e6, rel=0.02)
    assert [m.batch for m in MODELS.values()] == [16, 4, 32, 2, 256, 256]
    assert set(training_page.GOALS) == set(MODELS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peer's own
@pytest.mark.parametrize("name", TINY)
def test_all_contestants_take_the_same_step(name):
    model = TINY[name]
    params, batch = drawn(model)

    def taken(step):
        return jax.jit(step)(params, batch, jax.random.key(1))

    plain = [taken(training.ordinary(model, batched)) for batched in (False, True)]
    assert distance(*plain) < 1e-6
    steps = training.contestants(model)
    silent = taken(steps.pop("auto, without noise"))
    results = {name: taken(step) for name, step in steps.items()}
    assert distance(silent, results["vmap"]) > 0.01  # there is noise
    for result in results.values():
        assert distance(result, results["vmap"]) < 1e-5


def distance(some, others):
    """The largest difference of two trees."""
    pairs = zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True)
    return max(float(jnp.abs(a - b).max()) for a, b in pairs)


def row(time, memory=1.0, compilation=2.0):
    same = {"time": time, "memory": memory, "compilation": compilation}
    by_hand = {name: value and 2 * value for name, value in same.items()}
    return {"against": {"vmap": same, "batched": by_hand}}


def made_up():
    """Results with everything in them that can happen."""
    ordinary = {
        "vmap": {"seconds": 0.5, "bytes": 2**20, "compilation": 1.0},
        "batched": {"seconds": 0.25, "bytes": 2**19, "compilation": 0.5},
    }
    private = {"auto": row(1.07), "vmap": row(123.4), "jax-privacy": row(None, 50.0)}
    model = {"title": "a decoder", "ordinary": ordinary, "private": private}
    alone = {"title": "a net", "ordinary": ordinary, "private": {"auto": row(1.5)}}
    return {
        "machine": training_page.machine(),
        "rounds": 3,
        "models": {"decoder-128": model, "mlp": alone},
    }


def test_the_page_shows_what_was_measured(tmp_path):
    results = made_up()
    table = training_page.table(results)
    assert "| a decoder | ordinary: the same loss | 500 ms | 1 MiB | 1 s | |" in table
    assert "| ordinary: loss by hand | 250 ms | 0.5 MiB | 0.5 s | |" in table
    assert "| dpkit auto | 1.07x | 1.00x | 2.00x | 2.14x, 2.00x |" in table
    assert "| a decoder | dpkit vmap | 123x |" in table
    assert "| jax-privacy | left out | 50x | 2.00x | left out, 100x |" in table
    summary = training_page.summary(results)
    ours, by_hand = "1.07x, 1.00x, 2.00x", "**2.14x**, **2.00x**, **4.00x**"
    assert f"| {ours} | 1.2x, 1.1x, 2.5x | {by_hand} | left out, 50x |" in summary
    assert "| 1.50x, 1.00x, 2.00x | 2x, any, any |" in summary
    assert "| not installed | 90x / 2.5x |" in summary
    page = training_page.page(
        results, tmp_path / "images" / "plot.png", tmp_path / "bench" / "page.md"
    )
    assert table in page
    assert summary in page
    assert "(../images/plot.png)" in page
    assert "![" not in training_page.page(results, None, tmp_path / "page.md")


@pytest.mark.slow
def test_plot_and_picture_are_drawn(tmp_path):
    sweeps = {
        "length": {64: {"auto": 1.1, "vmap": 2.0, "jax-privacy": None}},
        "width": {"64": {"auto": 1.2, "vmap": 3.0}, "128": {"auto": 1.1, "vmap": 2.0}},
    }
    training_plot.draw(sweeps, tmp_path / "new" / "plot.png")
    rewrite_picture.draw(tmp_path / "picture.png")
    for path in (tmp_path / "new" / "plot.png", tmp_path / "picture.png"):
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_what_is_too_slow_leaves_early(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(training.time, "process_time", lambda: float(next(clock)))
    monkeypatch.setattr(training, "BUDGET_SECONDS", 3.5)

    def program(params, batch, key):
        return params

    def slow(params, batch, key):
        for _ in range(100):
            next(clock)
        return params

    names = {("ordinary", "vmap"): program, ("private", "auto"): program}
    params = {"w": jnp.zeros(2)}
    seconds = training._seconds(
        {**names, ("private", "slow"): slow}, params, None, rounds=8
    )
    assert seconds["ordinary", "vmap"] == [1.0] * 8
    assert seconds["private", "auto"] == [1.0] * 4
    assert seconds["private", "slow"] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peer's own
def test_one_command_makes_page_and_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "MODELS", {"mlp": TINY["mlp"]})
    monkeypatch.setattr(training, "LENGTHS", (16,))
    monkeypatch.setattr(training, "WIDTHS", (8,))
    tiny = TINY["decoder-128"]
    monkeypatch.setattr(training, "decoder", lambda *size, batch: tiny)
    monkeypatch.setattr(training, "LEAST_SECONDS", 0.01)
    page, plot = tmp_path / "docs" / "training.md", tmp_path / "plot.png"
    arguments = ["--rounds", "1", "--markdown", str(page), "--plot", str(plot)]
    figures = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["training", *arguments, "--json", str(figures)])
    training.main()
    assert plot.stat().st_size > 1000
    assert figures.stat().st_size > 1000
    printed = capsys.readouterr().out
    for name in ("ordinary", "dpkit auto", "dpkit two_pass", "dpkit microbatch of 8"):
        assert name in printed
        assert name in page.read_text()


@pytest.mark.parametrize(
    ("code", "expected"), [(0, []), (-9, ["vmap"]), (1, RuntimeError)]
)
def test_a_doubtful_way_is_left_out_only_when_its_time_is_up(
    code, expected, monkeypatch
):
    model = dataclasses.replace(TINY["mlp"], doubtful=("vmap", "unknown"))
    monkeypatch.setattr(training, "MODELS", {"mlp": model})
    monkeypatch.setattr(training, "contestants", lambda model: {"vmap": None})
    asked = []

    def ended(command, **settings):
        asked.append(command[-2:])
        return types.SimpleNamespace(returncode=code)

    monkeypatch.setattr(training.subprocess, "run", ended)
    if isinstance(expected, list):
        assert training.hopeless("mlp") == expected
    else:
        with pytest.raises(expected):
            training.hopeless("mlp")
    assert asked == [["mlp", "vmap"]]
