"""`budget epsilon` and `budget calibrate`: published values, refusals, JSON."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import dpkit.accountants
from dpkit.accountants import PrivacyBound
from dpkit.cli.app import app

RUN = CliRunner()
EPSILON = {
    "--noise-multiplier": "1",
    "--sampling-rate": "0.01",
    "--steps": "1000",
    "--delta": "1e-5",
    "--relation": "add_remove",
    "--sampling": "poisson",
}
CALIBRATE = {
    "--epsilon": "1",
    "--sampling-rate": "1",
    "--steps": "1",
    "--delta": "1e-5",
    "--relation": "add_remove",
    "--sampling": "full_batch",
}
BOUND = (
    "delta",
    "lower",
    "estimate",
    "upper",
    "certified",
    "method_lower",
    "method_upper",
    "method_estimate",
    "relation",
    "unit",
    "regime",
    "warnings",
)


def budget(command, options, *more):
    words = [word for pair in options.items() for word in pair]
    return RUN.invoke(app, ["budget", command, *words, *more])


def test_epsilon_of_a_poisson_sampled_run():
    done = budget("epsilon", EPSILON, "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    # Inversion of the contour integral of the loss (remove direction): 1.8282367.
    assert 1.828236 <= answer["upper"] <= 1.8282367 * 1.01
    assert answer["certified"] is True
    assert set(BOUND) < set(answer)
    assert answer["schema_version"] == 1
    assert (answer["relation"], answer["unit"]) == ("add_remove", "example")
    assert (answer["sampling"], answer["delta"]) == ("poisson", 1e-5)


@pytest.mark.parametrize(
    "relation, noise, true",
    [
        # Analytic Gaussian (Balle, Wang 2018, arXiv:1805.06530, Theorem 8), by mpmath.
        ("add_remove", "1", 4.37717809568),
        ("zero_out", "1", 4.37717809568),
        ("replace_one", "2", 4.37717809568),  # a replaced record moves twice as far
    ],
)
def test_epsilon_of_the_gaussian(relation, noise, true):
    options = EPSILON | {
        "--sampling": "full_batch",
        "--sampling-rate": "1",
        "--steps": "1",
        "--relation": relation,
        "--noise-multiplier": noise,
    }
    answer = json.loads(budget("epsilon", options, "--json").stdout)
    assert true - 1e-9 <= answer["upper"] <= true * 1.01


def test_human_output_names_everything():
    done = budget("epsilon", EPSILON, "--unit", "user")
    for part in (
        "epsilon",
        "≤ 1.8",
        "certified",
        "1e-5",
        "add_remove",
        "user",
        "poisson, rate 0.01",
        "1000",
        "static",
    ):
        assert part in done.stdout, part
    assert "estimate" not in done.stdout
    assert done.stderr == ""


def test_accountants_can_be_named():
    upper = {
        name: json.loads(
            budget("epsilon", EPSILON, "--accountant", name, "--json").stdout
        )["upper"]
        for name in ("best", "rdp", "pld")
    }
    assert upper["best"] <= min(upper["rdp"], upper["pld"])
    assert upper["pld"] < upper["rdp"]


def test_calibrate_the_gaussian():
    answer = json.loads(budget("calibrate", CALIBRATE, "--json").stdout)
    # Analytic Gaussian, by mpmath: sigma = 3.73063163482 for (1, 1e-5).
    assert 3.7306316 <= answer["noise_multiplier"] <= 3.7306317 * 1.01
    assert answer["upper"] <= 1
    assert answer["certified"] is True
    assert set(BOUND) < set(answer)
    assert answer["unit"] == "example"


def test_calibrated_noise_is_printed_in_full():
    answer = json.loads(budget("calibrate", CALIBRATE, "--json").stdout)
    text = budget("calibrate", CALIBRATE).stdout
    assert repr(answer["noise_multiplier"]) in text


@pytest.mark.parametrize("option", ["--relation", "--sampling", "--delta", "--steps"])
@pytest.mark.parametrize("command", ["epsilon", "calibrate"])
def test_no_defaults_for_what_the_answer_hangs_on(command, option):
    options = dict(EPSILON if command == "epsilon" else CALIBRATE)
    del options[option]
    done = budget(command, options, "--json")
    assert done.exit_code == 2
    assert option in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "sampling",
    [
        "shuffle",
        "shuffled",
        "fixed_batches",
        "cyclic",
        "fixed_size",
        "wor",
        "balls_in_bins",
    ],
)
def test_other_sampling_is_not_taken_for_poisson(sampling):
    done = budget("epsilon", EPSILON | {"--sampling": sampling})
    assert done.exit_code == 2
    assert "--sampling" in done.stderr
    assert "must not be accounted as Poisson" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "option, value",
    [
        ("--noise-multiplier", "0"),
        ("--noise-multiplier", "-1"),
        ("--noise-multiplier", "nan"),
        ("--noise-multiplier", "inf"),
        ("--noise-multiplier", "much"),
        ("--sampling-rate", "0"),
        ("--sampling-rate", "1.5"),
        ("--sampling-rate", "nan"),
        ("--steps", "0"),
        ("--steps", "1.5"),
        ("--delta", "0"),
        ("--delta", "1"),
        ("--delta", "nan"),
        ("--relation", "adjacent"),
        ("--sampling", "Poisson"),
        ("--accountant", "gut"),
    ],
)
def test_bad_values_are_refused_by_name(option, value):
    done = budget("epsilon", EPSILON | {option: value})
    assert done.exit_code == 2
    assert option in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


CUT = EPSILON | {
    "--sampling-rate": "0.1",
    "--max-batch-size": "110",
    "--max-records": "1000",
}


def test_batches_that_can_be_cut_have_the_event_of_the_plan():
    from dpkit import DPSGDPlan

    plan = DPSGDPlan.create(
        max_records=1000,
        expected_batch_size=100,
        max_batch_size=110,
        steps=1000,
        clip_norm=0.3,
        noise_multiplier=1.0,
    )
    want = plan.epsilon(1e-5, relation="add_remove").upper
    done = budget("epsilon", CUT, "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert want is not None
    assert answer["upper"] == pytest.approx(want, rel=1e-12)
    assert (answer["max_batch_size"], answer["max_records"]) == (110, 1000)
    plain = json.loads(
        budget("epsilon", EPSILON | {"--sampling-rate": "0.1"}, "--json").stdout
    )
    assert "max_batch_size" not in plain
    # Cutting every seventh batch costs much: another record may take one's place.
    assert plain["upper"] < 0.6 * want
    text = budget("epsilon", CUT).stdout
    assert "110" in text and "1000" in text


def test_noise_for_batches_that_can_be_cut():
    options = CUT | {"--steps": "10", "--epsilon": "3"}
    del options["--noise-multiplier"]
    found = json.loads(budget("calibrate", options, "--json").stdout)
    again = CUT | {
        "--steps": "10",
        "--noise-multiplier": repr(found["noise_multiplier"]),
    }
    answer = json.loads(budget("epsilon", again, "--json").stdout)
    assert 2.9 < answer["upper"] <= 3.0


@pytest.mark.parametrize(
    "change, option",
    [
        ({"--max-batch-size": None}, "--max-records"),
        ({"--max-records": None}, "--max-batch-size"),
        ({"--max-batch-size": "0"}, "--max-batch-size"),
        ({"--max-batch-size": "99"}, "--max-batch-size"),
        ({"--max-records": "0"}, "--max-records"),
        (
            {"--sampling": "full_batch", "--sampling-rate": "1"},
            "--max-batch-size",
        ),
    ],
)
def test_cut_batches_are_declared_wholly_or_not_at_all(change, option):
    options = {name: value for name, value in (CUT | change).items() if value}
    done = budget("epsilon", options, "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"dpkit budget epsilon: {option}: " in done.stderr
    assert done.stderr.count("\n") == 1


def test_cut_batches_under_replace_one_have_the_plain_bound_and_a_correction():
    replaced = CUT | {"--relation": "replace_one", "--max-batch-size": "400"}
    told = []
    for gone in ((), ("--max-batch-size", "--max-records")):
        options = {name: v for name, v in replaced.items() if name not in gone}
        done = budget("epsilon", options, "--json")
        assert done.exit_code == 0, done.stderr
        told.append(json.loads(done.stdout))
    cut, plain = told
    assert cut["certified"] and plain["certified"]
    assert plain["upper"] < cut["upper"] < 1.01 * plain["upper"]
    # With few slots the correction takes more than all of delta.
    few = budget("epsilon", replaced | {"--max-batch-size": "110"}, "--json")
    assert few.exit_code == 0, few.stderr
    assert json.loads(few.stdout)["certified"]
    assert json.loads(few.stdout)["upper"] == "inf"


def test_delta_is_never_shown_smaller_than_it_is():
    """A pair holds for its own delta, so for a larger one, and not for a smaller."""
    done = budget("epsilon", EPSILON | {"--delta": "1.00049e-5"})
    assert "1.001e-5" in done.stdout


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_bad_targets_are_refused_by_name(value):
    done = budget("calibrate", CALIBRATE | {"--epsilon": value})
    assert done.exit_code == 2
    assert "--epsilon" in done.stderr


@pytest.mark.parametrize("command", ["epsilon", "calibrate"])
def test_full_batches_have_rate_one(command):
    options = EPSILON if command == "epsilon" else CALIBRATE
    done = budget(
        command, options | {"--sampling": "full_batch", "--sampling-rate": "0.5"}
    )
    assert done.exit_code == 2
    assert "--sampling-rate" in done.stderr


def test_without_a_certificate_the_answer_is_an_estimate_and_the_code_is_four(
    monkeypatch,
):
    bound = PrivacyBound(
        delta=1e-5,
        estimate=1.5,
        method_estimate="gdp",
        relation="add_remove",
        unit="example",
    )
    monkeypatch.setitem(
        vars(dpkit.accountants), "epsilon", lambda *args, **options: bound
    )
    text = budget("epsilon", EPSILON)
    assert text.exit_code == 4
    assert "≈ 1.5, an estimate" in text.stdout
    assert "no accountant certifies" in text.stderr
    machine = budget("epsilon", EPSILON, "--json")
    assert machine.exit_code == 4
    assert json.loads(machine.stdout)["certified"] is False


def test_infinite_epsilon_is_no_guarantee(monkeypatch):
    bound = PrivacyBound(
        delta=1e-5,
        upper=float("inf"),
        certified=True,
        method_upper="rdp",
        relation="add_remove",
        unit="example",
    )
    solution = SimpleNamespace(value=1.0, bound=bound)
    monkeypatch.setitem(
        vars(dpkit.accountants), "calibrate", lambda *args, **options: solution
    )
    assert "infinite: no guarantee" in budget("calibrate", CALIBRATE).stdout
    machine = budget("calibrate", CALIBRATE, "--json")
    assert json.loads(machine.stdout)["upper"] == "inf"
