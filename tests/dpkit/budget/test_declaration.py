"""Declared runs: what is read, what is refused, and the traps of the shorthand."""

import json
import math

import pytest

from dpkit.accountants import Incompatible, UnsupportedRelation, epsilon, to_json
from dpkit.budget.declaration import declare, read
from dpkit.budget.shorthand import expand

GAUSSIAN = {"kind": "gaussian", "noise_multiplier": 2.0, "count": 3}
RUN = {"relation": "add_remove", "unit": "user", "delta": 1e-5, "events": [GAUSSIAN]}
DPSGD = {
    "dataset_size": 60000,
    "batch_size": 256,
    "epochs": 15,
    "noise_multiplier": 1.1,
    "sampling": "poisson",
}


# The same run in the words of the library.
OWN = {
    "max_records": 60000,
    "expected_batch_size": 256,
    "epochs": 15,
    "noise_multiplier": 1.1,
    "sampling": "poisson",
}


def without(name, data=DPSGD):
    return {key: value for key, value in data.items() if key != name}


def test_events_are_read_in_order_with_their_counts():
    run = declare(RUN | {"events": [GAUSSIAN, {"kind": "pure", "epsilon": "0.5"}]})
    assert [to_json(run.part(n))["kind"] for n in (1, 2)] == ["repeat", "sequential"]
    assert declare(run.to_json()) == declare(run.to_json())
    assert declare(run.to_json()).event == run.event


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_both_kinds_of_file(tmp_path, suffix):
    path = tmp_path / f"run.{suffix}"
    toml = (
        'relation = "add_remove"\nunit = "user"\ndelta = 1e-5\n'
        '[[events]]\nkind = "gaussian"\nnoise_multiplier = 2\ncount = 3\n'
    )
    path.write_text(json.dumps(RUN) if suffix == "json" else toml)
    run = read(path)
    assert run.event == declare(RUN).event
    assert (str(run.relation), run.unit, run.delta) == ("add_remove", "user", 1e-5)
    assert read(path, delta=1e-7).delta == 1e-7


@pytest.mark.parametrize(
    "change, named",
    [
        ({"relation": None}, "relation is missing"),
        ({"relation": "adjacent"}, "relation"),
        ({"events": None}, "events or dpsgd"),
        ({"dpsgd": DPSGD}, "not both"),
        ({"events": []}, "at least one"),
        ({"events": "gaussian"}, "events"),
        ({"events": [3]}, "3"),
        ({"delta": 1.0}, "delta"),
        ({"delta": "1e-5"}, "delta"),
        ({"unit": ""}, "unit"),
        ({"unit": 3}, "unit"),
        ({"epsilon": 1.0}, "epsilon"),
        ({"schema_version": 2}, "schema_version"),
        ({"schema_version": True}, "schema_version"),
        ({"events": [GAUSSIAN | {"count": 0}]}, "count"),
        ({"events": [GAUSSIAN | {"count": 1.5}]}, "count"),
        ({"events": [GAUSSIAN | {"count": True}]}, "count"),
        ({"events": [GAUSSIAN | {"noise": 1}]}, "noise"),
        ({"events": [GAUSSIAN | {"noise_multiplier": 0}]}, "noise_multiplier"),
        ({"events": [GAUSSIAN | {"v": 2}]}, "v=2"),
        ({"events": [{"kind": "shuffled_gaussian"}]}, "shuffled_gaussian"),
    ],
)
def test_what_is_no_declaration_is_refused_by_name(tmp_path, change, named):
    data = {name: v for name, v in (RUN | change).items() if v is not None}
    with pytest.raises((ValueError, TypeError), match=named):
        declare(data)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=named):
        read(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"relation": "add_remove", "relation": "zero_out"}',
        '{"delta": NaN}',
        '{"delta": Infinity}',
        "[" * 100_000,
        "\N{BYTE ORDER MARK}{}",
    ],
    ids=range(8),
)
def test_broken_files_are_bad_input(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"run\.json"):
        read(path)


def test_a_file_and_an_option_must_not_disagree(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RUN))
    assert read(path, relation="add_remove", unit="user").unit == "user"
    for other in ({"relation": "zero_out"}, {"unit": "example"}):
        with pytest.raises(Incompatible):
            read(path, **other)
    path.write_text(json.dumps(without("relation", RUN)))
    assert str(read(path, relation="zero_out").relation) == "zero_out"


def test_one_parameter_is_varied_where_one_event_has_it():
    run = declare(RUN)
    assert run.varied("noise_multiplier", 5.0).items[0]["noise_multiplier"] == 5.0
    assert run.varied("steps", 7).items[0]["count"] == 7
    assert run.items[0]["count"] == 3
    with pytest.raises(ValueError, match="sampling_rate"):
        run.varied("sampling_rate", 0.5)
    twice = declare(RUN | {"events": [GAUSSIAN, GAUSSIAN]})
    for name in ("noise_multiplier", "steps"):
        with pytest.raises(ValueError, match=name):
            twice.varied(name, 5)


def test_steps_are_rounded_up_once():
    """60000/256 is no integer: 15 epochs are 3516 steps, not 15 * 235 = 3525."""
    item = expand(DPSGD, "add_remove")[0][0]
    assert item == {
        "kind": "poisson_gaussian",
        "noise_multiplier": 1.1,
        "sampling_rate": 256 / 60000,
        "count": 3516,
    }


