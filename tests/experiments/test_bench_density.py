"""The bench of densities: its goals, its page, its contests, on a tiny scale."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.mechanisms.density import Gaussian, Kernel, SplineGrid
from experiments.bench import density as bench
from experiments.bench import density_goals, density_parquet, density_times
from experiments.bench.density_goals import Goal
from experiments.density_data import Mixture

GOALS = [
    Goal("errors", "grid: error ÷ the floor", 1.1, 1.15),
    Goal("times", "exact ÷ sketch", 40.0, 50.0, True),
    Goal("classes", "told alone", 3.0, None),
]


LINES = [
    "| grid: error ÷ the floor | 1.1 | ≤ 1.15 | yes |",
    "| exact ÷ sketch | 40 | ≥ 50 | **no** |",
    "| told alone | 3 |  |  |",
]


def test_a_goal_is_reached_or_not():
    assert [goal.line() for goal in GOALS] == LINES


def test_an_error_is_that_of_the_noise_and_the_structure():
    grid = SplineGrid(
        kernel=Kernel("gaussian", 1.0), domain=((0, 9),), noise=Gaussian(4.0)
    )
    points, queries = np.full((100, 1), 4.0), np.linspace(1, 8, 5)[:, None]
    truth = 100 * np.exp(-((queries[:, 0] - 4) ** 2))
    found = density_goals.error_of(grid, points, queries, truth, draws=200)
    # RMS of 1,000 numbers, five in a row dependent: within a sixth but for 1e-6.
    assert found == pytest.approx(1.07 * 4, rel=1 / 6)
    shifted = density_goals.error_of(grid, points, queries, truth + 100, draws=2)
    assert shifted == pytest.approx(100, rel=0.2)


def test_contestants_take_turns_and_the_first_round_counts_not():
    calls = []
    found = density_times.in_turns(
        {name: lambda name=name: calls.append(name) for name in "ab"}, 2, repeats=2
    )
    assert calls == ["a", "a", "b", "b"] * 3
    assert all(0 <= least.cpu and 0 < least.wall < 1 for least in found.values())


def test_exact_sums():
    points = np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)
    found = density_times.exact(jnp.asarray(points), jnp.zeros((1, 2)))
    assert float(found[0]) == pytest.approx(1 + np.exp(-1))


def test_points_come_in_chunks(monkeypatch):
    monkeypatch.setattr(density_times, "_CHUNK", 4)
    drawn = Mixture.drawn(16, np.random.default_rng(0))
    assert [len(some) for some in density_times.chunks(10, drawn)] == [4, 4, 2]


def test_a_peer_is_a_checkout_with_its_code(tmp_path):
    with pytest.raises(ValueError, match="needed a checkout with"):
        density_times.peer_module(tmp_path)
    (tmp_path / "lsq.py").write_text("NAME = 'lsq'\n")
    assert density_times.peer_module(tmp_path).NAME == "lsq"


def test_points_from_parquet_are_those_written(tmp_path):
    path = tmp_path / "points.parquet"
    density_parquet.write(path, 300)
    drawn = Mixture.drawn(16, np.random.default_rng([0]))
    (read,) = density_parquet.batches(path)
    (made,) = density_times.chunks(300, drawn)
    np.testing.assert_array_equal(read, made)
    found = density_parquet.read(path)
    assert found["count"] == pytest.approx(300, abs=300)  # seven deviations
    assert found["peak_mib"] > 50


def test_parts_are_kept_and_make_a_page(tmp_path, monkeypatch, capsys):
    seconds = {"queries": {"1000": {"sketch": 0.001, "exact": 0.002}}}
    monkeypatch.setattr(density_goals, "errors", lambda config: GOALS[:1])
    monkeypatch.setattr(density_goals, "timed", lambda peer: (GOALS[1:2], seconds))
    kept, page, plot = (tmp_path / name for name in ("a.json", "a.md", "a.png"))
    for part in ("errors", "times"):
        called = ["density", "--parts", part, "--json", str(kept)]
        called += ["--markdown", str(page), "--plot", str(plot)]
        monkeypatch.setattr(sys, "argv", called)
        bench.main()
    assert set(json.loads(kept.read_text())) >= {"errors", "times", "seconds"}
    text = page.read_text()
    assert GOALS[0].line() in text
    assert GOALS[1].line() in text
    assert "](a.png)" in text
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "**no**" in capsys.readouterr().out
