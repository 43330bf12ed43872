"""A density build in the frame: what it pays, releases, refuses and shows."""

import json

import numpy as np
import pytest

from dpkit import Budget, BudgetExceeded, Ledger
from dpkit.density import load as load_release
from dpkit.density import points as reading
from dpkit.density.job import DENSITY
from dpkit.jobs import dry_run, load, run
from dpkit.jobs.session import Session
from dpkit.mechanisms.density import Structure

pytestmark = pytest.mark.usefixtures("quick_compilation", "no_curves")
TEXT = """
[data]
path = "points.csv"
[density]
bandwidth = 1.0
domain = [[0, 9], [0, 9]]
[privacy]
epsilon = 1.0
delta = 1e-6
relation = "add_remove"
"""
ROWS = np.random.default_rng(0).normal(4.5, 1.0, (300, 2)).round(3)
OFTEN = [pytest.mark.slow, pytest.mark.guard]
SEED = "test.insecure_seed=1"


@pytest.fixture
def here(tmp_path):
    write(tmp_path / "points.csv", ROWS)
    return tmp_path


def write(path, rows):
    np.savetxt(path, rows, delimiter=",", header="x,y", comments="")


def config(folder, *changes, text=TEXT):
    return load(DENSITY.config, text, changes, folder=folder)


def built(folder, *changes, out="out", **options):
    return run(DENSITY, config(folder, *changes), folder / out, **options).result


def total(folder, *changes):
    made = DENSITY.prepare(config(folder, *changes), offline=True, tell=None)
    return made.shard.private_total


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_build_answers_and_says_what_it_cost(here):
    result = built(here)
    assert files_in(here / "out") == [
        "config.toml",
        "density.safetensors",
        "ledger.db",
        "report.html",
        "result.json",
    ]
    assert result == json.loads((here / "out" / "result.json").read_text())
    release = load_release(here / "out")
    queries = np.array([[4.0, 5.0], [0.5, 8.0]])
    near = np.square(ROWS[:, None] - queries).sum(axis=2)
    found = release.query(queries)
    # Five deviations and the bias: 1e-6.
    error = np.abs(found.values - np.exp(-near).sum(axis=0))
    assert (error < 5 * found.stddev + found.bias_bound).all()
    for name in ("structure", "kernel", "bandwidth", "expected_error", "floor"):
        assert result[name] == release.facts[name]
    for name in ("epsilon", "delta", "relation", "ledger_head", "dataset"):
        assert result[name] == release.facts[name]
    assert result["structure"] == "SplineGrid"
    assert (result["kernel"], result["bandwidth"]) == ("gaussian", 1.0)
    assert (result["dataset"], result["unit"]) == ("points.csv", "example")
    assert 0 <= result["seconds"] < 60
    assert "insecure_seed" not in release.facts


@pytest.mark.parametrize(
    ("relation", "delta"),
    [
        ("add_remove", 0.0),
        ("replace_one", 1e-6),
        pytest.param("replace_one", 0.0, marks=OFTEN),
        pytest.param("zero_out", 0.0, marks=OFTEN),
        pytest.param("zero_out", 1e-6, marks=OFTEN),
    ],
)
def test_what_was_asked_for_is_what_its_own_ledger_pays(here, relation, delta):
    changes = f"privacy.relation={relation}", f"privacy.delta={delta}"
    result = built(here, *changes)
    assert 0.9999 < result["epsilon"] <= 1.0
    assert (result["delta"], result["relation"]) == (delta, relation)
    assert result["certified"] and result["ledger_spent"]["others"] == 0
    with Ledger.open(here / "out" / "ledger.db") as ledger:
        assert ledger.budget == Budget(1.0, delta)
        ledger.verify(recount=True)
        assert [e.kind for e in ledger.entries()][1:] == ["reserve", "commit"]


def often(*given):
    """A row that the fast suite leaves out."""
    return pytest.param(*given, marks=OFTEN)


@pytest.mark.parametrize(
    ("changes", "structure"),
    [
        (["density.kernel=l1"], "CdfDistances"),
        (["density.structure=sketch", "density.features=64"], "KernelSketch"),
        often(["density.kernel=l1", "privacy.delta=0"], "HatDistances"),
        often(["density.kernel=l2"], "ProjectedDistances"),
        often(["density.kernel=l2_squared"], "SquaredDistances"),
        often(["density.kernel=lp", "density.power=1.5"], "HatDistances"),
        often(
            ["density.landmarks=points.csv", "density.landmarks_public=true"],
            "LandmarkSketch",
        ),
    ],
)
def test_every_structure_comes_through_the_frame(here, changes, structure):
    text = TEXT
    if "density.kernel" in changes[0]:
        text = TEXT.replace("bandwidth = 1.0\n", "")
    run(DENSITY, config(here, *changes, text=text), here / "out")
    release = load_release(here / "out")
    assert type(release.structure).__name__ == structure
    assert np.isfinite(release.query([[4.0, 5.0]]).values).all()
    assert "svg" in (here / "out" / "report.html").read_text()