@pytest.mark.parametrize(
    "epochs, steps", [(1, 10), (0.1, 1), (1.1, 11), (2.3, 23), (0.01, 1)]
)
def test_epochs_are_the_decimal_number_that_was_written(epochs, steps):
    """In binary 1.1 * 10 is above 11 and 2.3 * 10 below 23."""
    data = DPSGD | {"dataset_size": 1000, "batch_size": 100, "epochs": epochs}
    assert expand(data, "add_remove")[0][0]["count"] == steps


@pytest.mark.parametrize(
    "change, passes",
    [
        ({"epochs": 15}, 15),
        ({"epochs": 1.5}, 2),
        ({"epochs": None, "steps": 234}, 1),
        ({"epochs": None, "steps": 235}, 2),
    ],
)
def test_fixed_batches_are_one_gaussian_a_pass(change, passes):
    data = {k: v for k, v in (DPSGD | change).items() if v is not None}
    items, assumed = expand(data | {"sampling": "fixed_batches"}, "zero_out")
    assert items == [{"kind": "gaussian", "noise_multiplier": 1.1, "count": passes}]
    assert "nothing is gained from sampling" in assumed[0]


def test_fixed_batches_move_when_a_record_is_added():
    with pytest.raises(UnsupportedRelation, match="add_remove"):
        expand(DPSGD | {"sampling": "fixed_batches"}, "add_remove")


def test_other_schemes_have_their_own_events():
    wor = expand(DPSGD | {"sampling": "wor"}, "replace_one")[0][0]
    assert (wor["kind"], wor["batch_size"]) == ("wor_gaussian", 256)
    cut = DPSGD | {"sampling": "truncated_poisson", "max_batch": 300}
    item = expand(cut, "add_remove")[0][0]
    assert item["kind"] == "truncated_poisson_gaussian"
    assert (item["dataset_size"], item["max_batch_size"]) == (60000, 300)
    never = expand(cut | {"max_batch": 60000}, "add_remove")[0][0]
    assert never["kind"] == "poisson_gaussian"
    full = DPSGD | {"batch_size": 60000, "sampling": "full_batch"}
    assert expand(full, "add_remove")[0][0]["count"] == 15


@pytest.mark.parametrize(
    ("own", "also"),
    [
        ({"sampling": "poisson"}, {"sampling": "poisson"}),
        ({"sampling": "fixed_size"}, {"sampling": "wor"}),
        (
            {"sampling": "truncated_poisson", "max_batch_size": 300},
            {"sampling": "truncated_poisson", "max_batch": 300},
        ),
    ],
)
def test_two_words_for_one_number_give_one_run(own, also):
    assert expand(OWN | own, "add_remove") == expand(DPSGD | also, "add_remove")


@pytest.mark.parametrize(
    "both",
    [{"dataset_size": 60000}, {"batch_size": 256}, {"max_batch": 300}],
)
def test_one_number_is_given_once(both):
    data = OWN | {"sampling": "truncated_poisson", "max_batch_size": 300} | both
    with pytest.raises(ValueError, match="two words for one number"):
        expand(data, "add_remove")


def test_several_examples_a_unit_are_a_binomial_mixture():
    items, assumed = expand(DPSGD | {"max_examples_per_unit": 3}, "add_remove")
    q = 256 / 60000
    want = [math.comb(3, n) * q**n * (1 - q) ** (3 - n) for n in range(4)]
    assert items[0]["shifts"] == [0, 1, 2, 3]
    assert items[0]["probabilities"] == pytest.approx(want, rel=1e-12)
    assert sum(items[0]["probabilities"]) == pytest.approx(1.0, abs=1e-12)
    assert any("more than 3 examples" in text for text in assumed)


def test_a_unit_of_one_example_costs_as_one_example():
    one = declare({"relation": "add_remove", "dpsgd": DPSGD | {"epochs": 1}})
    data = DPSGD | {"epochs": 1, "max_examples_per_unit": 1}
    user = declare({"relation": "add_remove", "dpsgd": data})
    at = {"delta": 1e-5, "relation": "add_remove"}
    known = epsilon(one.event, **at).upper
    assert epsilon(user.event, **at).upper == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"dataset_size": None}, "dataset_size"),
        ({"batch_size": None}, "batch_size"),
        ({"noise_multiplier": None}, "noise_multiplier"),
        ({"sampling": None}, "sampling"),
        ({"epochs": None}, "epochs or steps"),
        ({"steps": 10}, "not both"),
        ({"batch_size": 60001}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"dataset_size": True}, "dataset_size"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": -1}, "epochs"),
        ({"epochs": math.inf}, "epochs"),
        ({"epochs": None, "steps": 0}, "steps"),
        ({"epochs": None, "steps": 1.5}, "steps"),
        ({"noise_multiplier": 0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"clip_norm": -1}, "clip_norm"),
        ({"microbatch": 4}, "microbatch"),
        ({"sampling": "shuffle"}, "must not be accounted as Poisson"),
        ({"sampling": "balls_in_bins"}, "must not be accounted as Poisson"),
        ({"sampling": "Poisson"}, "sampling"),
        ({"max_batch": 300}, "max_batch"),
        ({"sampling": "truncated_poisson"}, "max_batch"),
        ({"sampling": "truncated_poisson", "max_batch": 255}, "max_batch"),
        ({"sampling": "wor", "max_examples_per_unit": 2}, "max_examples_per_unit"),
        ({"max_examples_per_unit": 0}, "max_examples_per_unit"),
        ({"sampling": "full_batch"}, "full_batch"),
    ],
)
def test_traps_of_the_shorthand_are_refused_by_name(change, named):
    data = {name: v for name, v in (DPSGD | change).items() if v is not None}
    with pytest.raises((ValueError, TypeError), match=named):
        expand(data, "add_remove")
