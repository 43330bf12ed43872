"""The card: what hubs read, the guarantee in words, and nothing that isn't text."""

import re

import jax
import numpy as np
import pytest
import yaml

from dpkit.data.layout import Layout
from dpkit.data.schema import Schema
from dpkit.report.guarantee import KNOWN_SEED, not_covered
from dpkit.training.card import card
from dpkit.training.report import told
from tests.dpkit.report.pages import HOSTILE
from tests.dpkit.training.test_report import RESULT

IMAGES = Layout.images((28, 28, 1), 10, 255.0)
NASTY = [
    HOSTILE,
    'a "quoted": [name] # no comment\n---\nlicense: mit',
    "back\\slash 'and' {braces} | pipe \u2028\x07\x85\ud800\U0001f600 ünï",
    "[a](https://example.org) ![](x.png) `code` *bold* $x$ https://example.org",
]


def made(layout=IMAGES, **changes):
    """A card, and the block of it that hubs read."""
    result = RESULT | {"ledger": "the-ledger", "run_id": "the-run"} | changes
    text = card(result, told(result, []), layout)
    _, block, body = text.split("---\n", 2)
    return yaml.safe_load(block), body


def layout(label=None, **columns):
    return Layout.of(Schema.read(columns, label=label))


AGE = {"kind": "numeric", "low": 0, "high": 9}
ILL = {"kind": "boolean"}
FACE = {"kind": "image", "shape": [8, 8, 1]}
NOTE = {"kind": "text", "length": 9}
WAVE = {"kind": "array", "shape": [9], "low": 0, "high": 1}


def test_the_block_is_what_hubs_read():
    block, body = made()
    title = "cnn trained on mnist 3.0.1"
    assert block == {
        "library_name": "dpkit",
        "pipeline_tag": "image-classification",
        "tags": ["dpkit", "jax", "differential-privacy"],
        "model-index": [
            {
                "name": title,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"type": "mnist 3.0.1", "name": "mnist 3.0.1"},
                        "metrics": [{"type": "accuracy", "value": 0.97631}],
                    }
                ],
            }
        ],
    }
    assert body.startswith(f"\n# {title}\n")


def test_the_text_says_what_holds_and_what_does_not():
    _, body = made()
    lead = "**Epsilon ≤ 2.999 at delta = 1e-5, to add or remove one example"
    assert f"{lead} (certified: pld).**" in body
    for text in not_covered("example"):
        assert f"- {text}\n" in body
    for value in ("the-ledger", "the-run", "7f" * 32, "ab" * 32, r"add\_remove"):
        assert value in body
    assert 'dpkit.load_run("' in body
    assert "factory" not in body
    assert "| noise multiplier | 0.91 |" in body


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"insecure_seed": True}, KNOWN_SEED),
        ({"certified": False}, "an estimate, not certified"),
        ({"epsilon": "inf"}, "no differential privacy"),
        ({"epsilon": None}, "makes no claim about privacy"),
    ],
)
def test_without_a_guarantee_there_is_no_tag_and_the_text_says_so(changes, words):
    block, body = made(**changes)
    assert block["tags"] == ["dpkit", "jax"]
    assert words in body
    assert ("Epsilon ≤" in body) is False


def test_scores_on_rows_that_are_not_public_are_left_out():
    for evaluation in ("private", "none", None):
        block, body = made(evaluation=evaluation)
        assert "model-index" not in block
        assert "97" not in body


def test_a_score_is_a_number_however_small_or_large():
    for value in (1e-05, 1e20, 3, 0.5, 123456.789):
        block, _ = made(test_accuracy=value)
        (metric,) = block["model-index"][0]["results"][0]["metrics"]
        assert metric["value"] == value
        assert isinstance(metric["value"], float)
    assert "model-index" not in made(test_accuracy=None)[0]
    texts = Layout(
        {"tokens": jax.ShapeDtypeStruct((9,), np.uint8)}, symbols={"tokens": 9}
    )
    block, _ = made(texts, test_accuracy=None, test_bits_per_character=3.5)
    (found,) = block["model-index"][0]["results"]
    assert found["metrics"] == [{"type": "bits_per_character", "value": 3.5}]
    assert (
        found["task"] == {"type": block["pipeline_tag"]} == {"type": "text-generation"}
    )


@pytest.mark.parametrize(
    ("rows", "task"),
    [
        (layout("ill", age=AGE, ill=ILL), "tabular-classification"),
        (layout("ill", age=AGE, calm=ILL, ill=ILL), "tabular-classification"),
        (layout("age", age=AGE, calm=ILL), "tabular-regression"),
        (layout("ill", face=FACE, ill=ILL), "image-classification"),
        (layout("ill", note=NOTE, ill=ILL), "text-classification"),
        (layout(note=NOTE), "text-generation"),
        (layout("age", face=FACE, age=AGE), None),
        (layout("ill", face=FACE, note=NOTE, ill=ILL), None),
        (layout("ill", wave=WAVE, ill=ILL), None),
    ],
)
def test_a_task_has_the_name_that_hubs_have_for_it(rows, task):
    assert made(rows)[0].get("pipeline_tag") == task


@pytest.mark.parametrize("name", NASTY)
def test_names_stay_text(name):
    block, body = made(dataset=name, model=name, unit=name, factory=name)
    assert list(block) == ["library_name", "pipeline_tag", "tags", "model-index"]
    (entry,) = block["model-index"]
    assert entry["name"] == f"{name} trained on {name}"
    assert entry["results"][0]["dataset"] == {"type": name, "name": name}
    # Every sign that Markdown or HTML would obey stands behind a backslash.
    own = re.sub(r"```python.*?```|`[\w./]+`|^\|( --- \|)+$|\*\*", "", body, flags=re.S)
    for line in own.splitlines():
        text = line.strip("| ").replace(" | ", "").lstrip("# ")
        assert not re.search(r"(?<!\\)[`*_\[\]<>&~$|]", text), line
        assert "https://" not in line
    assert body.count("\n# ") == 1


def test_a_factory_is_never_named_in_the_code_that_is_shown():
    _, body = made(factory="evil:make")
    code = re.findall(r"```python(.*?)```", body, flags=re.S)
    assert "evil" not in code[0]
    assert 'factory="module:function"' in code[0]
    assert "it was called evil:make" in body