class Killed(Exception):
    """Stands for a process that is gone."""


def die(*given, **options):
    raise Killed


def killed(folder, *changes, **options):
    with pytest.raises(Killed):
        built(folder, *changes, on_progress=die, **options)


def charges(where):
    with Ledger.open(where) as ledger:
        return [e for e in ledger.entries() if e.kind in ("spend", "reserve")]


def test_killed_after_the_charge_it_pays_once_and_has_the_same_noise(here, monkeypatch):
    seen, real = [], Structure.privatize

    def watched(*given):
        seen.append(real(*given))
        return seen[-1]

    monkeypatch.setattr(Structure, "privatize", watched)
    killed(here)
    assert len(charges(here / "out" / "ledger.db")) == 1
    assert not (here / "out" / "result.json").exists()
    built(here)
    assert len(charges(here / "out" / "ledger.db")) == 1
    assert np.array_equal(*seen)
    assert np.array_equal(load_release(here / "out").values, seen[0])
    built(here, out="another")
    assert not np.array_equal(seen[0], seen[2])
    assert not (here / "out" / "private").exists()


def test_killed_before_the_charge_nothing_is_paid(here, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Session, "reserve", die)
        built(here)
    assert files_in(here) == ["points.csv"]
    assert built(here)["epsilon"] <= 1.0


@pytest.mark.parametrize("what", ["points.csv", "landmarks.csv"])
def test_other_points_are_refused_on_resumption(here, what):
    write(here / "landmarks.csv", ROWS[:5])
    changes = ["density.landmarks=landmarks.csv", "density.landmarks_public=true"]
    killed(here, *changes)
    write(here / what, ROWS[1:6])
    with pytest.raises(ValueError, match="differs from the unfinished run"):
        built(here, *changes)
    assert len(charges(here / "out" / "ledger.db")) == 1


def test_the_points_are_read_before_anything_is_on_disk_or_timed(here, monkeypatch):
    """The time of reading tells how many there are: no file may show it."""
    real = reading.Points.batches
    looked = []

    def watched(self, tell=None):
        for batch in real(self, tell):
            looked.append(files_in(here))
            yield batch

    def too_late(*given):
        raise AssertionError("read after the session began")

    begin = Session.begin

    def began(*given):
        monkeypatch.setattr(reading.Points, "batches", too_late)
        return begin(*given)

    monkeypatch.setattr(reading.Points, "batches", watched)
    monkeypatch.setattr(Session, "begin", began)
    built(here)
    assert looked == [["points.csv"]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["density.domain=[[0,9]]"], "density.domain=.*2 coordinates"),
        (["data.columns=['z']"], "data.columns: the source has no column 'z'"),
        (["data.path=none.csv"], "data.path=.*doesn't exist"),
        (["density.landmarks=points.csv"], "landmarks_public=False: needed True"),
        (["density.landmarks=none.csv"], "density.landmarks='none.csv': .*none.csv"),
        (["density.features=7", "density.structure=sketch"], "density.features=7"),
        (["density.bandwidth=1e-4", "density.structure=spline"], "needed at most"),
    ],
)
def test_what_is_refused_leaves_nothing(here, changes, words):
    with pytest.raises(ValueError, match=words):
        built(here, *changes)
    assert files_in(here) == ["points.csv"]


