"""The report: self-contained, escaped, honest about what it shows."""

import re

import pytest

from dpkit.training.report import sampling_in_words
from tests.dpkit.report.pages import HOSTILE, Page
from tests.dpkit.report.pages import training_page as render

RESULT = {
    "schema_version": 1,
    "sampling": "poisson",
    "max_batch_size": 352,
    "epsilon": 2.9987,
    "certified": True,
    "delta": 1e-5,
    "relation": "add_remove",
    "unit": "example",
    "accountant": "pld",
    "noise_multiplier": 0.91,
    "sampling_rate": 256 / 60000,
    "steps": 200,
    "clip_norm": 0.1,
    "expected_batch_size": 256,
    "test_accuracy": 0.97631,
    "seconds": 263.4,
    "params_sha256": "ab" * 32,
    "ledger_head": "7f" * 32,
    "started": "2030-01-01T10:00:00Z",
    "finished": "2030-01-01T10:04:24Z",
    "dataset": "mnist 3.0.1",
    "model": "cnn",
    "max_records": 60000,
    "microbatch_size": 1,
    "devices": 2,
    "insecure_seed": False,
    "evaluation": "public",
    "versions": {"jax": "0.10.2"},
}
HISTORY = [
    {"step": 100, "epoch": 0.43, "epsilon": 2.1, "test_accuracy": 0.94125},
    {"step": 200, "epoch": 0.85, "epsilon": 2.9987, "test_accuracy": 0.97631},
]
CONFIG = '[data]\nname = "mnist"\n'


@pytest.fixture(scope="module")
def page():
    return render(RESULT, HISTORY, CONFIG)


def test_well_formed_and_complete(page):
    parsed = Page(page)
    assert parsed.stack == []
    assert parsed.tags.count("svg") == 2
    assert parsed.tags.count("h1") == 1
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_self_contained(page):
    parsed = Page(page)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(
        parsed.tags
    )
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)
    for _, name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("#")
    assert "default-src 'none'" in page


def test_references_inside_a_drawing_exist(page):
    parsed = Page(page)
    ids = {value for _, name, value in parsed.attributes if name == "id"}
    used = {value[1:] for _, name, value in parsed.attributes if name == "href"}
    used |= set(re.findall(r"url\(#([^)]*)\)", page))
    assert used
    assert used <= ids


def test_drawings_follow_the_page_and_have_a_text(page):
    assert "DejaVu Sans'," not in page
    assert not re.search(r"#0[14]0[25]0[36]|#070809", page)
    assert "stroke: var(--mark)" in page
    labels = [
        value
        for tag, name, value in Page(page).attributes
        if tag == "svg" and name == "aria-label"
    ]
    assert len(labels) == 2
    assert "from 94.12 % at step 100 to 97.63 % at step 200" in labels[0]
    assert "2.9987" not in labels[1]
    assert "epsilon at delta = 1e-5" in labels[1]


def test_same_input_same_page(page):
    assert render(RESULT, HISTORY, CONFIG) == page


def test_the_words_are_there(page):
    for part in (
        "≤ 2.999",
        "97.63 %",
        "1e-5",
        "add_remove",
        "add or remove one example",
        "certified upper bound (pld)",
        "every intermediate one",
        "Hyper-parameter search",
        "Floating-point arithmetic",
        "What is not covered",
        "7f" * 32,
        "version of jax",
        "4 min 23 s",
        "2030-01-01 10:00 UTC",
    ):
        assert part in page, part
    assert "Insecure" not in page
    assert "estimate" not in page


def test_epsilon_is_rounded_up():
    page = render({**RESULT, "epsilon": 2.99951}, HISTORY, CONFIG)
    assert "≤ 3<" in page


@pytest.mark.parametrize(
    "field",
    ["dataset", "model", "accountant", "relation", "unit", "sampling", "started"],
)
def test_hostile_facts_are_escaped(field):
    page = render({**RESULT, field: HOSTILE}, HISTORY, CONFIG)
    assert "<script" not in page
    assert "<img" not in page
    assert Page(page).stack == []


def test_hostile_config_and_versions_are_escaped():
    page = render({**RESULT, "versions": {HOSTILE: HOSTILE}}, HISTORY, HOSTILE)
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(&quot;x&quot;)" in page
    assert Page(page).stack == []