def test_a_broken_file_is_refused_and_leaves_nothing(here):
    (here / "points.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"data.path=.*can't be read"):
        built(here, "data.path=points.parquet")
    assert files_in(here) == ["points.csv", "points.parquet"]


def test_a_distance_needs_a_domain_and_a_kernel_a_bandwidth(here):
    text = TEXT.replace("bandwidth = 1.0\n", "")
    with pytest.raises(ValueError, match=r"density\.bandwidth is missing"):
        run(DENSITY, config(here, text=text), here / "out")
    text = text.replace("domain = [[0, 9], [0, 9]]", 'kernel = "l1"')
    with pytest.raises(ValueError, match=r"density\.domain is missing"):
        run(DENSITY, config(here, text=text), here / "out")


def test_points_that_are_none_change_nothing(here):
    expected = total(here)
    lines = (here / "points.csv").read_text().splitlines()
    lines[1:1] = ["nan,1", "1,", "x,y", "inf,2", "1,2,3", "7"]
    (here / "points.csv").write_text("\n".join(lines) + "\n")
    assert np.array_equal(total(here), expected)
    assert built(here)["shown"][-1][0] == "records"


def test_a_weight_counts_as_so_many_points(here):
    rows = np.column_stack([ROWS, np.resize([1, 2, 5, np.nan, -1], len(ROWS))])
    np.savetxt(here / "w.csv", rows, delimiter=",", header="x,y,w", comments="")
    write(here / "points.csv", np.repeat(ROWS, np.resize([1, 2, 2, 0, 0], 300), axis=0))
    changes = ["data.path=w.csv", "data.weight_column=w", "data.max_weight=2"]
    weighted = DENSITY.prepare(config(here, *changes), offline=True, tell=None)
    exact = DENSITY.prepare(config(here), offline=True, tell=None)
    sums = [2 * weighted.shard.private_total, exact.shard.private_total]
    # A step of the grid is 2^-18 of a weight; each of 300 points rounds once.
    assert sums[1].max() > 1e6
    assert np.abs(sums[0] - sums[1]).max() <= 2 * 300


def test_a_unit_of_several_points_is_bounded_and_alone_decides(here):
    rows = np.column_stack([ROWS, np.arange(300) // 10])
    np.savetxt(here / "w.csv", rows, delimiter=",", header="x,y,who", comments="")
    changes = [
        "data.path=w.csv",
        "data.unit_column=who",
        "privacy.unit=user",
        "privacy.points_per_unit=2",
    ]
    whole = total(here, *changes)
    result = built(here, *changes)
    assert result["unit"] == "user"
    assert load_release(here / "out").structure.points_per_unit == 2
    np.savetxt(here / "w.csv", rows[10:], delimiter=",", header="x,y,who", comments="")
    structure = load_release(here / "out").structure
    moved = (whole - total(here, *changes)) * structure.step
    assert np.abs(moved).sum() == pytest.approx(2.0, rel=1e-3)  # two points' weights
    assert np.linalg.norm(moved) <= structure.reach.l2


def test_a_shared_ledger_pays_for_two_and_refuses_the_third(here):
    terms = {"relation": "add_remove", "unit": "example", "dataset": "survey 3"}
    where = here / "team.db"
    Ledger.open(where, budget=Budget(2.0, 1e-5), **terms).close()
    # Gaussian releases add up to less than their epsilons: two of 1 are some 1.5.
    for number in range(2):
        result = built(here, out=str(number), ledger=where)
        assert result["epsilon"] <= 1.0 and result["ledger_spent"]["others"] == number
        assert result["dataset"] == "survey 3"
    before = where.read_bytes()
    with pytest.raises(BudgetExceeded):
        built(here, "privacy.epsilon=2", out="third", ledger=where)
    assert where.read_bytes() == before
    assert not (here / "third").exists()


def test_a_dry_run_says_the_cost_and_needs_no_points_where_the_domain_is_known(here):
    (here / "points.csv").unlink()
    cost = dry_run(DENSITY, config(here))
    assert cost.bound is not None
    assert cost.bound.upper == pytest.approx(1.0, abs=1e-6)
    assert cost.estimate["structure"] == "SplineGrid"
    assert 1 < cost.estimate["expected_error"] / cost.estimate["floor"] < 1.2
    assert files_in(here) == []
    text = TEXT.replace("domain = [[0, 9], [0, 9]]\n", "")
    with pytest.raises(ValueError, match="doesn't exist"):
        dry_run(DENSITY, config(here, text=text))


def test_a_known_seed_is_marked_in_the_released_file_too(here):
    for name in "ab":
        assert built(here, SEED, out=name)["insecure_seed"] is True
    first, second = (load_release(here / name) for name in "ab")
    assert np.array_equal(first.values, second.values)
    assert first.facts["insecure_seed"] is True


def test_nothing_private_is_in_the_folder(here):
    """But for the noise: neither a record, nor the sum without it, nor a key."""
    write(here / "points.csv", np.vstack([ROWS, [[4.711471147, 1.317131713]]]))
    made = DENSITY.prepare(config(here), offline=True, tell=None)
    exact = made.shard.private_total * made.choice.structure.step
    built(here)
    for path in (here / "out").iterdir():
        content = path.read_bytes()
        assert b"4.7114" not in content and b"1.3171" not in content, path
        for values in (exact, made.shard.private_total):
            top = int(np.argmax(values))
            assert values[top - 1 : top + 1].all()
            assert values[top - 1 : top + 1].tobytes() not in content, path
    facts = load_release(here / "out").facts
    assert not [name for name in facts if "key" in name or "secret" in name]


@pytest.mark.parametrize("count", [0, 1])
def test_as_few_as_no_points_are_released_alike(here, count):
    (here / "points.csv").write_text("x,y\n" + "4,5\n" * count)
    result = built(here)
    assert result["structure"] == "SplineGrid"