def test_a_fixed_seed_is_loud():
    page = render({**RESULT, "insecure_seed": True}, HISTORY, CONFIG)
    first = page[page.index("<main>") :][:400]
    assert 'role="alert"' in first
    assert "Insecure seed: no privacy" in first
    assert "certified upper bound" not in page.split("The guarantee")[0]


def test_private_rows_leave_no_accuracy():
    page = render({**RESULT, "evaluation": "private"}, HISTORY, CONFIG)
    for part in ("97.6", "94.1", "test accuracy", "0.97", "0.94"):
        assert part not in page
    assert Page(page).tags.count("svg") == 1
    assert "declared private" in page


def test_uncertified_is_called_an_estimate():
    page = render({**RESULT, "certified": False}, HISTORY, CONFIG)
    assert "Not certified" in page
    assert "≤ 2.999" not in page
    assert "an estimate, not certified" in page


@pytest.mark.parametrize("epsilon", ["inf", float("inf")])
def test_infinite_epsilon(epsilon):
    page = render({**RESULT, "epsilon": epsilon}, HISTORY, CONFIG)
    assert "no guarantee" in page
    assert "No privacy: epsilon is infinite" in page


def test_no_history():
    page = render(RESULT, [], CONFIG)
    assert "<svg" not in page
    assert "<details" not in page


def test_unknown_values_in_the_history_are_left_out():
    rows = [{"step": 1, "epsilon": "inf", "test_accuracy": None}, *HISTORY]
    page = render(RESULT, rows, CONFIG)
    assert not re.search(r"\b(nan|inf|None)\b", page)
    assert "from 94.12 % at step 100" in page


def test_a_long_history_is_thinned_with_its_ends():
    rows = [
        {"step": step, "epsilon": step / 1000, "test_accuracy": 0.5}
        for step in range(1, 1001)
    ]
    page = render(RESULT, rows, CONFIG)
    assert page.count("<tr><td>") <= 62
    assert "<td>1</td>" in page
    assert "<td>1,000</td>" in page


def test_only_what_is_needed_is_needed():
    needed = ("epsilon", "certified", "delta", "relation", "unit", "accountant")
    page = render({key: RESULT[key] for key in needed}, [], "")
    assert Page(page).stack == []
    with pytest.raises(KeyError):
        render({key: RESULT[key] for key in needed[1:]}, [], "")


def test_a_certified_pair_is_rounded_up_wherever_it_stands():
    history = [{**row, "epsilon": row["epsilon"] + 1.01e-3} for row in HISTORY]
    page = render({**RESULT, "delta": 1.00049e-5}, history, CONFIG)
    assert "1.001e-5" in page
    assert not re.search(r"(?<![\d.])1e-5", page)
    assert "2.102" in page and "2.101" not in page


def test_a_run_whose_time_is_private_shows_none():
    timeless = {**RESULT, "seconds": None, "finished": None, "constant_time": False}
    page = render(timeless, HISTORY, CONFIG)
    assert "of work" not in page and "finished" not in page
    assert "constant_time" in page
    assert "constant_time" not in render(RESULT, HISTORY, CONFIG)


def test_the_guarantee_names_how_batches_were_drawn():
    facts = {**RESULT, "sampling_rate": 0.01, "max_batch_size": 700}
    text = render(facts, HISTORY, CONFIG)
    for part in (
        "every intermediate one",
        "its own coin toss (probability 0.01)",
        "larger than 700",
        "accountant pld",
    ):
        assert part in text


def test_unknown_sampling_is_not_dressed_up():
    text = sampling_in_words({"sampling": "stratified", "max_batch_size": 3})
    assert text == "sampling stratified"


def test_what_is_not_covered():
    public, private = (
        render({**RESULT, "evaluation": kind}, [], "") for kind in ("public", "private")
    )
    for part in (
        "Hyper-parameter search",
        "Preparation that looked at the private rows",
        "Floating-point",
        "choices",
    ):
        assert part in public
        assert part in private
    assert "declared public" in public
    assert "declared public" not in private


def test_rows_that_nobody_declared_leave_no_accuracy():
    page = render({**RESULT, "evaluation": None}, HISTORY, CONFIG)
    for part in ("97.6", "94.1", "test accuracy"):
        assert part not in page
